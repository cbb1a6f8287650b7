"""Find every stage that is wrong by itself: each one is fed the reference's values and judged alone.

One run is enough. At every tap the network's own value is compared with the reference's, and the
reference's goes on in its place. So a stage computes from correct inputs, tokens and draws whatever went
wrong before it, and an error in one stage hides no other. Where the reference keeps only samples of a stage,
the network's own value goes on, and the next stage is judged by the wider budget of a run of its own. Where
the two cut a signal into other pieces, each piece gets its own part of the reference's joined signal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from typing import Any

from torch import Tensor

from sonant.engine.model import SpeechModel
from sonant.errors import SonantError
from sonant.nn.tap import tapped
from sonant.parity.compare import compare
from sonant.parity.diagnosis import diagnose
from sonant.parity.pieces import Feed
from sonant.parity.record import DrawWatch, replacement, surroundings
from sonant.parity.reference.tracefile import TraceWriter, split_key
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable
from sonant.parity.task import Task, perform, task_of
from sonant.parity.trace import Entry, Trace, from_writer
from sonant.parity.verdicts import UNJUDGED, Comparison, StageResult, describe

MOST_OTHERS = 4
"""So many other diagnoses of one stage are given."""
MOST_WORDED = 64
"""So many wrong passes of one stage are looked at for them."""

MOST_RUNS = 12
"""So many replays at most are made to tell what a port's file holds wrongly from what is computed wrongly."""

_LESS = re.compile(r"-\d+}")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A documented stage that is wrong by itself: how often, and where first."""

    stage: str
    first: str
    wrong: int
    of: int
    detail: str
    is_suspicious: bool = False
    """In budget every time, but far above what right runs differ by."""
    diagnosis: tuple[str, ...] = ()
    """What is wrong, in words."""
    others: tuple[tuple[str, str], ...] = ()
    """Other passes or layers in which something else is wrong, each with its words."""
    between: tuple[str, ...] = ()
    """Stages on the way to it that the reference does not hold: the fault may be there as well."""
    agreeing: tuple[str, ...] = ()
    """Stages that agree once our own value of this one goes on: the file's value is not what went on."""


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """All stages in the reference's inputs. `stopped` says why the run ended early, if it did."""

    faults: tuple[Fault, ...]
    comparison: Comparison
    stopped: str = ""
    uncovered: tuple[str, ...] = ()
    """Stages that the reference does not hold: an error there shows in the next stage that it holds."""
    partly: tuple[str, ...] = ()
    """Stages of which the reference holds some layers or passes only."""
    sampled: tuple[str, ...] = ()
    """Stages of which the reference holds samples only: an error there spreads to what follows."""

    @property
    def judged(self) -> int:
        """Computed stages that were compared with the reference's."""
        return self.comparison.judged

    @property
    def ended(self) -> str:
        """A sentence when decoding took fewer or more steps than the reference's; "" when it did not."""
        first = self.comparison.first
        ends = [
            r for r in self.comparison.stages if r.distance.status == "missing" and "ended" in r.distance.note
        ]
        note = ends[0].distance.note if ends else ""
        return note if not ends or first is ends[0] else note.replace("; all before it agrees", "")

    @property
    def status(self) -> str:
        """ "nothing" (judged), "wrong", "suspicious" or "right"."""
        if not self.judged:
            return "nothing"
        if self.stopped or self.ended or any(not fault.is_suspicious for fault in self.faults):
            return "wrong"
        return "suspicious" if self.faults else "right"

    @property
    def headline(self) -> str:
        """One sentence that says where to look."""
        end = f" The run stopped early: {self.stopped}" if self.stopped else ""
        if not self.judged:
            return f"Nothing was judged: the reference holds no stage that was computed here.{end}"
        own = [fault for fault in self.faults if not fault.is_suspicious]
        wrong = ", ".join(fault.stage for fault in own)
        dumped = ", ".join(fault.stage for fault in own if fault.agreeing)
        odd = ", ".join(fault.stage for fault in self.faults if fault.is_suspicious)
        said = [f"Wrong by themselves: {wrong}."] if wrong else []
        if dumped:
            said.append(
                f"What the file holds of {dumped} is not what went on: what is computed from it is right "
                "with ours in its place. Was it written down at the place that its name means?"
            )
        if odd:
            said.append(f"Suspicious, though in budget: {odd}.")
        if self.ended:
            said.append(f"Besides, {self.ended}." if said else f"{self.ended[:1].upper()}{self.ended[1:]}.")
        return f"{' '.join(said) or f'No stage is wrong by itself ({self.judged} judged).'}{end}"

    def data(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "status": self.status,
            "headline": self.headline,
            "faults": [asdict(fault) for fault in self.faults],
            "ended": self.ended,
            "stopped": self.stopped,
            "uncovered": list(self.uncovered),
            "partly": list(self.partly),
            "sampled": list(self.sampled),
            "comparison": self.comparison.data(),
        }


def replay(
    model: SpeechModel,
    reference: Trace,
    *,
    task: Task | None = None,
    table: StageTable | None = None,
    dtype: str | None = None,
    forced: Trace | None = None,
    unfed: Set[str] = frozenset(),
) -> tuple[Trace, str]:
    """What the model computes at each stage from the reference's values, and why it stopped, if it did.

    Tokens and draws that the reference lacks are those of `forced`. Of the documented stages in `unfed` the
    model's own values go on.
    """
    table = table or stage_table(reference.family or model.spec.family)
    task = task or task_of(reference)
    writer = TraceWriter()
    kinds = table.kind
    feed = Feed(reference, table)

    chosen: list[str] = []
    misfits: list[str] = []

    def sink(name: str, tensor: Tensor) -> Tensor | None:
        kind = kinds(name)
        key = writer.add(name, tensor, kind=kind)
        if table.pattern_of(name) in unfed:
            return None
        given = feed.part(name, tensor) if feed.is_piece(name) else replacement(reference, key, tensor)
        if given is None and kind in {"token", "draw"}:
            given = replacement(forced, key, tensor) if forced is not None else None
            given = given if given is None or given.shape == tensor.shape else None
            if given is None and kind == "token":
                chosen.append(key)
        if given is not None and given.shape != tensor.shape:
            misfits.append(
                f"{key} is {list(given.shape)} in the reference, and this request makes {list(tensor.shape)}"
            )
        return given

    stopped = ""
    with tapped(sink), DrawWatch(sink):
        try:
            perform(model, task)
        except (RuntimeError, ValueError, IndexError, AssertionError, SonantError) as error:
            # A stage of the wrong shape may make the next one impossible; what came before still counts.
            stopped = f"after {writer.entries[-1]['key'] if writer.entries else 'nothing'}: {error}"
            if misfits:
                stopped += f". {misfits[0]}: is it of another text, voice, transcript or limit? Give its own."
    made = surroundings(model, dtype or reference.dtype)
    if reference.metadata.get("made_by") == made["made_by"]:
        made |= {"request": task.data(), "seed": task.request.seed}
    made |= {"family": table.family, "forced": True, "replay": True, "unfed": chosen}
    made["kept"] = sorted(unfed)
    return from_writer(writer, made), stopped


def bisect(
    model: SpeechModel,
    reference: Trace,
    *,
    task: Task | None = None,
    precision: str | None = None,
    table: StageTable | None = None,
    dtype: str | None = None,
    forced: Trace | None = None,
) -> Bisection:
    """Every stage of `model` that is wrong by itself, judged against `reference`.

    `dtype` is the precision that the model was loaded in, the reference's when not given. `forced` gives
    the tokens and draws that the reference lacks. Without them a stage behind a token is judged only where
    the reference holds all of its inputs.
    """
    table = table or stage_table(reference.family or model.spec.family)

    def run(unfed: Set[str] = frozenset()) -> tuple[Trace, str, Comparison]:
        found, stopped = replay(
            model, reference, task=task, table=table, dtype=dtype, forced=forced, unfed=unfed
        )
        return found, stopped, compare(reference, found, table=table, own=True, precision=precision)

    found, stopped, comparison = run()
    victims: dict[str, set[str]] = {}
    if reference.is_foreign:
        sources = _sources(table, {table.pattern_of(e.name) for e in reference.entries})
        victims = _victims(comparison, table, sources, lambda unfed: run(unfed)[2])
    faults = faults_of(comparison, table, reference, found, victims=victims)
    lacking = _names(table, (e for e in found.entries if e.key not in reference.by_key))
    held = set(_names(table, (e for e in reference.entries if e.key in found.by_key)))
    return Bisection(
        faults=faults,
        comparison=comparison,
        stopped=stopped,
        uncovered=tuple(name for name in lacking if name not in held),
        partly=tuple(name for name in lacking if name in held),
        sampled=_names(table, (e for e in reference.entries if e.sampled is not None)),
    )


def _sources(table: StageTable, held: Set[str]) -> dict[str, set[str]]:
    """The nearest documented stages among those `held` that each stage is computed from, of any layer."""
    stages = [stage for stage in table if stage.kind == "stage"]
    direct = {s.name: {_LESS.sub("}", name) for name in (*s.inputs, *s.first)} for s in stages}

    def nearest(name: str, seen: set[str]) -> Iterator[str]:
        for source in direct.get(name, set()) - seen:
            seen.add(source)
            if source in held:
                yield source
            else:
                yield from nearest(source, seen)

    return {name: set(nearest(name, set())) for name in direct}


def _victims(
    comparison: Comparison,
    table: StageTable,
    sources: Mapping[str, Set[str]],
    again: Callable[[Set[str]], Comparison],
) -> dict[str, set[str]]:
    """Keys that are wrong only because they were fed with what a file holds, by the stage that holds it.

    Where such a key agrees as soon as our own value of that stage goes on, the port cannot have computed it
    from what its file holds there. `again` is the comparison of a run in which some stages are not fed.
    """
    wrong: dict[str, set[str]] = {}
    for result in comparison.stages:
        if result.kind == "stage" and not result.suspicion and _is_own_fault(result):
            wrong.setdefault(table.pattern_of(split_key(result.key)[0]), set()).add(result.key)
    tries: dict[frozenset[str], None] = {}
    for size in (1, 2, 3):
        for name in wrong:
            doubtful = sorted(sources.get(name, set()) & wrong.keys())
            tries.update(dict.fromkeys(map(frozenset, combinations(doubtful, size))))
    found: dict[str, set[str]] = {}
    for unfed in islice(tries, MOST_RUNS):
        freed_before = {key for keys in found.values() for key in keys}
        left = {name: keys - freed_before for name, keys in wrong.items()}
        if not any(left[name] for name in left if unfed <= sources.get(name, set())):
            continue
        agreeing = {r.key for r in again(unfed).stages if r.distance.status == "ok" and r.group != UNJUDGED}
        for name in left:
            freed = left[name] & agreeing if unfed <= sources.get(name, set()) else set()
            for holder in unfed if freed else ():
                found.setdefault(holder, set()).update(freed)
    return found


def _names(table: StageTable, entries: Iterable[Entry]) -> tuple[str, ...]:
    """Documented names of the computed stages among these entries, each once."""
    computed = (entry.name for entry in entries if entry.kind in {"stage", "token"})
    return tuple(dict.fromkeys(table.pattern_of(name) for name in computed))


def faults_of(
    comparison: Comparison,
    table: StageTable,
    reference: Trace | None = None,
    found: Trace | None = None,
    *,
    victims: Mapping[str, Set[str]] | None = None,
) -> tuple[Fault, ...]:
    """The wrong stages of a comparison gathered by documented name, in the order of computation.

    `victims` are keys that are not wrong by themselves, by the stage of which the file holds what did not
    go on.
    """
    victims = victims or {}
    innocent = {key for keys in victims.values() for key in keys}
    groups: dict[str, list[StageResult]] = {}
    has_lack = False
    for result in comparison.stages:
        if result.distance.status == "missing":
            # What was not computed takes everything after it along: the first is the fault.
            if has_lack or "ended" in result.distance.note:
                continue
            has_lack = True
        if result.kind in {"stage", "token"} or result.is_judged_draw:
            groups.setdefault(table.pattern_of(result.key.split("@")[0]), []).append(result)
    faults = []
    for name, results in groups.items():
        wrong = [r for r in results if _is_own_fault(r) and r.key not in innocent]
        if wrong:
            failed = [r for r in wrong if not r.suspicion]
            worst = max(failed or wrong, key=lambda r: r.distance.over)
            faults.append(
                Fault(
                    stage=name,
                    first=wrong[0].key,
                    wrong=len(wrong),
                    of=len(results),
                    detail=describe(worst.distance)
                    if failed
                    else f"{describe(worst.distance)}; {worst.suspicion}",
                    is_suspicious=not failed,
                    diagnosis=_words(wrong[0].key, reference, found, table),
                    others=tuple(_other_words(wrong, reference, found, table)),
                    between=wrong[0].between,
                    agreeing=tuple(
                        dict.fromkeys(
                            table.pattern_of(split_key(key)[0]) for key in sorted(victims.get(name, ()))
                        )
                    ),
                )
            )
    return tuple(faults)


def _is_own_fault(result: StageResult) -> bool:
    if result.suspicion:
        return True
    return result.group != UNJUDGED and result.distance.status != "ok" and not result.inputs_differed


def _other_words(
    wrong: Iterable[StageResult], reference: Trace | None, found: Trace | None, table: StageTable
) -> Iterator[tuple[str, str]]:
    """Wrong passes of one stage whose words are not those of one before."""
    seen: set[str] = set()
    for place, result in enumerate(islice(wrong, MOST_WORDED)):
        said = _words(result.key, reference, found, table)
        gist = _gist(said[0]) if said else ""
        if gist and gist not in seen and len(seen) <= MOST_OTHERS:
            seen.add(gist)
            if place:
                yield result.key, said[0]


def _gist(words: str) -> str:
    """What a diagnosis says without its places: of one fault equal in every layer and pass."""
    head = words.split(";")[0]
    if head.startswith(("a constant", "a factor", "clipped")):
        return _NUMBER.sub(lambda number: f"{float(number.group()):.2g}", head)
    return _NUMBER.sub("#", head)


def _words(key: str, reference: Trace | None, found: Trace | None, table: StageTable) -> tuple[str, ...]:
    if reference is None or found is None or key not in reference.by_key or key not in found.by_key:
        return ()
    a, b = reference.by_key[key], found.by_key[key]
    if reference.is_foreign:
        a, b = b, a  # a port's file is what is wrong, whichever was fed to the other
    return diagnose(a, b, documented=table.shape(a.name), trace=reference, table=table)
