"""Stage names of each family in the order of computation: the tables behind `compare` and the docs."""

from __future__ import annotations

from importlib import import_module

from sonant.parity.stages.table import Stage, StageTable

FAMILIES = ("qwen3_tts", "cosyvoice3", "indextts2")
"""Modules of this package; each gives `TABLE`."""

__all__ = ["FAMILIES", "Stage", "StageTable", "guess_family", "stage_table"]


def stage_table(family: str) -> StageTable:
    """The table of a family; an empty one for a family without documented stages."""
    if family not in FAMILIES:
        return StageTable(family, ())
    table: StageTable = import_module(f"sonant.parity.stages.{family}").TABLE
    return table


def guess_family(names: list[str]) -> str:
    """The family whose table knows most of these names; "" when none knows any."""
    known = {family: sum(stage_table(family).find(n) is not None for n in names) for family in FAMILIES}
    best = max(FAMILIES, key=lambda family: known[family])
    return best if known[best] else ""
