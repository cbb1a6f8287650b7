"""Two traces, stage by stage: which stage differs first, and did its inputs already differ?

A stage that is in budget but far above what right runs differ by is "suspicious": two runs of one program on
one processor are equal bit for bit, and any difference between them has a cause; of other pairs, half of the
budget is several times what rounding was measured to make.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from sonant.parity.budgets import PRECISIONS, coarser, find_budget
from sonant.parity.coverage import unexercised
from sonant.parity.diagnosis import diagnose
from sonant.parity.measure import UNITS, Distance, distance, storage_unit
from sonant.parity.origins import Origins
from sonant.parity.pairs import End, are_twins, draw_partners, ends_of
from sonant.parity.pieces import in_equal_pieces
from sonant.parity.reference.tracefile import split_key
from sonant.parity.remarks import remarks, strange_keys, title
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Entry, Trace
from sonant.parity.verdicts import SINGLE, TEACHER, UNJUDGED, Comparison, StageResult, three_verdicts

FAR = 0.5
"""Of another program's run, a share of the budget that rounding alone has not been seen to reach."""
NEAR = 0.1
"""Inputs below this share of their budgets count as equal but for rounding."""
MEASURED = ("float32", "float64")
"""Precisions whose budgets are ten times the measured loss; the others' are three times."""

DOUBTFUL = 100
"""So many budgets away from its reference, a stage cannot go unnoticed in what is computed from it."""


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
        reference=title(reference),
        other=title(other),
        precision=precision or coarser(reference.dtype, other.dtype),
        stages=tuple(results),
        verdicts=three_verdicts(results, reference, other, is_forced=judge.is_forced),
        first_failed=first.key if first else None,
        inputs_differed=first.inputs_differed if first else None,
        warnings=(*([cut] if cut else []), *judge.notes(results), *remarks(*whole, results, table)),
        missing=tuple(e.key for e in reference.entries if e.key not in other.by_key),
        extra=tuple(e.key for e in other.entries if e.key not in reference.by_key),
        diagnosis=judge.words(first) if first else (),
        unexercised=tuple(unexercised(reference, table)),
        unused=strange_keys(whole[1], whole[0], table) if whole[1].is_foreign else (),
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
        self.draws, self.uneven_choices = draw_partners(reference, other)
        self.choices = 0
        self.order = other if reference.is_foreign and not other.is_foreign else reference
        self.origins = Origins(reference, other, table, self.order)
        self.ends = ends_of(reference, other, table)
        self.differs: dict[str, bool] = {}
        self.shares: dict[str, float] = {}
        self.equal: dict[str, bool] = {}
        self.uneven: set[str] = set()
        self.narrow: list[tuple[Entry, Entry]] = []
        self.lacks: set[str] = set()
        self.harmless: list[str] = []
        self.are_draws_even = True
        self.unfed = set(other.metadata.get("unfed", ())) if own else set()
        self.is_loose = False
        """A token was chosen by the run itself: what follows is judged where all its inputs were given."""

    def results(self) -> list[StageResult]:
        """Every common entry, and what one of two equal programs did not compute."""
        found: list[StageResult] = []
        step, is_parted, has_ended = 0, False, False
        tokens: Counter[str] = Counter()
        ends = list(self.ends)
        for entry in self.order.entries:
            is_step = entry.kind == "token" and (entry.name == self.table.token or not self.table.token)
            is_parted = is_parted or (self.steps is not None and step >= self.steps)
            for end in [e for e in ends if not is_parted and self._is_over(e, entry, tokens)]:
                found.append(self._end(end, step))
                ends.remove(end)
                has_ended = True
            self.is_loose = self.is_loose or entry.key in self.unfed
            if entry.key not in self.reference.by_key or entry.key not in self.other.by_key:
                if self._is_lack(entry, has_ended=has_ended, is_parted=is_parted):
                    found.append(self._lack(entry, step))
                    self.lacks.add(entry.key)
                    self.differs[entry.key] = True
                    self.origins.counted(entry)
                else:
                    self.origins.passed(entry)
                step += is_step
                continue
            found.append(self._result(entry, step, is_parted=is_parted, has_ended=has_ended))
            self.origins.compared(entry)
            if entry.kind == "token":
                is_parted = is_parted or (found[-1].distance.status != "ok" and not self.is_forced)
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

    def _is_over(self, end: End, entry: Entry, tokens: Counter[str]) -> bool:
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
            and self.origins.are_complete
            and entry.key in self.reference.by_key
            and entry.kind in {"stage", "token"}
            and not has_ended
            and not is_parted
            and self.steps is None
        )

    def _lack(self, entry: Entry, step: int) -> StageResult:
        inputs, between = self.origins.inputs(entry)
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

    def _end(self, end: End, step: int) -> StageResult:
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

    def _result(self, entry: Entry, step: int, *, is_parted: bool, has_ended: bool) -> StageResult:
        a = self.reference.by_key[entry.key]
        b = self.other.by_key[self.draws.get(entry.key, entry.key)]
        inputs, between = self.origins.inputs(entry)
        earlier = self.origins.remembered(inputs)
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
        is_replaced = is_replaced and not is_uneven and not self._is_kept(entry.key)
        # Of a signal in pieces each gets its own part, so that what is too short stays so.
        is_replaced = is_replaced and not (found.status == "shape" and self.table.in_pieces(entry.name))
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

    def _is_kept(self, key: str) -> bool:
        """Did the run's own value of a stage go on in a replay, as it was asked to?"""
        return self.table.pattern_of(split_key(key)[0]) in self.other.metadata.get("kept", ())

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

    def agreeing(self, first: StageResult, results: list[StageResult]) -> tuple[str, ...]:
        """What is computed from a stage of a port's file that is far off, where all of it agrees."""
        is_far = first.has_failed and first.distance.over > DOUBTFUL
        if not (self.is_any_layout and is_far) or self.own or first.inputs_differed:
            return ()
        after = [r for r in results if first.key in r.inputs and r.kind == "stage" and r.group != UNJUDGED]
        are_right = all(r.distance.status == "ok" and not r.distance.is_part for r in after)
        return tuple(r.key for r in after) if are_right else ()

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


def _is_narrower(dtype: str, than: str) -> bool:
    """Is `dtype` a floating-point type of fewer bits than another?"""
    order = ("float64", "float32", "float16", "bfloat16")
    return dtype in order and than in order and order.index(dtype) > order.index(than)


def _group(entry: Entry, table: StageTable, step: int) -> str:
    found = table.find(entry.name)
    if found is not None and found[1].part != "decode":
        return SINGLE
    return SINGLE if step == 0 else TEACHER
