"""CosyVoice3: a Qwen2 language model, a flow-matching transformer and a causal vocoder."""

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
    "VARIANTS",
    "automatic_precision",
    "convert",
    "describe",
    "detect",
    "footprint",
    "load",
    "tensors_read",
]

PRECISIONS = ("lossless", "int8", "int4")
"""Precisions of the language model's weights that `load` takes on a CPU."""
RELEASED_WIDTH = 896
"""Width of the released language model, 0.5B."""
VARIANTS = {"rl": ("llm.rl.safetensors", "llm.rl.pt")}
"""Other language models that a folder may hold: better error rates, a little less alike."""


def detect(path: Path) -> bool:
    """True for a CosyVoice folder, by its yaml's name; older releases too, so that loading can name them."""
    return any((path / name).is_file() for name in ("cosyvoice3.yaml", "cosyvoice2.yaml", "cosyvoice.yaml"))


def automatic_precision(path: Path) -> str:
    """The precision of the weights that suits a folder on a CPU.

    int8 for language models as wide as the released one, on which its loss was measured; what is smaller is
    quick enough without loss.
    """
    from sonant.families.cosyvoice3.config import read_config
    from sonant.families.cosyvoice3.loading import refuse_older

    refuse_older(path)
    return "int8" if read_config(path).language.decoder.width >= RELEASED_WIDTH else "lossless"


def load(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    variant: str | None = None,
) -> SpeechModel:
    """The model of a checkpoint folder. Raises ConfigError and CheckpointError."""
    from sonant.families.cosyvoice3 import loading

    return loading.load(path, device=device, dtype=dtype, precision=precision, variant=variant)


def convert(source: Path, target: Path, variant: str | None = None) -> None:
    """Write the checkpoint as safetensors, without pickles, to a new folder."""
    from sonant.families.cosyvoice3 import loading

    loading.convert(source, target, variant)


def describe(path: Path, variant: str | None = None) -> ModelSpec:
    """What the model of a folder is and can do, without its weights."""
    from sonant.families.cosyvoice3 import loading

    return loading.describe(path, variant)


def footprint(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    variant: str | None = None,
) -> Footprint:
    """About how much memory `load` would take, from the headers of the files."""
    from sonant.families.cosyvoice3.needs import footprint as estimate

    return estimate(path, device=device, dtype=dtype, precision=precision, variant=variant)


def tensors_read(path: Path, variant: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Path in the folder of each file of weights that inference opens -> the tensors that it reads there."""
    from sonant.families.cosyvoice3 import weights

    return weights.tensors_read(path, variant)
