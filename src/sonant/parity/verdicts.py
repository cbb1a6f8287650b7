"""What is said of two traces: of each stage, in three verdicts, and in one sentence that says where to look.

Three verdicts are kept apart. Single forward: everything before the first decoded token, and the decoder on
equal tokens. Teacher-forced: later decoding steps as long as both runs went on from the same tokens. Free
decode: the first token that differs, its rank and its margin. What follows a differing token is not judged.

A claim about inputs is made of compared tensors only, and names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sonant.parity.measure import Distance
from sonant.parity.trace import Trace

SINGLE, TEACHER, UNJUDGED = "single_forward", "teacher_forced", "after_divergence"


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """One stage of both traces."""

    key: str
    kind: str
    group: str
    step: int
    """Decoding steps done before it."""
    shape: tuple[int, ...]
    dtype: str
    distance: Distance
    inputs: tuple[str, ...] = ()
    """Keys of the nearest compared stages it is computed from."""
    inputs_differed: bool | None = None
    """None when none of its inputs was compared."""
    between: tuple[str, ...] = ()
    """Stages on the way from those inputs that were not compared: a fault may be there as well."""
    are_inputs_equal: bool = False
    """All of those inputs are equal bit for bit."""
    is_forced: bool = False
    """A token that was only noted: decoding went on from the reference's."""
    suspicion: str = ""
    """Why a stage in budget is suspicious; "" when it is not."""
    is_judged_draw: bool = False
    """A random draw that must be equal, since both runs are of one program and one seed."""
    remark: str = ""
    agreeing: tuple[str, ...] = ()
    """Stages computed from it that agree although it is far off: it is not what went on."""

    @property
    def has_failed(self) -> bool:
        """True when it counts as a fault: computed (not given), judged, and out of budget."""
        is_computed = self.kind == "stage" or (self.kind == "token" and not self.is_forced)
        is_wrong = self.distance.status != "ok"
        return (is_computed or self.is_judged_draw) and self.group != UNJUDGED and is_wrong

    @property
    def is_wrong(self) -> bool:
        """True when it failed or is suspicious."""
        return self.has_failed or bool(self.suspicion)

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        record = asdict(self)
        figures = record.pop("distance")
        return {**record, **figures, "over": _finite(self.distance.over), "has_failed": self.has_failed}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One of the three questions.

    `status` is "equal", "in budget", "suspicious", "out of budget", "differs" (tokens) or "not measured".
    """

    status: str
    stages: int = 0
    failed: int = 0
    first_failed: str | None = None
    worst: str | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole answer. `first_failed` is the headline: the first stage that failed or is suspicious."""

    reference: str
    other: str
    precision: str
    stages: tuple[StageResult, ...]
    verdicts: Mapping[str, Verdict]
    first_failed: str | None
    inputs_differed: bool | None
    warnings: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default=())
    """Keys of the reference that the other trace lacks."""
    extra: tuple[str, ...] = ()
    """Keys of the other trace that the reference lacks."""
    diagnosis: tuple[str, ...] = ()
    """What is wrong with the first wrong stage, in words."""
    unexercised: tuple[str, ...] = ()
    """Paths that the request never took, so that nothing was compared there."""
    unused: tuple[str, ...] = ()
    """Keys of a port's file that are no documented names, so that they were not compared."""

    @property
    def judged(self) -> int:
        """Computed stages and tokens that were really compared."""
        return sum(r.kind in {"stage", "token"} and r.distance.status != "missing" for r in self.stages)

    @property
    def first(self) -> StageResult | None:
        """The stage of the headline."""
        return next((stage for stage in self.stages if stage.key == self.first_failed), None)

    @property
    def status(self) -> str:
        """ "nothing" (compared), "wrong", "suspicious" or "right"."""
        if not self.judged:
            return "nothing"
        if any(stage.has_failed for stage in self.stages):
            return "wrong"
        return "suspicious" if self.first_failed else "right"

    @property
    def headline(self) -> str:
        """One sentence that says where to look."""
        first = self.first
        if not self.judged:
            return "Nothing was compared: the two traces have no computed stage in common."
        if first is None:
            well = f"All {len(self.stages)} common stages are in budget"
            if self.unused:
                why = "nothing says what they are"
                return f"{well}; {len(self.unused)} tensors of the file were not compared: {why}."
            return f"{well}."
        if first.distance.status == "missing":
            note = first.distance.note
            return f"{note}." if note.startswith(first.key) else f"{note[:1].upper()}{note[1:]}."
        if first.suspicion:
            where = f"First suspicious stage: {first.key} ({describe(first.distance)}; {first.suspicion})."
        else:
            where = f"First stage out of budget: {first.key} ({describe(first.distance)})."
        remark = f" {first.remark}" if first.remark else ""
        return f"{where}{_claim(first)}{remark}"

    def data(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "reference": self.reference,
            "other": self.other,
            "precision": self.precision,
            "status": self.status,
            "headline": self.headline,
            "diagnosis": list(self.diagnosis),
            "first_failed": self.first_failed,
            "inputs_differed": self.inputs_differed,
            "verdicts": {name: asdict(verdict) for name, verdict in self.verdicts.items()},
            "warnings": list(self.warnings),
            "missing": list(self.missing),
            "extra": list(self.extra),
            "unexercised": list(self.unexercised),
            "unused": list(self.unused),
            "stages": [stage.data() for stage in self.stages],
        }


def _claim(first: StageResult) -> str:
    """What is known of the inputs of the first wrong stage."""
    unseen = some(first.between)
    if first.is_judged_draw:
        return " The seeds are equal, so it is drawn otherwise."
    if first.inputs_differed is None:
        if first.between:
            return f" None of its inputs was compared ({unseen}): the fault is there or before it."
        return " No input of it is documented or was compared: the fault is there or before it."
    if first.inputs_differed:
        return f" Its inputs already differed: {some(first.inputs)}."
    agree = f"{some(first.inputs)}{', bit for bit' if first.are_inputs_equal else ''}"
    if first.agreeing:
        nearest = "The nearest compared inputs" if first.between else "Its inputs"
        return (
            f" {nearest} agree ({agree}), and so does what is computed from it ({some(first.agreeing)}): "
            "what the file holds is not what went on. Was it written down at the place that its name means?"
        )
    if first.between:
        return (
            f" The nearest compared inputs agree ({agree}): the fault is in this stage or on the way to "
            f"it over {unseen}, which {'was' if len(first.between) == 1 else 'were'} not compared."
        )
    return f" Its inputs agree ({agree}): the fault is in this stage."


def some(names: tuple[str, ...], most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def describe(found: Distance) -> str:
    """The figures of one stage in words."""
    if found.status in {"shape", "missing", "nonfinite"} or (found.is_exact and found.note):
        return found.note
    figures = f"max abs {found.max_abs:.2e}, allowed {found.allowed:.2e}, cosine {found.cosine:.6f}"
    return f"{figures}; {found.note}" if found.is_part else figures


def three_verdicts(
    results: list[StageResult], reference: Trace, other: Trace, *, is_forced: bool
) -> dict[str, Verdict]:
    """The answers to the three questions, by name."""
    groups = {
        name: [r for r in results if r.group == name and r.kind == "stage"] for name in (SINGLE, TEACHER)
    }
    verdicts = {name: _judged(found) for name, found in groups.items()}
    verdicts["free_decode"] = _free(results, reference, other, is_forced=is_forced)
    return verdicts


def _judged(results: list[StageResult]) -> Verdict:
    if not results:
        return Verdict(status="not measured", detail="no such stage was compared")
    failed = [r for r in results if r.has_failed]
    suspicious = [r for r in results if r.suspicion]
    worst = max(results, key=lambda r: r.distance.over)
    if failed:
        status = "out of budget"
    elif suspicious:
        status, worst = "suspicious", suspicious[0]
    else:
        status = "equal" if all(r.distance.max_abs == 0 for r in results) else "in budget"
    return Verdict(
        status=status,
        stages=len(results),
        failed=len(failed),
        first_failed=failed[0].key if failed else suspicious[0].key if suspicious else None,
        worst=worst.key,
        detail="" if status == "equal" else f"worst {worst.key}: {describe(worst.distance)}",
    )


def _free(results: list[StageResult], reference: Trace, other: Trace, *, is_forced: bool) -> Verdict:
    tokens = [r for r in results if r.kind == "token"]
    if not tokens:
        return Verdict(status="not measured", detail="no tokens in common")
    wrong = [r for r in tokens if r.distance.status != "ok"]
    longer = _length_note(reference, other)
    if not wrong:
        detail = f"all {len(tokens)} decisions are equal{longer}"
        return Verdict(status="differs" if longer else "equal", stages=len(tokens), detail=detail)
    first = wrong[0]
    detail = (
        f"{first.key} (step {first.step}): {first.distance.note}{rank_and_margin(first, reference, other)}"
    )
    if is_forced:
        detail = f"{len(wrong)} of {len(tokens)} own choices differ from the forced ones; first {detail}"
    return Verdict(
        status="differs",
        stages=len(tokens),
        failed=len(wrong),
        first_failed=first.key,
        worst=first.key,
        detail=detail,
    )


def _length_note(reference: Trace, other: Trace) -> str:
    counts = [sum(entry.kind == "token" for entry in trace.entries) for trace in (reference, other)]
    return "" if counts[0] == counts[1] else f", but there are {counts[0]} and {counts[1]} of them"


def rank_and_margin(token: StageResult, reference: Trace, other: Trace) -> str:
    """Where the other's choice stands in the reference's scores, and by how much it is behind."""
    chosen = [trace.by_key[token.key].stored.flatten() for trace in (reference, other)]
    place = int((chosen[0] != chosen[1]).nonzero()[0]) if chosen[0].shape == chosen[1].shape else 0
    ours, theirs = int(chosen[1][place]), int(chosen[0][place])
    for key in token.inputs:
        entry = reference.by_key[key]
        if entry.kind != "stage" or entry.sampled is not None or not entry.stored.is_floating_point():
            continue
        rows = entry.stored.reshape(-1, entry.shape[-1]).double()
        row = rows[min(place, len(rows) - 1)]
        if max(ours, theirs) < len(row):
            rank = int((row > row[ours]).sum())
            margin = float(row[theirs] - row[ours])
            return f"; it has rank {rank} in the reference's {entry.name}, {margin:.3g} behind"
    return ""


def _finite(value: float) -> float | str:
    return value if value < float("inf") else "inf"
