"""sonant measure: what recordings are like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sonant.cli.flags import from_table

COLUMNS = (
    ("seconds", "8.2f"), ("loudness", "9.1f"), ("peak", "6.3f"), ("clipping_share", "15.5f"),
    ("dc_offset", "10.4f"), ("rumble_share", "13.4f"), ("silence_share", "14.2f"), ("pitch", "6.0f"),
    ("syllable_rate", "14.1f"),
)  # fmt: skip
JUDGED = (("wer", "7.3f"), ("cer", "7.3f"), ("dnsmos", "7.2f"), ("similarity", "11.3f"))


@from_table
def measure(
    *,
    files: Annotated[list[Path], typer.Argument(help="Audio files.")],
    against: Annotated[
        Path | None, typer.Option(help="A recording to compare each with: spectral distance in dB.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(help="Write a page with waveform, spectrogram and pitch of each.", metavar="PAGE.html"),
    ] = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Also word errors, DNSMOS and likeness (the judge extra).")
    ] = False,
    text: Annotated[
        str | None,
        typer.Option(
            help="What each should say, or @FILE; without it FILE.txt beside a recording, if there is one."
        ),
    ] = None,
    voice: Annotated[Path | None, typer.Option(help="A clip of the voice that each should have.")] = None,
    language: str | None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Level, clipping, DC offset, rumble, silence, pitch and pace of recordings; also judged or drawn."""
    from sonant.audio.measure import measure as measure_samples
    from sonant.audio.measure import spectral_distance
    from sonant.cli.say import read_text
    from sonant.cli.speaking import warn
    from sonant.errors import RequestError, SonantError, describe
    from sonant.request.audio import Audio

    if (text is not None or voice is not None) and not judge:
        raise RequestError("--text and --voice are for the judges; expected --judge with them. Add it.")
    said = read_text(text) if text is not None else None
    judges = None
    if judge:
        from sonant.quality.judges import Judges

        judges = Judges.load(language, said or "")
        for remark in judges.remarks:
            warn(remark)
    reference = Audio.read(against) if against is not None else None
    clip = Audio.read(voice) if voice is not None else None
    results: list[dict[str, Any]] = []
    recordings: list[Audio] = []
    status = 0
    for file in files:
        try:
            audio = Audio.read(file)
            figures = measure_samples(audio.samples, audio.sample_rate)
            result: dict[str, Any] = {"file": str(file), **figures.as_dict(), "problems": figures.problems()}
            if reference is not None:
                other = Audio.read(file, sample_rate=reference.sample_rate)
                distance = spectral_distance(other.samples, reference.samples, reference.sample_rate)
                result["distance"] = distance
            if judges is not None:
                beside = file.with_suffix(".txt")
                wanted = said if said is not None else read_text(f"@{beside}") if beside.is_file() else None
                found = judges.judge(audio, text=wanted, language=language, reference=clip)
                result |= found.as_dict()
        except SonantError as error:
            if len(files) == 1:
                raise
            warn(f"{file}: {error}")  # the others are measured all the same
            status = status or describe(error)[1]
            continue
        results.append(result)
        if plots is not None:
            recordings.append(audio)
    if plots is not None and results:
        from sonant.files import write_atomically
        from sonant.quality.recordings_page import page

        drawn = page(list(zip(recordings, results, strict=True)))
        write_atomically(plots, drawn.encode("utf-8", "replace"), is_private=False)
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False, indent=2))
        raise typer.Exit(status)
    columns = [*COLUMNS, *(column for column in JUDGED if any(column[0] in result for result in results))]
    if reference is not None:
        columns.append(("distance", "8.2f"))
    typer.echo(" ".join(f"{name:>{int(form.split('.')[0])}}" for name, form in columns) + "  file")
    for result in results:
        values = [(result.get(name), form) for name, form in columns]
        shown = (
            f"{value:{form}}" if value is not None else f"{'-':>{int(form.split('.')[0])}}"
            for value, form in values
        )
        typer.echo(f"{' '.join(shown)}  {result['file']}")
        if result.get("heard") is not None:
            typer.echo(f"  heard: {result['heard']}")
        for run in result.get("runs", ()):
            typer.echo(f"  {run}")
        for problem in result["problems"]:
            typer.echo(f"  {problem}")
    raise typer.Exit(status)
