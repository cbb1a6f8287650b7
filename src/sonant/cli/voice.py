"""sonant voice: the library of voices, and the check of a clip before it goes in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.cli.completions import model_names, voice_names

if TYPE_CHECKING:
    from sonant.request.voice import Voice

app = typer.Typer(help="Keep voices: add, design, list, show, check, remove.", no_args_is_help=True)

MOST_SECONDS = 600.0
"""A longer clip is refused; nothing near it is of use."""


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name in the library: a-z 0-9 . _ -")],
    clip: Annotated[Path, typer.Argument(help="A recording of 5 to 15 s, or a voice file.")],
    transcript: Annotated[str | None, typer.Option(help="What the clip says, word for word.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the voice.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Encode it for this model now; any other encodes it on use.", autocompletion=model_names
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a voice of this name.")] = False,
) -> None:
    """Keep the voice of a clip."""
    from dataclasses import replace

    from sonant.cli.speaking import warn
    from sonant.request.audio import Audio
    from sonant.request.voice import Voice
    from sonant.voices.advice import check_clip
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary()
    _check_free(library.path(name), name, force)
    if clip.suffix == ".safetensors":
        voice = Voice.load(clip)
        changes: dict[str, Any] = {}
        if transcript is not None:
            changes |= {"transcript": transcript, "tensors": {}, "family": "", "fingerprint": ""}
        if language is not None:
            changes |= {"language": language}
        voice = replace(voice, **changes)
    else:
        audio = Audio.read(clip, max_seconds=MOST_SECONDS)
        for remark in check_clip(audio, transcript=transcript).advice:
            warn(remark.message)
        origin = {"file": clip.name, "added": datetime.now(UTC).date().isoformat()}
        voice = Voice(clip=audio, transcript=transcript, language=language, origin=origin)
    if model is not None:
        voice = _encoded(voice, model)
    library.add(voice, name=name, overwrite=force)
    typer.echo(f"{library.path(name)}")


@app.command("design")
def design(
    name: Annotated[str, typer.Argument(help="Name in the library: a-z 0-9 . _ -")],
    model: Annotated[str, typer.Option(help="A voice-design model.", autocompletion=model_names)],
    instruction: Annotated[str, typer.Option(help='The voice in words: "a calm, low male voice".')],
    text: Annotated[str | None, typer.Option(help="What the voice says to be cloned from.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of that text.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same voice.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16, float64.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace a voice of this name.")] = False,
) -> None:
    """Make a voice from words and keep it: any cloning model can then speak with it."""
    from sonant.cli.speaking import load_engine, status
    from sonant.readings.job import Job
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary()
    _check_free(library.path(name), name, force)
    settings = {"instruction": instruction, "language": language, "seed": seed}
    job = Job(text="", design_model=model, design_text=text, settings=settings)
    with load_engine(model, device=device, dtype=dtype) as engine, status("designing the voice"):
        voice = engine.design(job.design_request(), name=name)
    library.add(voice, name=name, overwrite=force)
    typer.echo(f"{library.path(name)}")


@app.command("list")
def list_voices(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The voices of the library."""
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary()
    records = [_record(library.get(name)) for name in library.names()]
    if as_json:
        typer.echo(json.dumps(records, ensure_ascii=False, indent=2))
        return
    if not records:
        typer.echo(f"no voices yet in {library.folder}; add one with: sonant voice add NAME CLIP", err=True)
    for record in records:
        seconds = f"{record['seconds']:.1f} s" if record["seconds"] is not None else "no clip"
        words = "with transcript" if record["transcript"] else "no transcript"
        typer.echo(
            f"{record['name']:<20} {seconds:>8}  {words:<15}  {record['family'] or 'any cloning model'}"
        )


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name in the library.", autocompletion=voice_names)],
) -> None:
    """What is kept of a voice, as JSON."""
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary()
    record = _record(library.get(name)) | {"file": str(library.path(name))}
    typer.echo(json.dumps(record, ensure_ascii=False, indent=2))


@app.command("rm")
def remove(
    names: Annotated[list[str], typer.Argument(help="Names in the library.", autocompletion=voice_names)],
) -> None:
    """Remove voices from the library."""
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary()
    for name in names:
        library.get(name)  # all are there, or none is removed
    for name in names:
        library.remove(name)
        typer.echo(f"removed {name}")


@app.command("check")
def check(
    clip: Annotated[Path, typer.Argument(help="A recording.")],
    transcript: Annotated[str | None, typer.Option(help="What it is said to say.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Is a clip a good reference? Ends with status 1 when it is not."""
    from sonant.request.audio import Audio
    from sonant.voices.advice import check_clip

    checkup = check_clip(Audio.read(clip, max_seconds=MOST_SECONDS), transcript=transcript)
    found = checkup.measurement
    if as_json:
        advice = [{"is_problem": remark.is_problem, "message": remark.message} for remark in checkup.advice]
        data = {"file": str(clip), "is_good": checkup.is_good, "advice": advice, **found.as_dict()}
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        typer.echo(
            f"{clip}: {found.seconds:.1f} s at {found.sample_rate} Hz, {found.loudness:.0f} LUFS, peak "
            f"{found.peak:.2f}, {found.silence_share:.0%} silence"
        )
        for remark in checkup.advice:
            typer.echo(f"  {'problem' if remark.is_problem else 'note'}: {remark.message}")
        if not checkup.advice:
            typer.echo("  a good reference")
    if not checkup.is_good:
        raise typer.Exit(1)


def _check_free(path: Path, name: str, force: bool) -> None:
    from sonant.errors import VoiceError

    if path.exists() and not force:
        raise VoiceError(
            f"a voice named {name!r} exists already in {path.parent}; expected a new name. "
            "Choose another, or pass --force to replace it."
        )


def _encoded(voice: Voice, model: str) -> Voice:
    """The voice with the tensors of a model beside its clip."""
    from dataclasses import replace

    from sonant.cli.speaking import load_engine, status
    from sonant.errors import VoiceError

    if voice.clip is None:
        raise VoiceError(
            f"the voice {voice.name!r} keeps no clip, so {model} cannot encode it; expected a voice with its "
            "clip. Add it from the recording."
        )
    with load_engine(model) as engine, status("encoding the voice"):
        made = engine.clone(voice.clip, transcript=voice.transcript)
    return replace(voice, family=made.family, fingerprint=made.fingerprint, tensors=made.tensors)


def _record(voice: Voice) -> dict[str, Any]:
    return {
        "name": voice.name,
        "seconds": round(voice.clip.seconds, 3) if voice.clip is not None else None,
        "sample_rate": voice.clip.sample_rate if voice.clip is not None else None,
        "transcript": voice.transcript,
        "language": voice.language,
        "family": voice.family,
        "fingerprint": voice.fingerprint,
        "digest": voice.digest(),
        "tensors": {name: list(tensor.shape) for name, tensor in voice.tensors.items()},
        "origin": dict(voice.origin),
    }
