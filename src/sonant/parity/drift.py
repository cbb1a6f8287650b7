"""The same network in several precisions on the same inputs and tokens: which stage loses most?

Two figures a stage. "own": the loss of the stage by itself, fed with the full-precision values.
"accumulated": what has piled up there when only the tokens are given. Both are given as the largest
difference over the largest magnitude, which is what budgets limit, and as relative L2; of a stage that is
computed several times the worst counts. A family that has a plan for its narrow weights (`Narrows`) is
measured with that; else int8 and int4 stand for every linear layer in the arithmetic of `nn.precision`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from sonant.engine.model import SpeechModel
from sonant.errors import RequestError
from sonant.nn.packed import PackedLinear
from sonant.nn.precision import INT4, INT8, Precision, plain_linear
from sonant.parity.bisect import replay
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable
from sonant.parity.task import Task
from sonant.parity.verdicts import UNJUDGED, Comparison

MARGIN = 3.0
"""A budget is the measured loss times this: other texts, voices and weights are not the measured ones."""
MOST = 6.0
"""The margin goes no further than this part of a stage's largest value."""

NARROW = ("int8", "mixed", "int4")
EVERYWHERE: Mapping[str, Precision] = {"int8": INT8, "int4": INT4}
FLOATS = ("float64", "float32", "bfloat16", "float16")


@runtime_checkable
class Narrows(Protocol):
    """A model that knows which of its weights each precision narrows."""

    def narrow(self, precision: str) -> None:
        """Do the arithmetic of a precision in torch from now on."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one documented stage loses in one precision: largest over largest magnitude, and relative L2."""

    stage: str
    own: float
    accumulated: float
    own_l2: float = 0.0
    accumulated_l2: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Losses by precision, stages in the order of computation."""

    family: str
    base: str
    losses: Mapping[str, tuple[Loss, ...]]

    @property
    def precisions(self) -> tuple[str, ...]:
        """The measured precisions."""
        return tuple(self.losses)

    def worst(self, precision: str) -> list[Loss]:
        """Stages by their own loss, the greatest first."""
        return sorted(self.losses[precision], key=lambda loss: -loss.own)

    def headline(self, precision: str) -> str:
        """One sentence: where most is lost."""
        worst = self.worst(precision)[0]
        last = self.losses[precision][-1]
        return (
            f"most is lost in {worst.stage} ({worst.own:.1e} by itself); {last.accumulated:.1e} has piled up "
            f"at the end ({last.stage})"
        )

    def data(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "family": self.family,
            "base": self.base,
            "precisions": {
                precision: {"headline": self.headline(precision), "stages": [asdict(x) for x in losses]}
                for precision, losses in self.losses.items()
            },
        }


def measure_drift(
    model: str | os.PathLike[str],
    task: Task,
    precisions: tuple[str, ...],
    *,
    base: str = "float32",
    device: str = "cpu",
) -> Drift:
    """The losses of a checkpoint in each of `precisions` against a run in `base`."""
    from sonant.catalogue.registry import load_model

    def load(precision: str) -> SpeechModel:
        return load_model(model, device=device, dtype=precision)

    return drift_of(load, task, precisions, base=base)


def drift_of(
    load: Callable[[str], SpeechModel],
    task: Task,
    precisions: tuple[str, ...],
    *,
    base: str = "float32",
    table: StageTable | None = None,
) -> Drift:
    """As `measure_drift`, with the models given by a function of the floating-point precision's name."""
    unknown = [p for p in precisions if p not in FLOATS and p not in NARROW]
    if unknown:
        raise RequestError(
            f"{', '.join(unknown)} is no precision; expected some of {', '.join((*FLOATS, *NARROW))}."
        )

    def made(precision: str) -> SpeechModel:
        return load(precision) if precision in FLOATS else quantized(load(base), precision)

    full = load(base)
    table = table or stage_table(full.spec.family)
    reference = record(full, task, dtype=base, table=table)
    losses = {}
    for precision in precisions:
        piled = record(made(precision), task, forced=reference, dtype=precision, table=table)
        fed, stopped = replay(made(precision), reference, task=task, table=table)
        assert not stopped, stopped
        accumulated = _losses(compare(reference, piled, table=table), table)
        own = _losses(compare(reference, fed, table=table, own=True), table)
        losses[precision] = tuple(
            Loss(
                stage=name,
                own=own.get(name, (0.0, 0.0))[0],
                accumulated=piled_up[0],
                own_l2=own.get(name, (0.0, 0.0))[1],
                accumulated_l2=piled_up[1],
            )
            for name, piled_up in accumulated.items()
        )
    return Drift(family=table.family, base=base, losses=losses)


def _losses(comparison: Comparison, table: StageTable) -> dict[str, tuple[float, float]]:
    """Largest relative difference, and relative L2, of each documented stage of floating-point numbers."""
    found: dict[str, tuple[float, float]] = {}
    for result in comparison.stages:
        if result.kind != "stage" or result.group == UNJUDGED or "int" in result.dtype:
            continue
        name = table.pattern_of(result.key.split("@")[0])
        largest, l2 = found.get(name, (0.0, 0.0))
        found[name] = max(largest, result.distance.relative), max(l2, result.distance.l2)
    return found


def quantized(model: SpeechModel, precision: str) -> SpeechModel:
    """The model in the arithmetic of a narrow precision, changed in place."""
    if isinstance(model, Narrows):
        model.narrow(precision)
        return model
    if precision not in EVERYWHERE:
        raise RequestError(
            f"{model.spec.family} has no precision {precision!r}; expected one of {', '.join(EVERYWHERE)}."
        )
    for module in modules_of(model):
        _quantize(module, EVERYWHERE[precision])
    return model


def _quantize(module: nn.Module, precision: Precision) -> None:
    for name, child in list(module.named_children()):
        if type(child) in (nn.Linear, PackedLinear):
            setattr(module, name, plain_linear(child, precision))
        else:
            _quantize(child, precision)


def modules_of(model: object, depth: int = 4) -> Iterator[nn.Module]:
    """The networks that an object holds, directly or in its own parts."""
    seen: set[int] = set()

    def visit(value: object, left: int) -> Iterator[nn.Module]:
        if id(value) in seen or left < 0:
            return
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield value
        elif isinstance(value, Mapping):
            for item in value.values():
                yield from visit(item, left - 1)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from visit(item, left - 1)
        elif type(value).__module__.startswith("sonant") or value is model:
            for item in getattr(value, "__dict__", {}).values():
                yield from visit(item, left - 1)

    yield from visit(model, depth)


def update_budgets(path: Path, drift: Drift, *, margin: float = MARGIN, least: float = 1e-6) -> None:
    """Put `margin` times the measured losses into a budget table; a larger budget that is there stays.

    The margin ends at MOST: a limited sample that changes its sign is 2 off, and cannot be more.
    """
    table = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for precision, losses in drift.losses.items():
        listed = table.setdefault(drift.family, {}).setdefault(precision, {})
        for loss in losses:
            # What piles up in one run may be less than a stage loses by itself; the budget is not.
            lost = (max(loss.accumulated, loss.own), loss.own)
            budget = [_rounded_up(max(x, min(margin * x, MOST)), least) for x in lost]
            earlier = listed.get(loss.stage, [0.0, 0.0])
            listed[loss.stage] = [max(a, b) for a, b in zip(earlier, budget, strict=True)]
    path.write_text(_formatted(table), encoding="utf-8")


def _formatted(table: Mapping[str, Any]) -> str:
    """JSON with one line a stage."""
    families = []
    for family, precisions in table.items():
        blocks = []
        for precision, stages in precisions.items():
            rows = ",\n".join(f"   {json.dumps(name)}: {json.dumps(pair)}" for name, pair in stages.items())
            blocks.append(f"  {json.dumps(precision)}: {{\n{rows}\n  }}")
        families.append(f" {json.dumps(family)}: {{\n" + ",\n".join(blocks) + "\n }")
    return "{\n" + ",\n".join(families) + "\n}\n"


def _rounded_up(value: float, least: float) -> float:
    """The value rounded up to two digits, at least `least`."""
    value = max(value, least)
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.1e}")
