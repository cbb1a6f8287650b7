"""sonant measure: what recordings are like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

COLUMNS = (
    ("seconds", "8.2f"), ("loudness", "9.1f"), ("peak", "6.3f"), ("clipping_share", "15.5f"),
    ("dc_offset", "10.4f"), ("rumble_share", "13.4f"), ("silence_share", "14.2f"), ("pitch", "6.0f"),
    ("syllable_rate", "14.1f"),
)  # fmt: skip


def measure(
    files: Annotated[list[Path], typer.Argument(help="Audio files.")],
    against: Annotated[
        Path | None, typer.Option(help="A recording to compare each with: spectral distance in dB.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Level, clipping, DC offset, rumble, silence, pitch and pace of recordings."""
    from sonant.audio.measure import measure as measure_samples
    from sonant.audio.measure import spectral_distance
    from sonant.request.audio import Audio

    reference = Audio.read(against) if against is not None else None
    results: list[dict[str, Any]] = []
    for file in files:
        audio = Audio.read(file)
        figures = measure_samples(audio.samples, audio.sample_rate)
        result: dict[str, Any] = {"file": str(file), **figures.as_dict(), "problems": figures.problems()}
        if reference is not None:
            other = Audio.read(file, sample_rate=reference.sample_rate)
            result["distance"] = spectral_distance(other.samples, reference.samples, reference.sample_rate)
        results.append(result)
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False, indent=2))
        return
    columns = [*COLUMNS, ("distance", "8.2f")] if reference is not None else list(COLUMNS)
    typer.echo(" ".join(f"{name:>{int(form.split('.')[0])}}" for name, form in columns) + "  file")
    for result in results:
        values = [(result[name], form) for name, form in columns]
        shown = (
            f"{value:{form}}" if value is not None else f"{'-':>{int(form.split('.')[0])}}"
            for value, form in values
        )
        typer.echo(f"{' '.join(shown)}  {result['file']}")
        for problem in result["problems"]:
            typer.echo(f"  {problem}")
