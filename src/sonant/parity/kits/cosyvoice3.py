"""The cosyvoice3 conformance kit: one module for the parts before the networks, one for the networks.

Every tensor of the kit has to be read by some check; the last check names those that none has read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.families.cosyvoice3.loading import load
from sonant.families.cosyvoice3.model import CosyVoice3Model
from sonant.nn.tap import tapped
from sonant.parity.kit import KitReport, Recorded


def recognises(folder: Path) -> bool:
    """True when the folder is a kit of this family."""
    manifest = folder / "manifest.json"
    if not manifest.is_file() or not (folder / "model").is_dir():
        return False
    try:
        data = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(data, dict) and data.get("family") == "cosyvoice3"


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


def run(folder: Path, report: KitReport) -> None:
    """Check everything the kit records, in order of computation."""
    from sonant.parity.kits import cosyvoice3_front, cosyvoice3_networks

    with torch.inference_mode():
        kit = Kit(folder)
        with report.section("tensors.json"):
            _listing(kit, report)
        for check in (*cosyvoice3_front.CHECKS, *cosyvoice3_networks.CHECKS):
            with report.section(check.__name__):
                check(kit, report)
        unread = sorted(f"{name}: {key}" for name, tensors in kit.tensors.items() for key in tensors.unread)
        report.equal("coverage", "tensors that no check has read", unread, [])


def _listing(kit: Kit, report: KitReport) -> None:
    """The files hold what the kit lists, in number and in shape."""
    if (kit.folder / "tensors.json").is_file():
        for name, listed in kit.json("tensors.json").items():
            expected = {key: shape for key, (shape, _) in listed.items()}
            report.equal("tensors.json", name, kit.tensors[Path(name).stem].shapes(), expected)
    for name, count in kit.manifest.get("files", {}).items():
        report.equal("manifest", f"tensors in {name}", len(kit.tensors[Path(name).stem]), count)
