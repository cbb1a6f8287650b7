"""The cosyvoice3 conformance kit: one module for the parts before the networks, one for the networks.

Every tensor of the kit has to be read by some check; the last check names those that none has read.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from sonant.parity.kit import KitReport
from sonant.parity.kits.cosyvoice3 import front, networks
from sonant.parity.kits.cosyvoice3.folder import Kit


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
        kit = Kit(folder)
        with report.section("tensors.json"):
            _listing(kit, report)
        for check in (*front.CHECKS, *networks.CHECKS):
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
