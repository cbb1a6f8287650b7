"""What the checks of the CosyVoice3 kit share: its files, the loaded model, what the networks tapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.families.cosyvoice3.loading import load
from sonant.families.cosyvoice3.model import CosyVoice3Model
from sonant.nn.tap import tapped
from sonant.parity.kit import Recorded


class Kit:
    """What the checks share: the folder, its files and the loaded model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = self.json("manifest.json")
        files = sorted(path.stem for path in folder.glob("*.safetensors"))
        self.tensors = {name: Recorded(folder / f"{name}.safetensors") for name in files}
        self.model: CosyVoice3Model = load(folder / "model", device=torch.device("cpu"), dtype=torch.float32)

    def json(self, name: str) -> Any:
        """Data of one JSON file of the kit."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


class Taps:
    """What the networks tapped inside a `with` block, by name; the first value of a name stays."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def __call__(self, name: str, tensor: Tensor) -> None:
        self.found.setdefault(name, tensor.detach().clone())

    def __getitem__(self, name: str) -> Tensor:
        return self.found[name]


def watched() -> tuple[Taps, Any]:
    """Taps and the context manager that fills them."""
    taps = Taps()
    return taps, tapped(taps)
