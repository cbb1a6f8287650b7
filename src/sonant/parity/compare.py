"""Two traces, stage by stage: which stage differs first, and did its inputs already differ?

Three verdicts are kept apart. Single forward: everything before the first decoded token, and the decoder on
equal tokens. Teacher-forced: later decoding steps as long as both runs went on from the same tokens. Free
decode: the first token that differs, its rank and its margin. What follows a differing token is not judged.

A claim about inputs is made of compared tensors only, and names them. A stage that is in budget but far
above what right runs differ by is "suspicious": two runs of one program on one processor are equal bit for
bit, and any difference between them has a cause; of other pairs, half of the budget is several times what
rounding was measured to make.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from sonant.parity.budgets import PRECISIONS, coarser, find_budget
from sonant.parity.coverage import unexercised
from sonant.parity.diagnosis import diagnose
from sonant.parity.measure import UNITS, Distance, distance, storage_unit
from sonant.parity.pieces import in_equal_pieces
from sonant.parity.reference.tracefile import split_key
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable, pattern_of
from sonant.parity.trace import Entry, Trace, stored_pair
from sonant.request.speech import Style

SINGLE, TEACHER, UNJUDGED = "single_forward", "teacher_forced", "after_divergence"

FAR = 0.5
"""Of another program's run, a share of the budget that rounding alone has not been seen to reach."""
NEAR = 0.1
"""Inputs below this share of their budgets count as equal but for rounding."""
CACHED = ("key", "c_attn")
"""Last words of stages that later steps attend to as well, from the last pass of several positions on."""
MEASURED = ("float32", "float64")
"""Precisions whose budgets are ten times the measured loss; the others' are three times."""

DOUBTFUL = 100
"""So many budgets away from its reference, a stage cannot go unnoticed in what is computed from it."""

SAME = ("made_by", "versions", "threads", "arithmetic", "device", "dtype", "fingerprint")
"""What two runs must have in common to be expected equal bit for bit."""


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
    unseen = _some(first.between)
    if first.is_judged_draw:
        return " The seeds are equal, so it is drawn otherwise."
    if first.inputs_differed is None:
        if first.between:
            return f" None of its inputs was compared ({unseen}): the fault is there or before it."
        return " No input of it is documented or was compared: the fault is there or before it."
    if first.inputs_differed:
        return f" Its inputs already differed: {_some(first.inputs)}."
    agree = f"{_some(first.inputs)}{', bit for bit' if first.are_inputs_equal else ''}"
    if first.agreeing:
        nearest = "The nearest compared inputs" if first.between else "Its inputs"
        return (
            f" {nearest} agree ({agree}), and so does what is computed from it ({_some(first.agreeing)}): "
            "what the file holds is not what went on. Was it written down at the place that its name means?"
        )
    if first.between:
        return (
            f" The nearest compared inputs agree ({agree}): the fault is in this stage or on the way to "
            f"it over {unseen}, which {'was' if len(first.between) == 1 else 'were'} not compared."
        )
    return f" Its inputs agree ({agree}): the fault is in this stage."


def _some(names: tuple[str, ...], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def describe(found: Distance) -> str:
    """The figures of one stage in words."""
    if found.status in {"shape", "missing", "nonfinite"} or (found.is_exact and found.note):
        return found.note
    figures = f"max abs {found.max_abs:.2e}, allowed {found.allowed:.2e}, cosine {found.cosine:.6f}"
    return f"{figures}; {found.note}" if found.is_part else figures


def compare(
    reference: Trace,
    other: Trace,
    *,
    table: StageTable | None = None,
    own: bool = False,
    precision: str | None = None,
    steps: int | None = None,
) -> Comparison:
    """`other` judged against `reference`; `own` takes the tighter budgets of stages fed with its values.

    `steps` limits the judgement to so many decoding steps.
    """
    table = table or stage_table(reference.family or other.family)
    whole = reference, other
    reference, other, cut = in_equal_pieces(reference, other, table)
    judge = _Judge(reference, other, table, own=own, precision=precision, steps=steps)
    results = judge.results()
    place = next((place for place, result in enumerate(results) if result.is_wrong), None)
    first = None
    if place is not None:
        first = results[place] = replace(results[place], agreeing=judge.agreeing(results[place], results))
    return Comparison(
        reference=_title(reference),
        other=_title(other),
        precision=precision or coarser(reference.dtype, other.dtype),
        stages=tuple(results),
        verdicts=_verdicts(results, reference, other, is_forced=judge.is_forced),
        first_failed=first.key if first else None,
        inputs_differed=first.inputs_differed if first else None,
        warnings=(*([cut] if cut else []), *judge.notes(results), *_warnings(*whole, results, table)),
        missing=tuple(e.key for e in reference.entries if e.key not in other.by_key),
        extra=tuple(e.key for e in other.entries if e.key not in reference.by_key),
        diagnosis=judge.words(first) if first else (),
        unexercised=tuple(unexercised(reference, table)),
        unused=_strange(whole[1], whole[0], table) if whole[1].is_foreign else (),
    )


class _Judge:
    """One pass over the common entries of two traces, in the order of computation."""

    def __init__(
        self,
        reference: Trace,
        other: Trace,
        table: StageTable,
        *,
        own: bool,
        precision: str | None,
        steps: int | None,
    ) -> None:
        self.reference, self.other, self.table = reference, other, table
        self.own, self.precision, self.steps = own, precision, steps
        self.is_forced = bool(other.metadata.get("forced")) or own
        self.is_any_layout = reference.is_foreign or other.is_foreign
        self.are_twins = are_twins(reference, other)
        self.draws, self.uneven_choices = _draw_partners(reference, other)
        self.choices = 0
        self.known = {e.name for trace in (reference, other) for e in trace.entries}
        self.are_complete = not any(
            trace.is_foreign or trace.metadata.get("stages", "*") != "*" for trace in (reference, other)
        )
        self.ends = _ends(reference, other, table)
        self.differs: dict[str, bool] = {}
        self.shares: dict[str, float] = {}
        self.equal: dict[str, bool] = {}
        self.uneven: set[str] = set()
        self.last: dict[str, str] = {}
        """The latest compared key of each name."""
        self.latest: dict[str, str] = {}
        """The latest key of each name in the order of computation, compared or not."""
        self.narrow: list[tuple[Entry, Entry]] = []
        self.lacks: set[str] = set()
        self.harmless: list[str] = []
        self.passed: set[str] = set()
        self.are_draws_even = True
        self.unfed = set(other.metadata.get("unfed", ())) if own else set()
        self.is_loose = False
        """A token was chosen by the run itself: what follows is judged where all its inputs were given."""

    def results(self) -> list[StageResult]:
        """Every common entry, and what one of two equal programs did not compute."""
        order = self.reference if not self.reference.is_foreign else self.other
        if order.is_foreign:
            order = self.reference
        # What only the other trace has, has no place in this order: it counts as passed.
        self.passed = {e.name for e in self.other.entries} - {e.name for e in order.entries}
        found: list[StageResult] = []
        step, is_parted, has_ended, previous = 0, False, False, ""
        tokens: Counter[str] = Counter()
        ends = list(self.ends)
        for entry in order.entries:
            is_step = entry.kind == "token" and (entry.name == self.table.token or not self.table.token)
            is_parted = is_parted or (self.steps is not None and step >= self.steps)
            for end in [e for e in ends if not is_parted and self._is_over(e, entry, tokens)]:
                found.append(self._end(end, step))
                ends.remove(end)
                has_ended = True
            self.is_loose = self.is_loose or entry.key in self.unfed
            if entry.key not in self.reference.by_key or entry.key not in self.other.by_key:
                if self._is_lack(entry, has_ended=has_ended, is_parted=is_parted):
                    found.append(self._lack(entry, step, previous))
                    self.lacks.add(entry.key)
                    self.differs[entry.key] = True
                    self.last[entry.name] = entry.key
                self.latest[entry.name] = entry.key
                self.passed.add(entry.name)
                step += is_step
                continue
            result = self._result(entry, step, previous, is_parted=is_parted, has_ended=has_ended)
            found.append(result)
            self.last[entry.name] = self.latest[entry.name] = previous = entry.key
            self.passed.add(entry.name)
            if entry.kind == "token":
                is_parted = is_parted or (result.distance.status != "ok" and not self.is_forced)
                tokens[entry.name] += 1
            step += is_step
        found += [self._end(end, step) for end in ends if not is_parted]
        return self._without_harmless(found)

    def _without_harmless(self, found: list[StageResult]) -> list[StageResult]:
        """Without stages that were not computed where what follows is right all the same.

        A model that remembers a clip does not encode it again.
        """
        kept: list[StageResult] = []
        follows_well = False
        for result in reversed(found):
            is_lack = result.distance.status == "missing" and result.key in self.lacks
            if is_lack and follows_well:
                self.harmless.append(result.key)
                continue
            if not is_lack and result.kind in {"stage", "token"}:
                follows_well = result.distance.status == "ok"
            kept.append(result)
        return kept[::-1]

    def _is_over(self, end: _End, entry: Entry, tokens: Counter[str]) -> bool:
        """Does `entry` come after the last step that both runs took?"""
        if tokens[end.segment + self.table.token] < end.after or not entry.name.startswith(end.segment):
            return False
        if end.is_early:
            return entry.key in self.reference.by_key and entry.key not in self.other.by_key
        found = self.table.find(entry.name)
        return found is not None and found[1].part == "audio"

    def _is_lack(self, entry: Entry, *, has_ended: bool, is_parted: bool) -> bool:
        """Is an entry that only the reference has a stage that the other run should have computed?"""
        return (
            self.are_twins
            and self.are_complete
            and entry.key in self.reference.by_key
            and entry.kind in {"stage", "token"}
            and not has_ended
            and not is_parted
            and self.steps is None
        )

    def _lack(self, entry: Entry, step: int, previous: str) -> StageResult:
        inputs, between = self._inputs(entry, previous)
        return StageResult(
            key=entry.key,
            kind="stage",
            group=_group(entry, self.table, step),
            step=step,
            shape=entry.shape,
            dtype=entry.dtype,
            distance=Distance(status="missing", note=f"{entry.key} was not computed"),
            inputs=inputs,
            inputs_differed=any(self.differs.get(key, False) for key in inputs) if inputs else None,
            between=between,
        )

    def _end(self, end: _End, step: int) -> StageResult:
        trace = self.reference if end.key in self.reference.by_key else self.other
        entry = trace.by_key[end.key]
        self.differs[end.key] = True
        return StageResult(
            key=end.key,
            kind="stage",
            group=SINGLE if step == 0 else TEACHER,
            step=step,
            shape=entry.shape,
            dtype=entry.dtype,
            distance=Distance(status="missing", note=end.words),
        )

    def _result(
        self, entry: Entry, step: int, previous: str, *, is_parted: bool, has_ended: bool
    ) -> StageResult:
        a = self.reference.by_key[entry.key]
        b = self.other.by_key[self.draws.get(entry.key, entry.key)]
        inputs, between = self._inputs(entry, previous)
        earlier = self._remembered(inputs)
        forgotten = tuple(key for key in earlier if key not in self.differs)
        inputs += tuple(key for key in earlier if self.differs.get(key, False))
        between += forgotten
        found = self._distance(a, b, inputs)
        is_uneven = entry.kind == "draw" and (
            entry.key not in self.draws or (found.status == "shape" and not self.reference.is_foreign)
        )
        is_judged_draw = self._is_judged(entry, is_uneven=is_uneven)
        # Of a run that ended elsewhere nothing after it is judged, but what was fed with right values.
        is_after = is_parted or (has_ended and (not self.own or found.status == "shape"))
        is_after = is_after or (self.is_loose and (bool(between) or not inputs))
        # What the reference lacks of a cache, the run has computed itself: perhaps otherwise.
        is_after = is_after or (self.own and bool(forgotten))
        is_bad = found.status != "ok"
        uneven = any(key in self.uneven for key in inputs)
        if entry.kind == "token":
            has_other_count = self.choices in self.uneven_choices
            uneven = uneven or has_other_count
            self.are_draws_even = self.are_draws_even and not has_other_count
            self.choices += 1
        result = StageResult(
            key=entry.key,
            kind=entry.kind,
            group=UNJUDGED if is_after else _group(entry, self.table, step),
            step=step,
            shape=a.shape,
            dtype=b.dtype,
            distance=found,
            inputs=inputs,
            inputs_differed=any(self.differs[key] for key in inputs) if inputs else None,
            between=between,
            are_inputs_equal=bool(inputs) and all(self.equal.get(key, False) for key in inputs),
            is_forced=self.is_forced and entry.kind == "token" and not self.own,
            is_judged_draw=is_judged_draw,
            remark="It drew another number of times, or from another number of candidates." if uneven else "",
        )
        result = replace(result, suspicion=self._suspicion(result, a, b))
        # Where the reference's value goes on, the next stage gets equal values, whatever was computed here.
        is_replaced = (self.own or (self.is_forced and entry.kind in {"token", "draw"})) and a.sampled is None
        is_replaced = is_replaced and not is_uneven
        is_far = is_bad or bool(result.suspicion) or (self.are_twins and not found.is_equal)
        is_far = is_far or (found.over > FAR and self._precision(a, b)[0] in MEASURED)
        self.differs[entry.key] = is_far and not is_replaced and not is_uneven
        self.equal[entry.key] = found.is_equal or is_replaced
        self.shares[entry.key] = 0.0 if is_replaced else found.over
        if is_uneven:
            self.uneven.add(entry.key)
            self.are_draws_even = False
        return result

    def _is_judged(self, entry: Entry, *, is_uneven: bool) -> bool:
        if entry.kind != "draw" or is_uneven or not self.are_twins or not self.are_draws_even:
            return False
        seeds = self.reference.metadata.get("seed"), self.other.metadata.get("seed")
        is_given = bool(self.other.metadata.get("forced")) and not self.own
        return seeds[0] is not None and seeds[0] == seeds[1] and not is_given

    def _distance(self, a: Entry, b: Entry, inputs: tuple[str, ...]) -> Distance:
        precision, unit = self._precision(a, b)
        if unit:
            self.narrow.append((a, b))
        if self.own:
            # A stage fed with rounded values shows what the rounding made of it.
            fed = [self.reference.by_key[key] for key in inputs if key in self.reference.by_key]
            for given in fed:
                if _is_narrower(given.dtype, self.reference.computed(given)) and given.kind == "stage":
                    precision = coarser(precision, given.dtype)
        # Of a stage that is kept as samples only, the run's own value goes on, with all that has piled up.
        is_fed = self.own and all(
            self.reference.by_key[key].sampled is None for key in inputs if key in self.reference.by_key
        )
        return distance(
            a,
            b,
            find_budget(self.table, precision, a.name),
            own=is_fed,
            unit=unit,
            any_layout=self.is_any_layout and a.kind != "draw",
            documented=self.table.shape(a.name),
        )

    def _precision(self, a: Entry, b: Entry) -> tuple[str, float]:
        """Whose budget two entries are judged by, and the rounding that storing has added to it."""
        computed = self.precision or coarser(self.reference.computed(a), self.other.computed(b))
        narrow = [
            entry.dtype
            for trace, entry in ((self.reference, a), (self.other, b))
            if _is_narrower(entry.dtype, self.precision or trace.computed(entry))
            and _is_narrower(entry.dtype, computed)
        ]
        return computed, storage_unit(narrow)

    def _suspicion(self, result: StageResult, a: Entry, b: Entry) -> str:
        if result.kind != "stage" or result.group == UNJUDGED or result.distance.status != "ok":
            return ""
        if not (a.stored.is_floating_point() and b.stored.is_floating_point()) or result.inputs_differed:
            return ""
        is_own = not (self.reference.is_foreign or self.other.is_foreign)
        if is_own and self.reference.dtype == self.other.dtype and _is_narrower(b.dtype, a.dtype):
            return f"computed in {b.dtype}, the reference in {a.dtype}"
        if result.distance.max_abs == 0:
            return ""
        if self.are_twins:
            if result.inputs and not result.are_inputs_equal and not self.own:
                return ""
            return (
                f"in budget, {result.distance.over:.2g} of it, but these are runs of one program on one "
                "processor, which are equal bit for bit when nothing is changed"
            )
        is_far = result.distance.over > FAR and self._precision(a, b)[0] in MEASURED
        rounding = max((self.shares.get(key, 1.0) for key in result.inputs), default=1.0)
        are_whole = all(
            self.reference.by_key[k].sampled is None for k in result.inputs if k in self.reference.by_key
        )
        if is_far and are_whole and rounding <= NEAR:
            return f"in budget, {result.distance.over:.0%} of it, far above what rounding makes"
        return ""

    def _inputs(self, entry: Entry, previous: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Keys of the nearest compared stages `entry` is computed from, and what lies between them."""
        found: list[str] = []
        between: list[str] = []
        seen: set[str] = set()

        def visit(names: Iterable[str], is_direct: bool) -> None:
            for name in names:
                if name in seen:
                    continue
                seen.add(name)
                if "{" in name:
                    # A placeholder that the stage itself lacks: any of them, the latest one.
                    latest = _latest(name, self.latest)
                    if not latest and not self.are_complete and is_direct:
                        between.append(name)
                    visit(latest, is_direct)
                elif name in self.last and (self.last[name] == self.latest[name] or self._is_uneven(name)):
                    found.append(self.last[name])
                elif same := self._same_tensor(name):
                    found.append(same)
                else:
                    # What was compared of an earlier pass only says nothing of this one.
                    if is_direct and (name in self.passed or self._may_be(name, entry)):
                        between.append(self.latest.get(name, name))
                    visit(self.table.inputs(name) or (), False)

        inputs = self.table.inputs(entry.name)
        if inputs is None and self.reference.is_foreign and self.other.is_foreign:
            return (), ()  # the order of a file is not the order of computation
        if inputs is None:
            return ((previous,) if previous else ()), ()
        visit(inputs, True)
        return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(between))

    def _same_tensor(self, name: str) -> str:
        """The compared stage that an input of a layer, which was not compared, is handed on from; else ""."""
        given = self.reference.by_key.get(self.latest.get(name, ""))
        if given is None or not self.is_any_layout or not name.endswith(".in"):
            return ""
        for source in self.table.inputs(name) or ():
            entry = self.reference.by_key.get(self.last.get(source, ""))
            is_same_pass = entry is not None and entry.key == self.latest[source]
            if entry is not None and is_same_pass and torch.equal(*stored_pair(entry, given)):
                return entry.key
        return ""

    def _is_uneven(self, name: str) -> bool:
        """A draw of two of Sonant's or the recorders' runs: where one drew less often, nothing is missing."""
        return self.table.kind(name) == "draw" and not self.is_any_layout

    def _remembered(self, inputs: Iterable[str]) -> tuple[str, ...]:
        """Earlier keys of the caches among these inputs, back to the pass that began them."""
        found: list[str] = []
        for key in inputs:
            name, occurrence = split_key(key)
            if name.rpartition(".")[2] not in CACHED:
                continue
            while occurrence and self._positions(key) == 1:
                occurrence -= 1
                key = f"{name}@{occurrence}" if occurrence else name
                found.append(key)
        return tuple(found)

    def _positions(self, key: str) -> int:
        entry = self.reference.by_key.get(key) or self.other.by_key.get(key)
        return entry.shape[-2] if entry is not None and len(entry.shape) > 1 else 1

    def _may_be(self, name: str, entry: Entry) -> bool:
        """Was `name` perhaps computed before `entry` and not kept?"""
        is_given = self.table.kind(name) in {"draw", "input"}
        if self.are_complete or is_given or name in self.known or name == entry.name:
            return False
        # What is computed from a later stage is so from the second time on.
        return entry.occurrence > 0 or self.table.place(name) < self.table.place(entry.name)

    def agreeing(self, first: StageResult, results: list[StageResult]) -> tuple[str, ...]:
        """What is computed from a stage of a port's file that is far off, where all of it agrees."""
        is_far = first.has_failed and first.distance.over > DOUBTFUL
        if not (self.is_any_layout and is_far) or self.own or first.inputs_differed:
            return ()
        after = [r for r in results if first.key in r.inputs and r.kind == "stage" and r.group != UNJUDGED]
        return () if any(r.distance.status != "ok" for r in after) else tuple(r.key for r in after)

    def words(self, first: StageResult) -> tuple[str, ...]:
        """The diagnosis of the first wrong stage."""
        a = self.reference.by_key.get(first.key)
        b = self.other.by_key.get(self.draws.get(first.key, first.key))
        if a is None or b is None or first.distance.status == "missing":
            return ()
        said = diagnose(a, b, documented=self.table.shape(a.name), trace=self.reference, table=self.table)
        return (*self._namesakes(a, b), *said)

    def _namesakes(self, a: Entry, b: Entry) -> Iterable[str]:
        """Is it the right value of a stage whose name differs by a number?"""
        pattern = self.table.pattern_of(a.name)
        if "{" not in pattern or not self.is_any_layout:
            return
        for entry in self.reference.entries:
            is_other = entry.key != a.key and self.table.pattern_of(entry.name) == pattern
            if is_other and self._distance(entry, b, ()).status == "ok":
                yield f"these are the values of {entry.key}: a number in the name is off (all count from 0)"
                return

    def notes(self, results: list[StageResult]) -> Iterable[str]:
        """Sentences about how the two were judged."""
        if self.narrow:
            dtypes = Counter(
                e.dtype for pair in self.narrow for e in pair if e.dtype in UNITS and e.dtype != "float32"
            )
            said = ", ".join(f"{count} in {dtype}" for dtype, count in dtypes.items())
            yield (
                f"{len(self.narrow)} compared stages are stored narrower than they are taken to be computed "
                f"({said}): judged as float32 arithmetic plus the rounding of storing. If the arithmetic was "
                f"narrow too, say so: --precision {max(dtypes, key=PRECISIONS.index)}"
            )
            wrong = [r for r in results if r.has_failed and r.kind == "stage"]
            coarse = max(dtypes, key=PRECISIONS.index)
            if wrong and self.precision is None and not self.own:
                again = _Judge(
                    self.reference,
                    self.other,
                    self.table,
                    own=False,
                    precision=coarse,
                    steps=self.steps,
                )
                left = [r for r in again.results() if r.has_failed]
                if not left:
                    yield f"by the budgets of {coarse} arithmetic everything would be in budget"
        if self.harmless:
            yield (
                f"{len(self.harmless)} stages of the reference were not computed, first {self.harmless[-1]}; "
                "what follows them is right"
            )
        moved = [r for r in results if r.distance.status != "shape" and "laid out" in r.distance.note]
        if moved:
            first = f"{moved[0].key}: {moved[0].distance.note}"
            yield f"{len(moved)} stages are laid out otherwise, first {first}"
        parts = [r for r in results if r.distance.is_part]
        if parts:
            first = f"{parts[0].key}: {parts[0].distance.note}"
            yield f"of {len(parts)} stages only a part was compared, first {first}"


def are_twins(reference: Trace, other: Trace) -> bool:
    """Are these runs of one program on one kind of processor, which are equal bit for bit?"""
    a, b = reference.metadata, other.metadata
    if not a.get("arithmetic") or reference.is_foreign or other.is_foreign:
        return False
    request = [{**m.get("request", {}), "seed": None} for m in (a, b)]
    is_asked_alike = request[0] == request[1]
    return is_asked_alike and all(a.get(name) == b.get(name) for name in SAME)


def _is_narrower(dtype: str, than: str) -> bool:
    """Is `dtype` a floating-point type of fewer bits than another?"""
    order = ("float64", "float32", "float16", "bfloat16")
    return dtype in order and than in order and order.index(dtype) > order.index(than)


@dataclass(frozen=True)
class _End:
    """A segment in which one of the runs takes fewer decoding steps: `after` tokens both have."""

    key: str
    segment: str
    after: int
    is_early: bool
    words: str


def _ends(reference: Trace, other: Trace, table: StageTable) -> list[_End]:
    """Where only one of the runs goes on decoding; empty when both take as many steps."""
    if not table.token:
        return []
    counts = [Counter(e.name for e in t.entries) for t in (reference, other)]
    found = []
    for name in counts[0]:
        of, done = counts[0][name], counts[1][name]
        segment = name.removesuffix(table.token)
        if not name.endswith(table.token) or table.pattern_of(name) != table.token or of == done or not done:
            continue
        steps = [count[segment + table.frame] for count in counts]
        if steps[0] == steps[1] or not steps[1]:
            steps = [of, done]
        where = f" in {segment.rstrip('.')}" if segment else ""
        if done < of:
            words = f"it ended early{where}, at step {steps[1]} of {steps[0]}; all before it agrees"
        else:
            words = (
                f"it went on{where} after step {steps[0]}, where the reference ended ({steps[1]} steps); "
                "all before it agrees"
            )
        found.append(_End(f"{name}@{min(done, of)}", segment, min(done, of), done < of, words))
    return found


def _draw_partners(reference: Trace, other: Trace) -> tuple[dict[str, str], set[int]]:
    """Each draw of the reference with the other's: the same one since the same choice, of the same kind.

    Also the choices before which the two drew another number of times.
    """

    def places(trace: Trace) -> dict[tuple[int, str, int], str]:
        made: dict[tuple[int, str, int], str] = {}
        tokens, counts = 0, Counter[str]()
        for entry in trace.entries:
            if entry.kind == "token":
                tokens += 1
                counts.clear()
            elif entry.kind == "draw":
                made[tokens, entry.name, counts[entry.name]] = entry.key
                counts[entry.name] += 1
        return made

    ours, theirs = places(reference), places(other)
    uneven = {place[0] for place in ours.keys() ^ theirs.keys()} if ours and theirs else set()
    return {key: theirs[place] for place, key in ours.items() if place in theirs}, uneven


def _latest(template: str, last: Mapping[str, str]) -> list[str]:
    """The last of the names that a template fits."""
    pattern = pattern_of(template)
    return [name for name in last if pattern.fullmatch(name)][-1:]


def _strange(trace: Trace, against: Trace, table: StageTable) -> tuple[str, ...]:
    """Keys that are neither documented names nor names of the other trace."""
    return tuple(e.key for e in trace.entries if not table.find(e.name) and e.key not in against.by_key)


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


def _warnings(reference: Trace, other: Trace, results: list[StageResult], table: StageTable) -> Iterable[str]:
    yield from dict.fromkeys((*reference.notes, *other.notes))
    if reference.is_foreign and other.is_foreign:
        yield (
            "neither file says in which order it was computed: the first wrong tensor is the first one in "
            "the reference's file, and of names that are not documented no inputs are known"
        )
    for trace, against in ((reference, other), (other, reference)):
        strange = _strange(trace, against, table)
        if trace.is_foreign and strange:
            yield (
                f"{len(strange)} of {len(trace.entries)} names of {_title(trace)} are not documented, first "
                f"{strange[0]}; --names maps them, and --save-map writes down those that were recognised"
            )
    for kind, words in (("input", "inputs"), ("draw", "random draws")):
        given = [r for r in results if r.kind == kind]
        wrong = [r for r in given if r.distance.status != "ok"]
        if wrong:
            first = f"{wrong[0].key}: {describe(wrong[0].distance)}"
            yield f"{len(wrong)} of {len(given)} {words} differ, first {first}"
    for name, why in (("seed", "seeds"), ("files", "checkpoint files"), ("fingerprint", "checkpoints")):
        a, b = reference.metadata.get(name), other.metadata.get(name)
        if a is not None and b is not None and a != b:
            at = ""
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                at = f": {_some(tuple(k for k in {**a, **b} if a.get(k) != b.get(k)), 3)}"
            elif name == "seed":
                at = f": {a} and {b}"
            yield f"the {why} of the two runs differ{at}"
    asked = [t.metadata.get("request") for t in (reference, other)]
    if isinstance(asked[0], Mapping) and isinstance(asked[1], Mapping):
        for name in dict.fromkeys((*asked[0], *asked[1])):
            a, b = (_said(name, request.get(name)) for request in asked)
            if name != "seed" and a != b:
                yield f"the two requests differ in {name}: {_short(a)} and {_short(b)}"
    if reference.family and other.family and reference.family != other.family:
        yield f"the traces are of different families: {reference.family} and {other.family}"
    forced_by = other.metadata.get("forced_by")
    if forced_by and forced_by != reference.tokens_hash():
        yield "the second trace was forced to the tokens of another reference"


def _said(name: str, value: Any) -> Any:
    """What a request asks for beyond what it means where nothing is said; None where that is nothing."""
    usual = {"style": asdict(Style()), "speed": 1.0, "normalize": True}.get(name)
    if isinstance(value, Mapping):
        plain = usual if isinstance(usual, Mapping) else {}
        return {key: one for key, one in value.items() if _is_said(one, plain.get(key))} or None
    return value if _is_said(value, usual) else None


def _is_said(value: Any, usual: Any) -> bool:
    """Whether a setting is another than its usual value; where that is none, nothing and off are."""
    if value is None or (value is False and not usual) or value in ("", (), [], {}):
        return False
    return bool(value != usual)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _title(trace: Trace) -> str:
    made_by = trace.metadata.get("made_by", "unknown")
    model = trace.metadata.get("model", "")
    return " ".join(str(part) for part in (made_by, model, trace.dtype) if part)


def _finite(value: float) -> float | str:
    return value if value < float("inf") else "inf"
