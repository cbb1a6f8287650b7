"""Two traces, stage by stage: which stage differs first, and did its inputs already differ?

Three verdicts are kept apart. Single forward: everything before the first decoded token, and the decoder on
equal tokens. Teacher-forced: later decoding steps as long as both runs went on from the same tokens. Free
decode: the first token that differs, its rank and its margin. What follows a differing token is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sonant.parity.budgets import coarser, find_budget
from sonant.parity.measure import Distance, distance
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable, pattern_of
from sonant.parity.trace import Entry, Trace

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
    """Keys of the nearest recorded stages it is computed from."""
    inputs_differed: bool | None = None
    """None when none of its inputs was recorded in both."""
    is_forced: bool = False
    """A token that was only noted: decoding went on from the reference's."""

    @property
    def has_failed(self) -> bool:
        """True when it counts as a fault: computed (not given), judged, and out of budget."""
        is_computed = self.kind == "stage" or (self.kind == "token" and not self.is_forced)
        return is_computed and self.group != UNJUDGED and self.distance.status != "ok"

    def data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        record = asdict(self)
        figures = record.pop("distance")
        return {**record, **figures, "over": _finite(self.distance.over), "has_failed": self.has_failed}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One of the three questions.

    `status` is "equal", "in budget", "out of budget", "differs" (tokens) or "not measured".
    """

    status: str
    stages: int = 0
    failed: int = 0
    first_failed: str | None = None
    worst: str | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole answer. `first_failed` is the headline; None when everything is in budget."""

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

    @property
    def headline(self) -> str:
        """One sentence that says where to look."""
        if self.first_failed is None:
            if not self.stages:
                return "The two traces have no stage in common."
            return f"All {len(self.stages)} common stages are in budget."
        first = next(stage for stage in self.stages if stage.key == self.first_failed)
        where = f"First stage out of budget: {first.key} ({describe(first.distance)})."
        if self.inputs_differed is None:
            return f"{where} None of its inputs is in both traces: the fault is there or before it."
        if self.inputs_differed:
            return f"{where} Its inputs already differed: {', '.join(first.inputs)}."
        return f"{where} Its inputs agree ({', '.join(first.inputs)}): the fault is in this stage."

    def data(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "reference": self.reference,
            "other": self.other,
            "precision": self.precision,
            "headline": self.headline,
            "first_failed": self.first_failed,
            "inputs_differed": self.inputs_differed,
            "verdicts": {name: asdict(verdict) for name, verdict in self.verdicts.items()},
            "warnings": list(self.warnings),
            "missing": list(self.missing),
            "stages": [stage.data() for stage in self.stages],
        }


def describe(found: Distance) -> str:
    """The figures of one stage in words."""
    if found.status == "shape" or (found.allowed == 0 and found.note):
        return found.note
    if found.status == "nonfinite":
        return found.note
    return f"max abs {found.max_abs:.2e}, allowed {found.allowed:.2e}, cosine {found.cosine:.6f}"


def compare(
    reference: Trace,
    other: Trace,
    *,
    table: StageTable | None = None,
    own: bool = False,
    precision: str | None = None,
) -> Comparison:
    """`other` judged against `reference`; `own` takes the tighter budgets of stages fed with its values."""
    table = table or stage_table(reference.family or other.family)
    precision = precision or coarser(reference.dtype, other.dtype)
    order = reference if not reference.metadata.get("foreign") else other
    if order.metadata.get("foreign"):
        order = reference
    common = [e for e in order.entries if e.key in reference.by_key and e.key in other.by_key]
    is_forced = bool(other.metadata.get("forced")) or own
    results: list[StageResult] = []
    differs: dict[str, bool] = {}
    last: dict[str, str] = {}
    step, is_parted, previous = 0, False, ""
    for entry in common:
        a, b = reference.by_key[entry.key], other.by_key[entry.key]
        inputs = _nearest(entry, table, last, previous)
        # Of a stage that is kept as samples only, the run's own value goes on, with all that has piled up.
        is_fed = own and all(reference.by_key[key].sampled is None for key in inputs)
        found = distance(a, b, find_budget(table, precision, entry.name), own=is_fed)
        is_bad = found.status != "ok"
        result = StageResult(
            key=entry.key,
            kind=entry.kind,
            group=UNJUDGED if is_parted else _group(entry, table, step),
            step=step,
            shape=a.shape,
            dtype=b.dtype,
            distance=found,
            inputs=inputs,
            inputs_differed=any(differs[key] for key in inputs) if inputs else None,
            is_forced=is_forced and entry.kind == "token" and not own,
        )
        results.append(result)
        # Where the reference's value goes on, the next stage gets equal values, whatever was computed here.
        is_replaced = own or (is_forced and entry.kind == "token")
        differs[entry.key] = is_bad and not (is_replaced and a.sampled is None)
        last[entry.name], previous = entry.key, entry.key
        if entry.kind == "token":
            is_parted = is_parted or (is_bad and not is_forced)
            step += entry.name == table.token or not table.token
    first = next((r for r in results if r.has_failed), None)
    return Comparison(
        reference=_title(reference),
        other=_title(other),
        precision=precision,
        stages=tuple(results),
        verdicts=_verdicts(results, reference, other, is_forced=is_forced),
        first_failed=first.key if first else None,
        inputs_differed=first.inputs_differed if first else None,
        warnings=tuple(_warnings(reference, other, results, table)),
        missing=tuple(e.key for e in reference.entries if e.key not in other.by_key),
    )


def _nearest(entry: Entry, table: StageTable, last: Mapping[str, str], previous: str) -> tuple[str, ...]:
    """Keys of the nearest recorded stages that `entry` is computed from."""
    found: list[str] = []
    seen: set[str] = set()

    def visit(names: Iterable[str]) -> None:
        for name in names:
            if name in seen:
                continue
            seen.add(name)
            if "{" in name:
                # A placeholder that the stage itself lacks: any of them, the latest recorded one.
                found.extend(_latest(name, last))
            elif name in last:
                found.append(last[name])
            else:
                visit(table.inputs(name) or ())

    inputs = table.inputs(entry.name)
    if inputs is None:
        return (previous,) if previous else ()
    visit(inputs)
    return tuple(dict.fromkeys(found))


def _latest(template: str, last: Mapping[str, str]) -> list[str]:
    pattern = pattern_of(template)
    return [key for name, key in last.items() if pattern.fullmatch(name)][-1:]


def _group(entry: Entry, table: StageTable, step: int) -> str:
    found = table.find(entry.name)
    if found is not None and found[1].part != "decode":
        return SINGLE
    return SINGLE if step == 0 else TEACHER


def _verdicts(
    results: list[StageResult], reference: Trace, other: Trace, *, is_forced: bool
) -> dict[str, Verdict]:
    groups = {
        name: [r for r in results if r.group == name and r.kind == "stage"] for name in (SINGLE, TEACHER)
    }
    verdicts = {name: _judge(found) for name, found in groups.items()}
    verdicts["free_decode"] = _free(results, reference, other, is_forced=is_forced)
    return verdicts


def _judge(results: list[StageResult]) -> Verdict:
    if not results:
        return Verdict(status="not measured")
    failed = [r for r in results if r.has_failed]
    worst = max(results, key=lambda r: r.distance.over)
    if failed:
        status = "out of budget"
    else:
        status = "equal" if all(r.distance.max_abs == 0 for r in results) else "in budget"
    return Verdict(
        status=status,
        stages=len(results),
        failed=len(failed),
        first_failed=failed[0].key if failed else None,
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


def _warnings(reference: Trace, other: Trace, results: list[StageResult], table: StageTable) -> Iterable[str]:
    for trace, against in ((reference, other), (other, reference)):
        strange = [e.key for e in trace.entries if not table.find(e.name) and e.key not in against.by_key]
        if trace.metadata.get("foreign") and strange:
            yield (
                f"{len(strange)} of {len(trace.entries)} names of {_title(trace)} are not documented, first "
                f"{strange[0]}; a file for --names maps them"
            )
    for kind, words in (("input", "inputs"), ("draw", "random draws")):
        given = [r for r in results if r.kind == kind]
        wrong = [r for r in given if r.distance.status != "ok"]
        if wrong:
            first = f"{wrong[0].key}: {describe(wrong[0].distance)}"
            yield f"{len(wrong)} of {len(given)} {words} differ, first {first}"
    for name, why in (("seed", "seeds"), ("files", "checkpoint files"), ("fingerprint", "checkpoints")):
        a, b = reference.metadata.get(name), other.metadata.get(name)
        if a and b and a != b:
            yield f"the {why} of the two runs differ"
    if reference.family and other.family and reference.family != other.family:
        yield f"the traces are of different families: {reference.family} and {other.family}"
    forced_by = other.metadata.get("forced_by")
    if forced_by and forced_by != reference.tokens_hash():
        yield "the second trace was forced to the tokens of another reference"


def _title(trace: Trace) -> str:
    made_by = trace.metadata.get("made_by", "unknown")
    model = trace.metadata.get("model", "")
    return " ".join(str(part) for part in (made_by, model, trace.dtype) if part)


def _finite(value: float) -> float | str:
    return value if value < float("inf") else "inf"
