"""sonant replay: make the recording of a receipt again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


def replay(
    receipt: Annotated[Path, typer.Argument(help="FILE.receipt.json of sonant say --receipt.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: NAME.replay.EXT beside the receipt.")
    ] = None,
) -> None:
    """Make a recording again from its receipt: the same bytes, or what changed."""
    import torch

    from sonant.catalogue.registry import precisions
    from sonant.cli.speaking import Fitting, job_voice, speak, warn
    from sonant.errors import GenerationError, RequestError, UnsupportedError
    from sonant.readings.delivery import check_target
    from sonant.readings.job import file_hash
    from sonant.readings.receipt import Receipt, changed_inputs, changed_versions

    record = Receipt.load(receipt)
    made = record.job
    if made.device == "auto" and made.precision not in ("auto", "full"):
        made = replace(made, device="cpu")  # nothing else has narrow weights, whatever "auto" is here
    fitting = Fitting()
    job = fitting(made)
    name = Path(str(record.output["file"]))
    target = output or receipt.with_name(f"{name.stem}.replay{name.suffix}")
    check_target(target, job.format)
    torch.set_num_threads(record.threads)
    unnamed = []
    if job.precision != record.job.precision:
        unnamed = [f"the receipt names no precision, only auto, which is {job.precision} here and now"]
        warn(unnamed[0])
    try:
        engine = fitting.engine(job)
    except UnsupportedError as error:
        if error.field != "precision":
            raise
        offered = ", ".join(precisions(job.model))
        raise UnsupportedError(
            f"the recording was spoken in {job.precision}, which cannot be had here; {job.model} has "
            f"{offered} on a CPU. Replay it on a machine like the one it was made on, or speak the text anew "
            "with sonant say.",
            field="precision",
        ) from error
    voice = job_voice(job, engine.spec)
    changes = changed_inputs(record, spec=engine.spec, voice=voice)
    if changes:
        engine.close()
        raise RequestError(
            f"{len(changes)} of the inputs changed since the receipt was made: {'; '.join(changes)}. "
            "Expected the same inputs. Restore them, or speak the text anew with sonant say."
        )
    versions = changed_versions(record)
    for change in versions:
        warn(f"another version than then: {change}")
    pieces = target.with_name(f"{target.name}.pieces") if job.in_pieces else None
    speak(job, target=target, pieces=pieces, engine=engine, voice=voice)
    if file_hash(target) != record.output["sha256"]:
        why = (
            "; ".join(unnamed + versions)
            or "no input and no version changed, so the machine or its libraries did"
        )
        raise GenerationError(
            f"{target} differs from the recording of the receipt; expected the same bytes. What "
            f"{'may have changed' if unnamed else 'changed'}: {why}. "
            "Install the versions of the receipt, or compare the two by ear."
        )
    typer.echo(f"{target}  the same bytes as {name}")
