"""Kokoro-82M: many voices in nine languages from one small graph, through onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sonant.checkpoints.memory import Footprint
    from sonant.engine.model import SpeechModel
    from sonant.request.speech import ModelSpec

__all__ = ["VARIANTS", "describe", "detect", "footprint", "load"]

VARIANTS = {
    "full": ("onnx/model.onnx",),
    "fp16": ("onnx/model_fp16.onnx",),
    "quantized": ("onnx/model_quantized.onnx",),
}
"""The graphs that a folder may hold; without a variant the first of `spec.GRAPHS` that is there."""


def detect(path: Path) -> bool:
    """True for the layout of the ONNX export: style vectors, a graph and the table of phonemes."""
    has_graph = any((path / "onnx").glob("*.onnx"))
    return has_graph and (path / "tokenizer.json").is_file() and any((path / "voices").glob("*.bin"))


def load(path: Path, *, device: torch.device, dtype: torch.dtype, variant: str | None = None) -> SpeechModel:
    """The model of a folder; `dtype` does not matter to a graph. Raises CheckpointError."""
    from sonant.families.kokoro.model import KokoroModel

    return KokoroModel(path, device=device, variant=variant)


def describe(path: Path, variant: str | None = None) -> ModelSpec:
    """What the model of a folder is and can do; the graph is not opened."""
    from sonant.families.kokoro.spec import kokoro_spec

    return kokoro_spec(path, variant)


def footprint(
    path: Path, *, device: torch.device, dtype: torch.dtype, variant: str | None = None
) -> Footprint:
    """About what the graph takes: onnxruntime holds its weights, and packs quantised ones anew."""
    from sonant.checkpoints.memory import MIB, Footprint
    from sonant.families.kokoro.spec import graph_file

    size = graph_file(path, variant).stat().st_size
    return Footprint(weights=size * 3 // 2 + 200 * MIB, loading=size, working=300 * MIB)
