"""Qwen3-TTS: Base, CustomVoice and VoiceDesign checkpoints, and the 12 Hz speech tokenizer alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sonant.checkpoints.memory import Footprint
    from sonant.engine.model import SpeechModel
    from sonant.request.speech import ModelSpec

__all__ = ["PRECISIONS", "automatic_precision", "describe", "detect", "footprint", "load", "tensors_read"]

PRECISIONS = ("lossless", "int8", "mixed", "int4")
"""Precisions of the weights that `load` takes on a CPU."""
RELEASED_WIDTH = 1024
"""Width of the smallest released talker, 0.6B."""


def detect(path: Path) -> bool:
    """True for the folder of a Qwen3-TTS model or of its speech tokenizer."""
    try:
        data = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("model_type") in {"qwen3_tts", "qwen3_tts_tokenizer_12hz"}


def automatic_precision(path: Path) -> str:
    """The precision of the weights that suits a folder on a CPU.

    int8 for talkers as wide as the released ones, on which its loss was measured; what is smaller, or was
    trained here, is quick enough without loss.
    """
    data = json.loads((path / "config.json").read_text(encoding="utf-8"))
    width = (data.get("talker_config") or {}).get("hidden_size", 0)
    return "int8" if width >= RELEASED_WIDTH and not data.get("sonant_front_end") else "lossless"


def load(
    path: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> SpeechModel:
    """The model of a folder. Raises CheckpointError or ConfigError when it is incomplete or wrong."""
    from sonant.families.qwen3_tts.loading import load_folder

    return load_folder(path, device=device, dtype=dtype, precision=precision)


def describe(path: Path) -> ModelSpec:
    """What the model of a folder is and can do, without its weights."""
    from sonant.families.qwen3_tts.loading import describe_folder

    return describe_folder(path)


def footprint(
    path: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> Footprint:
    """About how much memory `load` would take, from the headers of the files."""
    from sonant.families.qwen3_tts.needs import footprint as estimate

    return estimate(path, device=device, dtype=dtype, precision=precision)


def tensors_read(path: Path) -> dict[str, dict[str, Tensor]]:
    """Path in the folder of each file of weights that inference opens -> the tensors that it reads there."""
    from sonant.families.qwen3_tts import weights

    return weights.tensors_read(path)
