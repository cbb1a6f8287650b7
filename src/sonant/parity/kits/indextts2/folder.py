"""What a kit of IndexTTS2 or IndexTTS-2.5 holds, its tolerances, and a recorder of taps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.layout import IndexFiles, locate
from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.families.indextts2.multilingual import MultilingualFrontEnd, no_grammar
from sonant.nn.tap import tapped
from sonant.parity.kit import Recorded, RecordedFiles
from sonant.parity.kits.indextts2.codec_encoder import HalfRateEncoder, load_codec_encoder

# The kit's suggested absolute tolerances, by quantity, for float32 on recorded inputs.
TOLERANCES = {
    "w2v": 1e-4,
    "spk_cond_emb": 1e-4,
    "S_ref": 1e-5,
    "style": 1e-4,
    "prompt_condition": 5e-5,
    "spk_latents": 5e-5,
    "spk_latent": 2e-5,
    "emovec": 2e-5,
    "logits": 2e-4,
    "latent": 5e-5,
    "S_infer": 5e-5,
    "mel": 2e-4,
    "dit": 2e-4,
    "wav": 5e-6,
    "end to end": 3e-4,
    "end to end wav": 5e-6,
    "int16": 2,
}
NEVER = -3e38  # how the kit stores minus infinity


class Kit:
    """One kit folder and the model of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / "checkpoint"
        self.fixtures = RecordedFiles(folder / "fixtures")

    @cached_property
    def model(self) -> IndexTTS2:
        """The checkpoint, float32 on the CPU."""
        model = load_model(self.checkpoint, device="cpu", dtype=torch.float32)
        front = model.parts.text
        if isinstance(front, MultilingualFrontEnd):  # kits are recorded without the optional grammar
            model.parts = replace(model.parts, text=replace(front, spanish=no_grammar))
        return model

    @cached_property
    def is_multilingual(self) -> bool:
        """True for IndexTTS-2.5."""
        return read_config(self.checkpoint / CONFIG_NAME).is_multilingual

    @cached_property
    def files(self) -> IndexFiles:
        """The checkpoint's files."""
        return locate(self.checkpoint, read_config(self.checkpoint / CONFIG_NAME))

    @cached_property
    def codec_encoder(self) -> HalfRateEncoder:
        """The half of IndexTTS-2.5's codec that the model does not load."""
        return load_codec_encoder(self.files.codec, self.model.parts.config.codec)

    def names(self) -> list[str]:
        """Fixtures with tensors, sorted."""
        return self.fixtures.names()

    def tensors(self, name: str) -> Recorded | dict[str, Tensor]:
        """A fixture's tensors; empty when the kit lacks it. Taking one counts as checking it."""
        if name not in self.fixtures:
            return {}
        return self.fixtures[name]

    def data(self, name: str) -> Any:
        """A fixture's JSON; None when the kit lacks it."""
        path = self.folder / "fixtures" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def audio(self, name: str) -> Path:
        """An audio file, with or without its suffix."""
        path = self.folder / "audio" / name
        return path if path.suffix else path.with_suffix(".wav")


@contextmanager
def recorded() -> Iterator[dict[str, list[Tensor]]]:
    """Every tap inside the block: name -> the tensors seen, in order."""
    seen: dict[str, list[Tensor]] = {}

    def sink(name: str, tensor: Tensor) -> None:
        seen.setdefault(name, []).append(tensor.detach().clone())

    with tapped(sink):
        yield seen


def finite(tensor: Tensor) -> Tensor:
    """A tensor with minus infinity as the kit stores it."""
    return torch.where(torch.isneginf(tensor), torch.full_like(tensor, NEVER), tensor)
