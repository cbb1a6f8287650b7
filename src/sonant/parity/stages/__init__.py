"""Stage names of each family in the order of computation: the tables behind `compare` and the docs."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from sonant.catalogue.registry import having
from sonant.parity.stages.table import Stage, StageTable, read_table

FAMILIES = having("sonant.parity.stages", "{}.toml")
"""Families with documented stages: a data file in this package."""

__all__ = ["FAMILIES", "Stage", "StageTable", "guess_family", "stage_table"]


@cache
def stage_table(family: str) -> StageTable:
    """The table of a family; an empty one for a family without documented stages."""
    if family not in FAMILIES:
        return StageTable(family, ())
    text = files(__name__).joinpath(f"{family}.toml").read_text(encoding="utf-8")
    return read_table(family, tomllib.loads(text))


def guess_family(names: list[str]) -> str:
    """The family whose table knows most of these names; "" when none knows any."""
    known = {family: sum(stage_table(family).find(n) is not None for n in names) for family in FAMILIES}
    best = max(FAMILIES, key=lambda family: known[family])
    return best if known[best] else ""
