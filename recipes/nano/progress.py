"""A progress line on the terminal and a curve in a file, for every stage that takes a while."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch


class Progress:
    """Shows how far a stage is and appends numbers to `folder/curve.jsonl`."""

    def __init__(self, name: str, folder: Path, spent: float = 0.0) -> None:
        self.name, self.start, self.spent = name, time.monotonic() - spent, spent
        self._file = (folder / "curve.jsonl").open("a", encoding="utf-8")
        self._is_terminal = sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        """Time spent on this stage, earlier runs included."""
        return time.monotonic() - self.start

    def bar(self, share: float, note: str = "") -> None:
        """Draw the bar on a terminal; nothing elsewhere."""
        if self._is_terminal:
            filled = int(30 * min(1.0, share))
            line = (
                f"\r{self.name:8s} [{'#' * filled}{'.' * (30 - filled)}] {100 * share:5.1f} %  {note:60.60s}"
            )
            print(line, end="", flush=True)

    def log(self, **numbers: Any) -> None:
        """One line of the curve, also printed."""
        entry = {"seconds": round(self.seconds, 1), **numbers}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in entry.items())
        print(("\n" if self._is_terminal else "") + f"{self.name}: {shown}", flush=True)

    def close(self) -> None:
        """Close the curve."""
        self._file.close()


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a training state so that a stop in the middle cannot spoil it."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def resume(path: Path) -> dict[str, Any] | None:
    """The state written by `save`, or None."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None
