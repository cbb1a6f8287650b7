"""IndexTTS2: cloning with emotion from a clip, a blend, eight numbers or words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sonant.checkpoints.memory import Footprint
    from sonant.engine.model import SpeechModel
    from sonant.request.speech import ModelSpec

__all__ = [
    "PRECISIONS",
    "automatic_precision",
    "convert",
    "describe",
    "detect",
    "footprint",
    "load",
    "tensors_read",
]

PRECISIONS = ("lossless", "int8", "int4")
"""Precisions of the GPT's weights that `load` takes on a CPU."""
RELEASED_WIDTH = 1280
"""Width of the released GPTs, of IndexTTS2 and of IndexTTS-2.5."""


def detect(path: Path) -> bool:
    """True for a folder with IndexTTS's config.yaml; `load` then refuses what has other networks."""
    from sonant.families.indextts2.config import CONFIG_NAME, describes_index

    return describes_index(path / CONFIG_NAME)


def automatic_precision(path: Path) -> str:
    """The precision of the weights that suits a folder on a CPU.

    int8 for a GPT as wide as the released ones, on which its loss was measured; what is smaller is quick
    enough without loss.
    """
    from sonant.families.indextts2.config import CONFIG_NAME, read_config

    return "int8" if read_config(path / CONFIG_NAME).gpt.model_dim >= RELEASED_WIDTH else "lossless"


def load(
    path: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> SpeechModel:
    """The model of a checkpoint folder."""
    from sonant.families.indextts2.loading import load_model

    return load_model(path, device=device, dtype=dtype, precision=precision)


def convert(source: Path, target: Path) -> None:
    """Write the checkpoint at `source` into the new folder `target`, all weights as safetensors."""
    from sonant.families.indextts2.conversion import convert_folder

    convert_folder(source, target)


def describe(path: Path) -> ModelSpec:
    """What the model of a folder is and can do, without its weights."""
    from sonant.families.indextts2.loading import describe_folder

    return describe_folder(path)


def footprint(
    path: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> Footprint:
    """About how much memory `load` would take, from the headers of the files."""
    from sonant.families.indextts2.needs import footprint as estimate

    return estimate(path, device=device, dtype=dtype, precision=precision)


def tensors_read(path: Path) -> dict[str, dict[str, Tensor]]:
    """Path in the folder of each file of weights that inference opens -> the tensors that it reads there."""
    from sonant.families.indextts2.used import by_path

    return by_path(path)
