"""sonant batch: a manifest in, a folder of clips out."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.completions import format_names
from sonant.cli.flags import job_settings, with_settings

if TYPE_CHECKING:
    from sonant.readings.batch import Batch, SayAll, Summary
    from sonant.readings.manifest import Item

Output = partial(typer.Option, rich_help_panel="Output")
Machine = partial(typer.Option, rich_help_panel="Model and machine")
SHOWN = 20


@with_settings
def batch(
    *,
    manifest: Annotated[
        Path, typer.Argument(help="JSONL, CSV or TSV: text, name, model, voice, style, seed, any setting.")
    ],
    output: Annotated[Path, Output("--output", "-o", help="Folder for the clips.", metavar="DIR")],
    format: Annotated[
        str,
        Output(help="wav, flac, mp3, opus, aac where no item says it.", autocompletion=format_names),
    ] = "wav",
    dry_run: Annotated[
        bool, Output("--dry-run", help="Print what would be spoken and what is wrong, and stop.")
    ] = False,
    as_json: Annotated[bool, Output("--json", help="Print the summary as JSON.")] = False,
    model: str = DEFAULT_MODEL,
    slots: int,
    device: str,
    dtype: str,
    precision: str,
    memory_limit: str | None,
    strict: bool,
    ray: Annotated[bool, Machine("--ray", help="Speak on the machines of a Ray cluster.")] = False,
    ray_address: Annotated[str | None, Machine(help="The cluster; this machine if not said.")] = None,
    workers: Annotated[int, Machine(min=1, help="With --ray: actors, each with a model.")] = 2,
    cpus: Annotated[float, Machine(min=0.1, help="With --ray: processors of each.")] = 1.0,
    gpus: Annotated[float, Machine(min=0.0, help="With --ray: GPUs of each.")] = 0.0,
    **given: Any,
) -> None:
    """Speak every line of a manifest; run it again to go on. The status is 6 where an item failed."""
    from sonant.audio.encode import find_format
    from sonant.cli.speaking import Fitting
    from sonant.readings.batch import Batch, Machine, say_here
    from sonant.readings.job import Job
    from sonant.readings.manifest import read_manifest

    if given["seed"] is None:
        given["seed"] = 0
    base = Job(
        text="", model=model, device=device, dtype=dtype, precision=precision,
        format=find_format(format).name,        **job_settings(given),
    )  # fmt: skip
    items = read_manifest(manifest, base)
    where = device
    if ray and device == "auto":
        where = "cuda" if gpus else "cpu"  # what Ray shows an actor, whatever this machine has
    limit = memory_limit if not ray or where == "cpu" else None  # a GPU elsewhere is looked at there
    fitting = Fitting(limit, slots=slots, device=where)
    made = Batch(output, fitted=fitting)
    if dry_run:
        raise typer.Exit(_plan(made, items))
    machine = Machine(
        device=where, slots=slots, memory_limit=memory_limit, strict=strict, plans=fitting.plans
    )
    say_all = say_here(machine)
    if ray:
        from sonant.readings.ray_pool import Cluster, say_on_ray

        say_all = say_on_ray(machine, Cluster(address=ray_address, workers=workers, cpus=cpus, gpus=gpus))
    summary = _run(made, items, say_all)
    _tell(summary, output, as_json=as_json)
    if not summary.is_whole:
        raise typer.Exit(6)


def _run(made: Batch, items: list[Item], say_all: SayAll) -> Summary:
    from sonant.cli.speaking import bar, told_when_stopped

    stopped = told_when_stopped("what is there is kept. Run the same command again to go on.")
    with stopped, made.locked(), bar("speaking", len(items)) as advance:
        return made.run(items, say_all, on_item=lambda item, result: advance(1))


def _plan(made: Batch, items: list[Item]) -> int:
    """What a run would do; 6 where an item could not be spoken."""
    todo, _, broken, there = made.sort(items)
    for model, group in todo.items():
        letters = sum(len(item.job.text) for item in group if item.job is not None)
        typer.echo(f"{len(group):7,d} items {letters:10,d} characters to speak by {model}")
    if there:
        typer.echo(f"{len(there):7,d} items are there already")
    for item, failed in broken:
        typer.echo(f"line {item.line}: {failed.message}", err=True)
    if broken:
        typer.echo(f"{len(broken):7,d} items are wrong")
    return 6 if broken else 0


def _tell(summary: Summary, folder: Path, *, as_json: bool) -> None:
    from dataclasses import asdict

    from sonant.cli.speaking import warn

    for failure in summary.failures[:SHOWN]:
        warn(f"line {failure['line']} ({failure['name']}): {failure['message']}")
    if len(summary.failures) > SHOWN:
        warn(f"and {len(summary.failures) - SHOWN} more; see {folder / 'summary.json'}")
    if as_json:
        typer.echo(json.dumps(asdict(summary), ensure_ascii=False))
        return
    typer.echo(
        f"{folder}: {summary.done} spoken, {summary.kept} kept from before, {summary.failed} failed, "
        f"of {summary.items}; {summary.seconds / 60:.1f} min of speech in {summary.elapsed:.0f} s"
    )
