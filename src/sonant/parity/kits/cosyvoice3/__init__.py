"""The cosyvoice3 conformance kit: one module for the parts before the networks, one for the networks.

Every tensor of the kit has to be read by some check; the last check names those that none has read.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sonant.parity.kit import KitReport
from sonant.parity.kits.cosyvoice3 import front, networks
from sonant.parity.kits.cosyvoice3.folder import CosyKit


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


def run(folder: Path, report: KitReport) -> None:
    """Check everything the kit records, in order of computation."""
    with torch.inference_mode():
        kit = CosyKit(folder, report)
        for check in (listing, *front.CHECKS, *networks.CHECKS):
            with report.section(check.__name__):
                check(kit)
        kit.files.check_coverage(report)


def listing(kit: CosyKit) -> None:
    """The files hold what the kit lists, in number and in shape."""
    for name, listed in (kit.json("tensors") or {}).items():
        expected = {key: shape for key, (shape, _) in listed.items()}
        kit.report.equal("tensors.json", name, kit.files[Path(name).stem].shapes(), expected)
    for name, count in kit.manifest.get("files", {}).items():
        kit.report.equal("manifest", f"tensors in {name}", len(kit.files[Path(name).stem]), count)
