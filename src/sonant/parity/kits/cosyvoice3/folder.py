"""The CosyVoice3 kit's folder: its recordings beside its manifest, and the loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sonant.families.cosyvoice3.loading import load
from sonant.families.cosyvoice3.model import CosyVoice3Model
from sonant.parity.kit import KitReport
from sonant.parity.kits.driver import Kit


class CosyKit(Kit):
    """A kit with its manifest and the model of its checkpoint, float32 on the CPU."""

    def __init__(self, folder: Path, report: KitReport) -> None:
        super().__init__(folder, folder, report, "cosyvoice3", pattern="*.safetensors")
        self.manifest: dict[str, Any] = self.json("manifest")
        self.model: CosyVoice3Model = load(folder / "model", device=torch.device("cpu"), dtype=torch.float32)
