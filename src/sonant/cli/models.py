"""sonant models, inspect, pull, convert: checkpoints on the hub and on disk."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.cli.completions import model_names
from sonant.cli.flags import from_table
from sonant.cli.speaking import warn

if TYPE_CHECKING:
    from sonant.request.speech import ModelSpec


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Known models: what each is for, and whether it is on this machine."""
    from sonant.catalogue.hub import KNOWN, is_local, local, models_folder
    from sonant.catalogue.registry import BUNDLED, DEFAULT_MODEL, bundled, describe
    from sonant.errors import SonantError

    rows: list[dict[str, Any]] = [
        {"name": DEFAULT_MODEL, "about": "small English voice, always there", "is_here": True, "path": None}
    ]
    for name in bundled():
        about = "a few million parameters in a family's official layout, inside the package"
        rows.append({"name": name, "about": about, "is_here": True, "path": str(BUNDLED / name)})
    for model in KNOWN:
        is_here = is_local(model.name)
        rows.append(
            {
                "name": model.name,
                "about": model.about,
                "is_here": is_here,
                "path": str(local(model.name)) if is_here else None,
                "repository": model.repository,
                "licence": model.licence,
            }
        )
    for row in rows:
        if row["is_here"]:
            try:
                row["can"] = sorted(describe(row["name"]).capabilities)
            except SonantError as error:
                row["problem"] = str(error)
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for row in rows:
        state = "here" if row["is_here"] else "-"
        typer.echo(f"{row['name']:<28} {state:<5} {row['about']}")
        if "can" in row:
            typer.echo(f"{'':<34} can: {', '.join(row['can'])}")
        if "problem" in row:
            typer.echo(f"{'':<34} problem: {row['problem']}")
    typer.echo(f"Fetch one with: sonant pull NAME. They are kept in {models_folder()}.", err=True)


@from_table
def inspect(
    *,
    model: Annotated[
        str, typer.Argument(help="Checkpoint folder or known name.", autocompletion=model_names)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the whole config.")] = False,
    strict: bool,
) -> None:
    """What a checkpoint is, holds and can do; its weights are not loaded."""
    from sonant.catalogue.inspection import Inspection, inspect_folder
    from sonant.catalogue.pulling import pulled_record
    from sonant.catalogue.registry import describe, find, is_folderless, numbers_read
    from sonant.errors import CheckpointError

    family, path = find(model)
    spec = describe(model)
    try:
        read = numbers_read(model, strict=strict)
    except CheckpointError as error:
        if strict:
            raise
        warn(f"{error} Until then every number counts as a parameter.")
        read = None
    found = (
        inspect_folder(family, path, read)
        if not is_folderless(family)
        else Inspection(family=family, folder="", config={}, weights=())
    )
    if as_json:
        data = {
            "spec": _spec_data(spec),
            "folder": found.folder,
            "parameters": found.parameters,
            "weights": [asdict(file) for file in found.weights],
            "pulled": dict(pulled_record(path)) if found.folder else {},
            "config": found.config,
        }
        typer.echo(json.dumps(data, ensure_ascii=False, indent=2, default=str))
        return
    lines = [
        ("family", family),
        ("folder", found.folder or "none: it comes with the installation"),
        ("fingerprint", spec.fingerprint),
        (
            "sound",
            f"{spec.sample_rate} Hz, {spec.frame_rate:g} frames a second, streams by {spec.streams_by}",
        ),
        ("languages", ", ".join(spec.languages) or "any"),
        (
            "voices",
            ", ".join(spec.voices) or ("none of its own; give a clip" if spec.needs_voice else "none"),
        ),
        ("can", ", ".join(sorted(spec.capabilities)) or "no speech"),
        (
            "sampling",
            ", ".join(f"{name}={value}" for name, value in spec.sampling.items()) or "nothing to set",
        ),
        ("presets", ", ".join(spec.presets) or "none"),
        ("licence", spec.licence),
        ("note", spec.note),
    ]
    for name, value in lines:
        if value:
            typer.echo(f"{name:<12} {value}")
    for name, about in spec.options.items():
        typer.echo(f"{'option':<12} {name}: {about}")
    for file in found.weights:
        counts = f"{file.tensors} tensors, {file.parameters:,} numbers, {' '.join(file.dtypes)}"
        if file.read not in (None, file.parameters):
            counts += f"; {file.read:,} of them are read"
        about = file.problem or (counts if file.tensors else "graph")
        if not file.is_opened:
            about = "never opened by inference"
        typer.echo(f"{'weights':<12} {file.path}: {file.bytes / 1e6:,.1f} MB, {about}")
    if found.parameters:
        typer.echo(f"{'parameters':<12} {found.parameters:,} that are read")
    for key, value in found.config.items():
        if not isinstance(value, (dict, list)):
            typer.echo(f"{'config':<12} {key} = {value}")


def pull(
    name: Annotated[
        str,
        typer.Argument(
            help="A known name (sonant models), or OWNER/NAME of any repository with the layout of one.",
            autocompletion=model_names,
        ),
    ],
    source: Annotated[str, typer.Option("--from", help="hf or modelscope.")] = "hf",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; default the newest.")] = None,
    variant: Annotated[
        str | None, typer.Option(help="Another set of weights of the release, such as rl.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be fetched, file by file.")
    ] = False,
) -> None:
    """Fetch what a model needs; a download that was cut off goes on. HF_ENDPOINT names another hub."""
    from sonant.catalogue import pulling
    from sonant.checkpoints.memory import show

    if not sys.stderr.isatty():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    if dry_run:
        plan = pulling.plan_pull(name, source=source, revision=revision, variant=variant)
        for item in plan.items:
            state = "here" if item.is_here else f"{item.file.size or 0:,}"
            typer.echo(f"{state:>15}  {item.place}  from {item.repository.name}")
        typer.echo(plan.told(), err=True)
        return

    def tell(path: str, size: int | None) -> None:
        typer.echo(f"fetching {path}{f' ({show(size)})' if size else ''}", err=True)

    folder = pulling.pull(
        name,
        source=source,
        revision=revision,
        variant=variant,
        on_plan=lambda plan: typer.echo(plan.told(), err=True),
        on_file=tell,
    )
    typer.echo(str(folder))


@from_table
def convert(
    *,
    source: Annotated[str, typer.Argument(help="Checkpoint folder or known name.")],
    target: Annotated[Path, typer.Argument(help="A new folder.")],
    strict: bool,
) -> None:
    """Write a checkpoint as safetensors: no pickles, only what is read, and it loads faster."""
    from sonant.catalogue import registry
    from sonant.cli.speaking import status

    with status(f"converting {source}"):
        registry.convert(source, target, strict=strict)
    typer.echo(str(target))


def _spec_data(spec: ModelSpec) -> dict[str, Any]:
    return {**asdict(spec), "capabilities": sorted(spec.capabilities)}
