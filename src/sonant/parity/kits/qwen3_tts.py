"""The qwen3_tts conformance kit."""

from __future__ import annotations

from pathlib import Path

from sonant.parity.kit import KitReport


def recognises(folder: Path) -> bool:
    """True when the folder is a kit of this family."""
    return False


def run(folder: Path, report: KitReport) -> None:
    """Check everything the kit records."""
    raise NotImplementedError
