"""sonant codec: audio to speech tokens and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sonant.cli.completions import model_names
from sonant.cli.flags import from_table

app = typer.Typer(help="Audio to speech tokens and back.", no_args_is_help=True)

Model = Annotated[
    str, typer.Option(help="A model or speech tokenizer with a codec.", autocompletion=model_names)
]


@app.command("encode")
@from_table
def encode(
    *,
    source: Annotated[Path, typer.Argument(help="Any audio file.")],
    target: Annotated[Path, typer.Argument(help="File of tokens to write, such as out.codes.")],
    model: Model,
    device: str,
) -> None:
    """Write the speech tokens of an audio file."""
    from sonant.catalogue.registry import load_model
    from sonant.cli.speaking import status
    from sonant.readings.codes import encode as encode_audio
    from sonant.request.audio import Audio

    audio = Audio.read(source)
    with status(f"encoding with {model}"):
        codes = encode_audio(load_model(model, device=device), audio)
    codes.save(target)
    frames, books = codes.tokens.shape
    typer.echo(f"{target}  {frames} frames of {books} tokens for {audio.seconds:.2f} s")


@app.command("decode")
@from_table
def decode(
    *,
    source: Annotated[Path, typer.Argument(help="A file of tokens.")],
    target: Annotated[Path, typer.Argument(help="Audio file to write.")],
    model: Model,
    device: str,
) -> None:
    """Write the sound of speech tokens."""
    from sonant.catalogue.registry import load_model
    from sonant.cli.speaking import status, warn
    from sonant.readings.codes import Codes
    from sonant.readings.codes import decode as decode_tokens
    from sonant.readings.delivery import check_target

    check_target(target, None)
    codes = Codes.load(source)
    with status(f"decoding with {model}"):
        loaded = load_model(model, device=device)
        if codes.fingerprint != loaded.spec.fingerprint:
            warn(f"{source} was encoded by another checkpoint of {codes.family}; their codecs may differ")
        audio = decode_tokens(loaded, codes)
    audio.write(target)
    typer.echo(f"{target}  {audio.seconds:.2f} s")
