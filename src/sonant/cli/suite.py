"""sonant suite: one text in every mode of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.flags import from_table

if TYPE_CHECKING:
    from sonant.readings.takes import Take


@from_table
def suite(
    *,
    model: str = DEFAULT_MODEL,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("suite"),
    voice: Annotated[Path | None, typer.Option(help="A clip of 5 to 15 s to clone.")] = None,
    transcript: str | None,
    emotion_audio: Annotated[
        Path | None, typer.Option(help="A clip whose emotion is copied; default the voice's.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="What is said in every mode.")] = None,
    language: str | None,
    seed: Annotated[int, typer.Option(help="Of every mode.")] = 0,
    device: str,
    dtype: str,
    precision: str,
) -> None:
    """Speak one text in every mode a model has: clips, metrics_report.json and a page to listen to."""
    from sonant.cli.speaking import load_engine
    from sonant.readings.suite import PAGE, run_suite
    from sonant.readings.takes import DEFAULT_TEXT, Material
    from sonant.request.audio import LONGEST_CLIP, Audio

    def read(path: Path | None) -> Audio | None:
        return Audio.read(path, max_seconds=LONGEST_CLIP) if path is not None else None

    material = Material(
        text=text or DEFAULT_TEXT,
        clip=read(voice),
        transcript=transcript,
        emotion_clip=read(emotion_audio),
        language=language,
        seed=seed,
    )

    def tell(take: Take, total: int) -> None:
        result = f"failed: {take.error}" if take.error else f"{take.seconds:.1f} s in {take.total:.1f} s"
        typer.echo(f"{take.mode.name:<20} {result}", err=True)

    with load_engine(model, device=device, dtype=dtype, precision=precision) as engine:
        takes = run_suite(engine, material, output, on_take=tell)
    typer.echo(str(output / PAGE))
    if any(take.error for take in takes):
        raise typer.Exit(1)
