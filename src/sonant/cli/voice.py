"""sonant voice: the library of voices, and the check of a clip before it goes in."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.cli.completions import model_names, voice_names
from sonant.cli.flags import from_table
from sonant.errors import RequestError

if TYPE_CHECKING:
    from sonant.request.audio import Audio
    from sonant.request.voice import Voice
    from sonant.voices.recogniser import Recogniser

app = typer.Typer(help="Keep voices: add, design, list, show, check, remove.", no_args_is_help=True)

TRANSCRIBE = "Write down what the clip says with a speech recogniser (the judge extra)."
SPEAKERS = "whether several people speak, which needs a speaker encoder: pip install --no-deps resemblyzer"


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
    transcribe: Annotated[bool, typer.Option("--transcribe", help=TRANSCRIBE)] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Keep the clip mended: see sonant voice check.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a voice of this name.")] = False,
) -> None:
    """Keep the voice of a clip; one without a voice in it is refused."""
    from dataclasses import replace

    from sonant.request.audio import LONGEST_CLIP, Audio
    from sonant.request.voice import Voice
    from sonant.voices.library import VoiceLibrary

    if transcribe and transcript is not None:
        raise _both_transcripts()
    library = VoiceLibrary()
    if Path(name).suffix and os.path.isfile(name) and not os.path.isfile(clip):
        turned = shlex.join(["sonant", "voice", "add", str(clip), name])
        raise RequestError(
            f"{name} is a file and {clip} is none; the name comes first: {turned}", field="name"
        )
    _check_free(library.path(name), name, force)
    if clip.suffix == ".safetensors":
        voice = Voice.load(clip)
        changes: dict[str, Any] = {}
        if voice.clip is not None and (transcribe or fix):
            audio, transcript, _ = _examined(voice.clip, transcript, language, transcribe=transcribe, fix=fix)
            changes |= {"clip": audio, "tensors": {}, "family": "", "fingerprint": ""}
        if transcript is not None:
            changes |= {"transcript": transcript, "tensors": {}, "family": "", "fingerprint": ""}
        if language is not None:
            changes |= {"language": language}
        voice = replace(voice, **changes)
    else:
        audio = Audio.read(clip, max_seconds=LONGEST_CLIP)
        audio, transcript, heard = _examined(audio, transcript, language, transcribe=transcribe, fix=fix)
        origin = {"file": clip.name, "added": datetime.now(UTC).date().isoformat()}
        voice = Voice(clip=audio, transcript=transcript, language=language or heard, origin=origin)
    if model is not None:
        voice = _encoded(voice, model)
    library.add(voice, name=name, overwrite=force)
    typer.echo(f"{library.path(name)}")


@app.command("design")
@from_table
def design(
    *,
    name: Annotated[str, typer.Argument(help="Name in the library: a-z 0-9 . _ -")],
    model: Annotated[str, typer.Option(help="A voice-design model.", autocompletion=model_names)],
    instruction: Annotated[str, typer.Option(help='The voice in words: "a calm, low male voice".')],
    text: Annotated[str | None, typer.Option(help="What the voice says to be cloned from.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of that text.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same voice.")] = None,
    device: str,
    dtype: str,
    precision: str,
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
    loaded = load_engine(model, device=device, dtype=dtype, precision=precision)
    with loaded as engine, status("designing the voice"):
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
    language: Annotated[str | None, typer.Option(help="The language it is said to be in.")] = None,
    transcribe: Annotated[
        bool,
        typer.Option("--transcribe", help="Listen to it with a speech recogniser (the judge extra) too."),
    ] = False,
    fix: Annotated[
        Path | None,
        typer.Option(
            help="File for the clip mended: trimmed, resampled, filtered, denoised gently, levelled."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Is a clip a good reference? Ends with status 1 when it is not, mended where --fix is given."""
    from sonant.request.audio import LONGEST_CLIP, Audio
    from sonant.voices.doctor import examine
    from sonant.voices.mending import mend
    from sonant.voices.speakers import load_encoder

    audio = Audio.read(clip, max_seconds=LONGEST_CLIP)
    done: tuple[str, ...] = ()
    if fix is not None:
        mended = mend(audio, may_cut=transcript is None)
        audio, done = mended.audio, mended.done
        audio.write(fix)
    recogniser = _recogniser() if transcribe else None
    encoder = load_encoder()
    checkup = examine(audio, transcript=transcript, language=language, recogniser=recogniser, encoder=encoder)
    found, room, heard = checkup.measurement, checkup.acoustics, checkup.heard
    if as_json:
        data = {
            "file": str(clip),
            "is_good": checkup.is_good,
            "advice": [remark.as_dict() for remark in checkup.advice],
            **found.as_dict(),
            "acoustics": asdict(room) if room is not None else None,
            "heard": asdict(heard) if heard is not None else None,
            "voices_apart": checkup.apart,
            "fixed": str(fix) if fix is not None else None,
            "done": list(done),
        }
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2))
    else:
        typer.echo(
            f"{clip}: {found.seconds:.1f} s at {found.sample_rate} Hz, {found.loudness:.0f} LUFS, peak "
            f"{found.peak:.2f}, {found.silence_share:.0%} silence"
        )
        if room is not None:
            hall = "unknown" if room.reverberation is None else f"about {room.reverberation:.1f} s"
            typer.echo(
                f"  noise {room.noise_distance:.0f} dB under the voice, sound up to "
                f"{room.bandwidth:,.0f} Hz, reverberation {hall}"
            )
        if heard is not None:
            typer.echo(f"  heard: {heard.text}")
        for sentence in done:
            typer.echo(f"  mended: {sentence}")
        if fix is not None:
            typer.echo(f"  {fix} is {'the clip mended' if done else 'the clip as it was: nothing to mend'}")
        for remark in checkup.advice:
            typer.echo(f"  {'problem' if remark.is_problem else 'note'}: {remark.message}")
        if not checkup.advice:
            typer.echo("  a good reference")
        if encoder is None:
            typer.echo(f"  not examined: {SPEAKERS}")
    if not checkup.is_good:
        raise typer.Exit(1)


def _examined(
    audio: Audio, transcript: str | None, language: str | None, *, transcribe: bool, fix: bool
) -> tuple[Audio, str | None, str | None]:
    """A clip to keep, its transcript and its language by ear; remarks are told. Raises RequestError."""
    from sonant.cli.speaking import warn
    from sonant.voices.doctor import examine, refuse_hopeless
    from sonant.voices.mending import mend
    from sonant.voices.speakers import load_encoder

    recogniser = _recogniser() if transcribe else None
    refuse_hopeless(examine(audio), field="clip")
    if fix:
        mended = mend(audio, may_cut=transcript is None)
        audio = mended.audio
        for sentence in mended.done:
            typer.echo(f"mended: {sentence}", err=True)
    checkup = examine(
        audio, transcript=transcript, language=language, recogniser=recogniser, encoder=load_encoder()
    )
    for remark in checkup.advice:
        warn(remark.message)
    heard = checkup.heard
    if heard is None:
        return audio, transcript, None
    if not heard.can_judge(language):
        raise RequestError(
            f"the recogniser that is installed knows English only, and the clip is {language}; expected one "
            "that knows it. Name its folder with SONANT_RECOGNISER, or give --transcript.",
            field="transcript",
        )
    if not heard.text:
        raise RequestError(
            "the recogniser understood no word of the clip; expected clear speech. Give --transcript.",
            field="transcript",
        )
    typer.echo(f"heard: {heard.text}", err=True)
    return audio, heard.text, heard.language if heard.certainty >= 0.6 else None


def _recogniser() -> Recogniser:
    from sonant.cli.speaking import status
    from sonant.voices.recogniser import Recogniser

    with status("loading the recogniser"):
        return Recogniser()


def _both_transcripts() -> RequestError:
    return RequestError(
        "--transcribe writes the transcript and one was given; expected one of them. Leave one out.",
        field="transcript",
    )


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
