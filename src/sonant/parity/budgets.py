"""How large a difference each stage may show in each precision: the committed table and its lookup.

`budgets.json`: family -> precision -> documented stage name -> [accumulated, own], both relative to the
largest magnitude of the reference tensor. "accumulated" is for a run of its own from the same inputs and
tokens; "own" for a stage that was fed the reference's values. "*" stands for stages that are not listed.
The numbers for reduced precision are measured: `sonant parity drift --write-budgets`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sonant.parity.stages.table import StageTable

FLOOR = 1e-6
"""Absolute difference that is never an error: stages that are zero everywhere have no scale."""

PRECISIONS = ("float64", "float32", "float16", "bfloat16", "int8", "mixed", "int4")
"""From fine to coarse; two traces of different precision are judged by the coarser."""


@dataclass(frozen=True)
class Budget:
    """Allowed largest difference of a stage, relative to the reference's largest magnitude."""

    accumulated: float
    own: float

    def allowed(self, scale: float, *, own: bool = False) -> float:
        """The absolute limit for a tensor whose largest magnitude is `scale`."""
        return FLOOR + (self.own if own else self.accumulated) * scale


@cache
def budget_table() -> Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]]:
    """The committed table."""
    text = files("sonant.parity").joinpath("budgets.json").read_text(encoding="utf-8")
    table: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]] = json.loads(text)
    return table


def find_budget(table: StageTable, precision: str, name: str) -> Budget:
    """The budget of a recorded stage name in one precision."""
    everything = budget_table()
    pattern = table.pattern_of(name)
    for family in (table.family, "default"):
        listed = everything.get(family, {}).get(precision, {})
        for key in (pattern, "*"):
            if key in listed:
                accumulated, own = listed[key]
                return Budget(accumulated, own)
    return find_budget(table, "float32", name)


def coarser(first: str, second: str) -> str:
    """The coarser of two precisions."""
    known = [p if p in PRECISIONS else "float32" for p in (first, second)]
    return max(known, key=PRECISIONS.index)
