"""sonant say: text in, speech out."""

from __future__ import annotations

import codecs
import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.completions import format_names
from sonant.cli.flags import job_settings, with_settings

if TYPE_CHECKING:
    from sonant.cli.speaking import Spoken

BOOKS = (".epub", ".docx", ".pdf", ".html", ".htm", ".srt", ".vtt")
"""Endings of files that are no plain text."""

Output = partial(typer.Option, rich_help_panel="Output")
Machine = partial(typer.Option, rich_help_panel="Model and machine")


@with_settings
def say(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(help="What to say; - reads standard input, @FILE a file.", metavar="TEXT|-|@FILE"),
    ] = None,
    output: Annotated[
        str | None,
        Output(
            "--output",
            "-o",
            help="File to write, its ending says the format; - is standard output. Default: speech.wav here.",
        ),
    ] = None,
    format: Annotated[
        str | None,
        Output(
            help="wav, flac, mp3, opus, aac, m4a or pcm, where no file ending says it.",
            autocompletion=format_names,
        ),
    ] = None,
    stream: Annotated[bool, Output("--stream", help="Write each piece as soon as it is spoken.")] = False,
    play: Annotated[bool, Output("--play", help="Play it; writes a file only with --output.")] = False,
    timings: Annotated[bool, Output("--timings", help="Print where the time went.")] = False,
    as_json: Annotated[bool, Output("--json", help="Print the result as JSON.")] = False,
    receipt: Annotated[bool, Output("--receipt", help="Write FILE.receipt.json beside the file.")] = False,
    resume: Annotated[
        bool,
        Output(
            "--resume",
            help="For long texts: keep each finished paragraph in FILE.pieces and go on from "
            "there next time. Without --seed the seed is 0.",
        ),
    ] = False,
    no_normalize: Annotated[
        bool,
        typer.Option("--no-normalize", help="The same as --normalize off.", rich_help_panel="How it sounds"),
    ] = False,
    model: str = DEFAULT_MODEL,
    device: str,
    dtype: str,
    precision: str,
    memory_limit: str | None,
    variant: Annotated[
        str | None, Machine(help="Other weights of the release, such as rl; the same as --model MODEL:rl.")
    ] = None,
    strict: bool,
    **given: Any,
) -> None:
    """Turn text into speech."""
    from sonant.cli.speaking import Fitting, speak
    from sonant.errors import RequestError
    from sonant.readings.job import Job

    text = meant_text(words) if words else None
    if text is None and given["source_audio"] is None:
        raise RequestError(
            "nothing to say was given; expected TEXT, - for standard input, or @FILE. Try: sonant say "
            '"Hello there."'
        )
    target, format = find_target(output, format, is_played=play)
    if (receipt or resume) and not isinstance(target, Path):
        raise RequestError(
            "--receipt and --resume keep something beside the file and there is none; expected a file. "
            "Give one with --output."
        )
    given["normalize"] = read_normalize(given["normalize"], no_normalize)
    if resume and given["seed"] is None:
        given["seed"] = 0
    job = Job(
        text=read_text(meant_file(text)) if text is not None else "",
        model=model if variant is None else f"{model}:{variant}",
        device=device,
        dtype=dtype,
        precision=precision,
        is_streamed=stream,
        in_pieces=resume,
        format=format,
        **job_settings(given),
    )
    pieces = target.with_name(f"{target.name}.pieces") if resume and isinstance(target, Path) else None
    fitting = Fitting(memory_limit, strict=strict)
    spoken = speak(job, target=target, play=play, pieces=pieces, fitting=fitting)
    report(spoken, target=target, timings=timings, as_json=as_json, receipt=receipt)


def meant_text(words: list[str]) -> str:
    """The one text, or the words of one whose quotes were forgotten. Raises RequestError where they may be
    something else: two texts, a file's name."""
    from sonant.audio.encode import FORMATS
    from sonant.errors import RequestError

    if len(words) == 1:
        return words[0]
    last = words[-1]
    if Path(last).suffix.lower() in {suffix for form in FORMATS.values() for suffix in form.suffixes}:
        raise RequestError(
            f"{last} is one word too many; expected one text. Is it the file: did you mean -o {last}? "
            "If it is to be said, put the whole text in quotes."
        )
    if any(word.startswith("@") or word == "-" or len(word.split()) != 1 for word in words):
        raise RequestError(
            f"{words[1][:60]!r} is one text too many; expected one. Put all that is to be said in one pair "
            "of quotes."
        )
    return " ".join(words)


def meant_file(argument: str) -> str:
    """The argument, or "@" before it where it is a file here and was meant to be read: a terminal is asked.

    Raises RequestError, with both ways to say it, where nobody can be asked.
    """
    from sonant.errors import RequestError

    try:
        is_file = "\n" not in argument and Path(argument).is_file()
    except (OSError, ValueError):  # longer than any path, or with a null in it
        is_file = False
    if not is_file:
        return argument
    if Path(argument).suffix.lower() in BOOKS:
        raise RequestError(
            f"{argument} is a book here, not a text; read it with: sonant read {shlex.quote(argument)}",
            field="text",
        )
    if sys.stdin.isatty() and sys.stderr.isatty():
        return (
            f"@{argument}" if typer.confirm(f"{argument} is a file. Read it?", True, err=True) else argument
        )
    raise RequestError(
        f"{argument} is a file here; expected a text, or {shlex.quote(f'@{argument}')} for what it says. "
        f"To say the name itself: echo {shlex.quote(argument)} | sonant say -",
        field="text",
    )


def read_text(argument: str) -> str:
    """The text itself, standard input for "-", a file's content for "@FILE"."""
    from sonant.errors import RequestError

    if argument != "-" and not argument.startswith("@"):
        return argument
    try:
        if argument == "-":
            return decode_text(sys.stdin.buffer.read())
        return decode_text(Path(argument[1:]).read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise RequestError(
            f"cannot read the text from {argument if argument != '-' else 'standard input'} ({error}); "
            "expected UTF-8 text, or UTF-16 with its mark. Check path and encoding; "
            "a text that begins with @ can be piped in with -.",
            field="text",
        ) from error


def decode_text(data: bytes) -> str:
    """Text of a file: UTF-8, or UTF-16 and UTF-32 where their byte order mark says so."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return data.decode("utf-32")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def find_target(
    output: str | None, format: str | None, *, is_played: bool
) -> tuple[Path | BinaryIO | None, str]:
    """Where the audio goes, checked, and its format; None when it is only played."""
    from sonant.audio.encode import FORMATS, find_format
    from sonant.errors import RequestError
    from sonant.readings.delivery import check_target

    if output == "-":
        if sys.stdout.isatty():
            raise RequestError(
                "the audio would be printed to the terminal; expected a pipe or a file behind --output -. "
                "Give a file name, or pipe it: sonant say ... -o - | ffplay -"
            )
        return sys.stdout.buffer, find_format(format or "wav").name
    if output is None and is_played:
        return None, find_format(format or "wav").name
    if output is None:
        output = f"speech{FORMATS[find_format(format or 'wav').name].suffixes[0]}"
    path = Path(output)
    return path, check_target(path, format)


def read_normalize(normalize: str | None, no_normalize: bool) -> Any:
    """The front end that the two flags name together; the request checks the name."""
    from sonant.errors import RequestError

    if no_normalize and normalize not in (None, "off"):
        raise RequestError(
            f"--no-normalize was given with --normalize {normalize}; expected one of them. Leave one out.",
            field="normalize",
        )
    return "off" if no_normalize else normalize


def report(
    spoken: Spoken, *, target: Path | BinaryIO | None, timings: bool, as_json: bool, receipt: bool
) -> None:
    """Say where the audio is and what happened; only data goes to standard output."""
    from sonant.cli.speaking import tell_verdicts, warn
    from sonant.readings.receipt import make_receipt, receipt_path

    job, outcome = spoken.job, spoken.outcome
    path = target if isinstance(target, Path) else None
    is_piped = target is not None and path is None
    for guard in outcome.guards:
        warn(guard.message)
    tell_verdicts(outcome.verdicts, outcome.timings)
    receipt_file = None
    if receipt and path is not None:
        receipt_file = receipt_path(path)
        made = make_receipt(job, spec=spoken.spec, voice=spoken.voice, outcome=outcome, recording=path)
        made.save(receipt_file)
    stages = {"load": spoken.load_seconds, **outcome.timings}
    if as_json:
        result = {
            "file": str(path) if path is not None else None,
            "format": job.format,
            "seconds": round(outcome.seconds, 4),
            "sample_rate": outcome.sample_rate,
            "model": spoken.spec.name,
            "fingerprint": spoken.spec.fingerprint,
            "seed": outcome.seed,
            "segments": len(outcome.segments),
            "chunks": outcome.chunks,
            "reused_pieces": spoken.reused,
            "clipped_samples": outcome.clipped,
            "guards": [{"kind": g.kind, "message": g.message, "segment": g.segment} for g in outcome.guards],
            "verdicts": [verdict.as_dict() for verdict in outcome.verdicts],
            "timings": {name: round(value, 4) for name, value in stages.items()},
            "receipt": str(receipt_file) if receipt_file is not None else None,
        }
        typer.echo(json.dumps(result, ensure_ascii=False), err=is_piped)
    elif path is not None and sys.stdout.isatty():
        reused = f", {spoken.reused} pieces kept from before" if spoken.reused else ""
        typer.echo(f"{path}  {outcome.seconds:.1f} s by {spoken.spec.name}, seed {outcome.seed}{reused}")
    elif path is not None:
        typer.echo(str(path))
    if timings and not as_json:
        for name, value in stages.items():
            shown = f"{value:9.0f}" if name == "frames" else f"{value:9.3f} s"
            typer.echo(f"  {name:<12}{shown}", err=True)
        if outcome.seconds and stages.get("total"):
            typer.echo(
                f"  {'real time':<12}{stages['total'] / outcome.seconds:9.3f} of the audio's length", err=True
            )
