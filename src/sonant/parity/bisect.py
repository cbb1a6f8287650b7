"""Find every stage that is wrong by itself: each one is fed the reference's values and judged alone.

One run is enough. At every tap the network's own value is compared with the reference's, and the
reference's goes on in its place. So a stage computes from correct inputs, tokens and draws whatever went
wrong before it, and an error in one stage hides no other. Where the reference keeps only samples of a stage,
the network's own value goes on, and the next stage is judged by the wider budget of a run of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sonant.engine.model import SpeechModel
from sonant.errors import SonantError
from sonant.nn.tap import tapped
from sonant.parity.compare import Comparison, StageResult, compare, describe
from sonant.parity.record import DrawWatch, replacement
from sonant.parity.reference.tracefile import TraceWriter
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable
from sonant.parity.task import Task, perform, task_of
from sonant.parity.trace import Entry, Trace, from_writer


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A documented stage that is wrong by itself: how often, and where first."""

    stage: str
    first: str
    wrong: int
    of: int
    detail: str


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """All stages in the reference's inputs. `stopped` says why the run ended early, if it did."""

    faults: tuple[Fault, ...]
    comparison: Comparison
    stopped: str = ""
    uncovered: tuple[str, ...] = ()
    """Stages that the reference does not hold: an error there shows in the next stage that it holds."""
    sampled: tuple[str, ...] = ()
    """Stages of which the reference holds samples only: an error there spreads to what follows."""

    @property
    def headline(self) -> str:
        """One sentence that says where to look."""
        judged = len(self.comparison.stages)
        end = f" The run stopped early: {self.stopped}" if self.stopped else ""
        if not self.faults:
            return f"No stage is wrong by itself ({judged} judged).{end}"
        names = ", ".join(fault.stage for fault in self.faults)
        return f"Wrong by themselves: {names}.{end}"

    def data(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "headline": self.headline,
            "faults": [vars(fault) for fault in self.faults],
            "stopped": self.stopped,
            "uncovered": list(self.uncovered),
            "sampled": list(self.sampled),
            "comparison": self.comparison.data(),
        }


def replay(
    model: SpeechModel, reference: Trace, *, task: Task | None = None, table: StageTable | None = None
) -> tuple[Trace, str]:
    """What the model computes at each stage from the reference's values, and why it stopped, if it did."""
    table = table or stage_table(reference.family or model.spec.family)
    writer = TraceWriter()
    kinds = table.kind

    def sink(name: str, tensor: Tensor) -> Tensor | None:
        return replacement(reference, writer.add(name, tensor, kind=kinds(name)), tensor)

    stopped = ""
    with tapped(sink), DrawWatch(sink):
        try:
            perform(model, task or task_of(reference))
        except (RuntimeError, ValueError, IndexError, AssertionError, SonantError) as error:
            # A stage of the wrong shape may make the next one impossible; what came before still counts.
            stopped = f"after {writer.entries[-1]['key'] if writer.entries else 'nothing'}: {error}"
    return from_writer(writer, {"family": reference.family, "made_by": "replay", "forced": True}), stopped


def bisect(
    model: SpeechModel,
    reference: Trace,
    *,
    task: Task | None = None,
    precision: str | None = None,
    table: StageTable | None = None,
) -> Bisection:
    """Every stage of `model` that is wrong by itself, judged against `reference`."""
    table = table or stage_table(reference.family or model.spec.family)
    found, stopped = replay(model, reference, task=task, table=table)
    comparison = compare(reference, found, table=table, own=True, precision=precision or reference.dtype)
    return Bisection(
        faults=faults_of(comparison, table),
        comparison=comparison,
        stopped=stopped,
        uncovered=_names(table, (e for e in found.entries if e.key not in reference.by_key)),
        sampled=_names(table, (e for e in reference.entries if e.sampled is not None)),
    )


def _names(table: StageTable, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Documented names of the computed stages among these entries, each once."""
    computed = (entry.name for entry in entries if entry.kind in {"stage", "token"})
    return tuple(dict.fromkeys(table.pattern_of(name) for name in computed))


def faults_of(comparison: Comparison, table: StageTable) -> tuple[Fault, ...]:
    """The failed stages of a comparison gathered by documented name, in the order of computation."""
    groups: dict[str, list[StageResult]] = {}
    for result in comparison.stages:
        if result.kind in {"stage", "token"}:
            groups.setdefault(table.pattern_of(result.key.split("@")[0]), []).append(result)
    faults = []
    for name, results in groups.items():
        wrong = [r for r in results if r.distance.status != "ok" and not r.inputs_differed]
        if wrong:
            worst = max(wrong, key=lambda r: r.distance.over)
            faults.append(
                Fault(
                    stage=name,
                    first=wrong[0].key,
                    wrong=len(wrong),
                    of=len(results),
                    detail=describe(worst.distance),
                )
            )
    return tuple(faults)
