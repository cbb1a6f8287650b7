"""The built-in voice: one English voice from the package hibari-tts, there right after installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sonant.checkpoints.memory import Footprint
    from sonant.engine.model import SpeechModel
    from sonant.request.speech import ModelSpec

__all__ = ["USES_TORCH", "describe", "detect", "footprint", "load"]

USES_TORCH = False


def detect(path: Path) -> bool:
    """Never: the built-in voice is no folder; the registry knows it by name."""
    return False


def load(path: Path, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> SpeechModel:
    """The built-in model; `path`, `device` and `dtype` do not matter to it."""
    from sonant.families.builtin.model import BuiltinModel

    return BuiltinModel()


def describe(path: Path) -> ModelSpec:
    """What the built-in voice is and can do; its network is loaded when it first speaks."""
    from sonant.families.builtin.spec import builtin_spec

    return builtin_spec()


def footprint(path: Path, *, device: torch.device, dtype: torch.dtype) -> Footprint:
    """What the built-in voice takes: its network and the libraries that it brings along, measured."""
    from sonant.checkpoints.memory import MIB, Footprint

    return Footprint(weights=300 * MIB, loading=0, working=100 * MIB)
