"""The folder of a kit of IndexTTS2 or IndexTTS-2.5: fixtures, clips, and the model of its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.layout import IndexFiles, locate
from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.families.indextts2.multilingual import MultilingualFrontEnd, no_grammar
from sonant.parity.kit import KitReport
from sonant.parity.kits.driver import Kit
from sonant.parity.kits.indextts2.codec_encoder import HalfRateEncoder, load_codec_encoder


class IndexKit(Kit):
    """A kit with its checkpoint."""

    def __init__(self, folder: Path, report: KitReport) -> None:
        super().__init__(folder, folder / "fixtures", report, "indextts2")
        self.checkpoint = folder / "checkpoint"

    @cached_property
    def model(self) -> IndexTTS2:
        """The checkpoint, float32 on the CPU."""
        model = load_model(self.checkpoint, device="cpu", dtype=torch.float32)
        front = model.parts.text
        if isinstance(front, MultilingualFrontEnd):  # kits are recorded without the optional grammar
            parts = replace(model.parts, text=replace(front, spanish=no_grammar))
            return IndexTTS2(parts, model.spec, device="cpu")
        return model

    @cached_property
    def is_multilingual(self) -> bool:
        """True for IndexTTS-2.5."""
        return read_config(self.checkpoint / CONFIG_NAME).is_multilingual

    @cached_property
    def layout(self) -> IndexFiles:
        """The checkpoint's files."""
        return locate(self.checkpoint, read_config(self.checkpoint / CONFIG_NAME))

    @cached_property
    def codec_encoder(self) -> HalfRateEncoder:
        """The half of IndexTTS-2.5's codec that the model does not load."""
        return load_codec_encoder(self.layout.codec, self.model.parts.config.codec)

    def tensors(self, name: str) -> Mapping[str, Tensor]:
        """A fixture's tensors; empty when the kit lacks it. Taking one counts as checking it."""
        if name not in self.files:
            return {}
        return self.files[name]

    def audio(self, name: str) -> Path:
        """An audio file, with or without its suffix."""
        path = self.folder / "audio" / name
        return path if path.suffix else path.with_suffix(".wav")
