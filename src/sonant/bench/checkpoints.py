"""The checkpoint to measure: a folder as it is, or random weights of a known model's true shapes.

A family's `FAMILY_checkpoint.py` here has NAMES, by known name what its `write(folder, ...)` is told, and
RIVAL, the original that speaks the same (`sonant.bench.rivals`).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from sonant.catalogue import hub, registry
from sonant.errors import CheckpointError


def writers() -> list[Any]:
    """The modules that write random checkpoints, a family each."""
    named = registry.having("sonant.bench", "{}_checkpoint.py")
    return [import_module(f"sonant.bench.{family}_checkpoint") for family in named]


def folder_for(model: str, scratch: Path) -> Path:
    """The folder of `model`; for a known name that is not on disk, a random checkpoint under `scratch`.

    Short names stand for the usual kind: the size alone of a model that is released in several. Raises
    CheckpointError for a name that is neither.
    """
    if Path(model).is_dir():
        return Path(model)
    if model in registry.installed():
        family, path = registry.find(model)
        return Path(model) if registry.is_folderless(family) else path
    try:
        return hub.local(model)
    except CheckpointError:
        pass
    folder, known = scratch / model, writers()
    for writer in known:
        if model.lower() in writer.NAMES:
            writer.write(folder, **writer.NAMES[model.lower()])
            return folder
    names = ", ".join((*registry.installed(), *(name for writer in known for name in writer.NAMES)))
    raise CheckpointError(
        f"{model!r} is neither a folder nor a model whose shapes are known here. "
        f"Give a checkpoint's folder, or one of: {names}."
    )


def rival_of(model: str) -> str | None:
    """The original that speaks a known model; None where there is none."""
    return next((str(writer.RIVAL) for writer in writers() if model.lower() in writer.NAMES), None)
