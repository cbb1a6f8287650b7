"""Which of a port's tensors is which stage, when the names do not say: by shape, statistics, then values.

What one match teaches is used for the others: "blk0_q" found to be layer 0's query says what "blk1_q" is, so
that a tensor with wrong values, which its values cannot betray, is still compared with the right stage.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from sonant.parity.heads import gathered
from sonant.parity.layout import arranged, axis_names, joined_parts, part_key, relative, squeezed
from sonant.parity.naming import by_kind, hint, skeleton
from sonant.parity.reference.tracefile import split_key, statistics, tensor_hash
from sonant.parity.stages import stage_table
from sonant.parity.stages.table import StageTable, pattern_of, resolve
from sonant.parity.trace import Entry, Trace

CERTAIN, LIKELY, POSSIBLE = "certain", "likely", "possible"

EXACT = 2e-3
"""Relative distance of the same values, stored in half precision at worst."""
CLOSE = 0.3
"""Relative distance of what may be the same stage with a fault in it."""
BETTER = 3.0
"""How much farther the second choice must be."""

MARK = "\0"
"""Stands for a number: no name holds it."""

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Match:
    """A port's tensor and the stage it is taken for."""

    theirs: str
    ours: str
    certainty: str
    why: str


def has_unknown_names(trace: Trace, family: str) -> bool:
    """Are some names of a trace no documented ones?"""
    table = stage_table(trace.family or family)
    return any(table.find(entry.name) is None for entry in trace.entries)


def propose(reference: Trace, other: Trace, table: StageTable) -> tuple[Match, ...]:
    """A stage of the reference for each tensor of the port whose name is not documented."""
    unknown = [e for e in other.entries if table.find(e.name) is None and e.key not in reference.by_key]
    open_stages = {
        e.key: e for e in reference.entries if e.kind in {"stage", "token"} and e.key not in other.by_key
    }
    together = gathered(unknown, open_stages, table)
    heads = {key for _, keys in together.values() for key in keys}
    unknown = [
        together[e.key][0] if e.key in together else e
        for e in unknown
        if e.key in together or e.key not in heads
    ]
    scored = _scored(unknown, open_stages, table)
    found = _by_equal_values(scored)
    for told in by_kind(unknown, open_stages, {m.theirs: m.ours for m in found.values()}, table):
        found[told.theirs] = Match(theirs=told.theirs, ours=told.ours, certainty=LIKELY, why=told.why)
    rules = _rules(found.values())
    taken = {match.ours for match in found.values()}
    for entry in unknown:
        known = found.get(entry.key)
        if known is not None and known.certainty == CERTAIN:
            continue
        ours = next((name for name in (rule.apply(entry.key) for rule in rules) if name in open_stages), "")
        if ours and ours not in taken and _fits(open_stages[ours], entry):
            why = "by the pattern of other names"
            found[entry.key] = Match(theirs=entry.key, ours=ours, certainty=LIKELY, why=why)
            taken.add(ours)
    _by_similar_values(scored, found)
    _by_place(unknown, open_stages, found, reference)
    taken = {match.ours for match in found.values()}
    for entry in unknown:
        if entry.key not in found:
            guess = _by_statistics(entry, [e for key, e in open_stages.items() if key not in taken])
            if guess:
                found[entry.key] = guess
    members = {whole.key: keys for whole, keys in together.values()}
    matches: list[Match] = []
    for match in (found[entry.key] for entry in unknown if entry.key in found):
        keys = members.get(match.theirs)
        if keys is None:
            matches.append(match)
        else:
            why = f"one of {len(keys)} heads; {match.why}"
            parts = enumerate(keys)
            matches += [replace(match, theirs=k, ours=part_key(match.ours, i), why=why) for i, k in parts]
    return tuple(matches)


def matched(other: Trace, matches: Iterable[Match], table: StageTable) -> Trace:
    """The port's trace under our names, certain and likely matches applied."""
    names = {m.theirs: m.ours for m in matches if m.certainty != POSSIBLE}
    plain = [e for e in other.entries if e.key not in names]
    renamed = {names[e.key]: e for e in other.entries if e.key in names}
    made = joined_parts({key: e.stored for key, e in renamed.items()}, str(other.metadata.get("made_by", "")))
    entries = [replace(e, kind=table.kind(e.name)) for e in plain]
    for key, tensor in made.items():
        entry = renamed.get(key)
        if entry is None:
            entry = replace(
                renamed[part_key(key, 0)],
                shape=tuple(tensor.shape),
                stored=tensor,
                statistics=statistics(tensor),
                hash=tensor_hash(tensor),
            )
        entries.append(replace(entry, key=key, kind=table.kind(split_key(key)[0])))

    def place(entry: Entry) -> tuple[int, ...]:
        part, *rest = table.place(entry.name)
        return part, entry.occurrence, *rest

    entries.sort(key=place)
    metadata = {**other.metadata, "family": other.family or table.family}
    return Trace(tuple(entries), metadata, other.notes)


def save_map(path: Path, matches: Sequence[Match], earlier: Mapping[str, str]) -> None:
    """Write a map for --names: rules where one says several matches, else single names."""
    applied = [m for m in matches if m.certainty != POSSIBLE]
    made = dict(earlier)
    said: set[str] = set()
    for rule in _rules(applied):
        told = [m for m in applied if rule.apply(m.theirs) == m.ours]
        if len(told) > 1:
            made[rule.theirs] = rule.ours
            said |= {m.theirs for m in told}
    made |= {m.theirs: m.ours for m in applied if m.theirs not in said}
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fits(stage: Entry, entry: Entry) -> bool:
    """Could these be the same numbers in another layout, with a batch axis more, or a part?"""
    sizes, other = squeezed(stage.shape), squeezed(entry.shape)
    if stage.elements == entry.elements:
        return True
    larger, smaller = max(stage.elements, entry.elements), max(1, min(stage.elements, entry.elements))
    if larger % smaller == 0 and larger // smaller <= 8 and other and other[0] == larger // smaller:
        return True
    shared = [size for size in sizes if size in other]
    return len(sizes) == len(other) and len(shared) >= len(sizes) - 1 and bool(shared)


def _are_like(stage: Entry, entry: Entry, most: float = 0.5) -> bool:
    a, b = stage.statistics.get("rms", 0.0), entry.statistics.get("rms", 0.0)
    return abs(a - b) <= most * max(abs(a), abs(b))


def _distance(stage: Entry, entry: Entry, table: StageTable) -> tuple[float, str]:
    if stage.sampled is not None or entry.sampled is not None:
        return float("inf"), ""
    if stage.stored.is_floating_point() != entry.stored.is_floating_point() and stage.kind != "token":
        return float("inf"), ""
    names = axis_names(table.shape(stage.name), stage.shape)
    if squeezed(stage.shape) == squeezed(entry.shape):
        return relative(stage.stored, entry.stored), ""
    fit = arranged(stage.stored, entry.stored, names)
    if fit is None:
        return float("inf"), ""
    right = stage.stored.flatten() if fit.kept is None else stage.stored.flatten()[fit.kept]
    return relative(right, fit.values), fit.words


@dataclass(frozen=True, order=True)
class _Scored:
    """A tensor, a stage that it may be, and their relative distance."""

    score: float
    index: int
    place: int
    theirs: str
    ours: str
    words: str


def _scored(unknown: Sequence[Entry], stages: Mapping[str, Entry], table: StageTable) -> list[_Scored]:
    scored: list[_Scored] = []
    for index, entry in enumerate(unknown):
        for place, (key, stage) in enumerate(stages.items()):
            if _fits(stage, entry) and (_are_like(stage, entry) or stage.elements != entry.elements):
                score, words = _distance(stage, entry, table)
                if score <= CLOSE:
                    scored.append(_Scored(score, index, place, entry.key, key, words))
    return sorted(scored)


def _by_similar_values(scored: Sequence[_Scored], found: dict[str, Match]) -> None:
    """Stages of tensors that neither values nor names told, where only one stage is nearly the same."""
    exact = {item.theirs for item in scored if item.score <= EXACT}
    taken = {match.ours for match in found.values()}
    for item in scored:
        if item.theirs in found or item.theirs in exact or item.ours in taken:
            continue
        rivals = [
            s
            for s in scored
            if s.theirs == item.theirs
            and s.ours not in {item.ours, *taken}
            and s.score <= BETTER * item.score
        ]
        if not rivals:
            why = f"similar values (relative distance {item.score:.1e}){f', {item.words}' * bool(item.words)}"
            found[item.theirs] = Match(theirs=item.theirs, ours=item.ours, certainty=LIKELY, why=why)
            taken.add(item.ours)


def _by_equal_values(scored: Sequence[_Scored]) -> dict[str, Match]:
    """One stage for each tensor that has the values of one or of several.

    A layer's output is the next one's input: which of them was meant, is told by what the tensors of the
    same kind of name have in common.
    """
    equal: dict[str, dict[str, tuple[float, str]]] = {}
    for item in scored:
        if item.score <= EXACT:
            equal.setdefault(item.theirs, {})[item.ours] = item.score, item.words
    votes: dict[str, Counter[str]] = {}
    for theirs, stages in equal.items():
        kinds = {skeleton(f"{ours}@0" if "@" not in ours else ours) for ours in stages}
        votes.setdefault(skeleton(theirs), Counter()).update(kinds)
    chosen: dict[str, str] = {}
    # First the kinds of names for which one kind of stage fits better than any other.
    by_margin = sorted(votes, key=lambda k: -_margin(votes[k]))
    for kind in by_margin:
        # Of equal ones, what the name says.
        liked = sorted(votes[kind].items(), key=lambda item: (-item[1], -hint(kind, item[0])))
        free = [k for k, _ in liked if k not in chosen.values()]
        chosen[kind] = free[0] if free else votes[kind].most_common(1)[0][0]
    found: dict[str, Match] = {}
    taken: set[str] = set()
    for theirs, stages in equal.items():
        wanted = [
            o
            for o in stages
            if o not in taken and skeleton(o if "@" in o else f"{o}@0") == chosen[skeleton(theirs)]
        ]
        left = [o for o in stages if o not in taken]
        ours = next(iter(wanted or left), None)
        if ours is None:
            continue
        score, words = stages[ours]
        layout = f", {words}" if words else ""
        rivals = [o for o in stages if o != ours]
        if rivals:
            more = " and others" * (len(rivals) > 1)
            certainty, why = LIKELY, f"the same values, as {rivals[0]} has{more}{layout}"
        else:
            certainty, why = CERTAIN, f"the same values (relative distance {score:.1e}){layout}"
        found[theirs] = Match(theirs=theirs, ours=ours, certainty=certainty, why=why)
        taken.add(ours)
    return found


def _margin(votes: Counter[str]) -> int:
    best = [count for _, count in votes.most_common(2)]
    return best[0] - (best[1] if len(best) > 1 else 0)


@dataclass(frozen=True)
class _Rule:
    """Names with placeholders: `theirs` as a port writes it, `ours` as documented."""

    theirs: str
    ours: str
    pattern: re.Pattern[str]

    def apply(self, name: str) -> str:
        """Our key for a name of the port, "" when the rule says nothing of it."""
        match = self.pattern.fullmatch(name)
        if match is None:
            return ""
        made = resolve(self.ours, {key: int(value) for key, value in match.groupdict().items()})
        return (made or "").removesuffix("@0")


def _rules(matches: Iterable[Match]) -> list[_Rule]:
    """What the matches teach: one rule for each skeleton of names in which the numbers follow each other."""
    groups: dict[tuple[str, str], list[tuple[list[int], list[int]]]] = {}
    for match in matches:
        ours = match.ours if "@" in match.ours else f"{match.ours}@0"
        key = _NUMBER.sub(MARK, match.theirs), _NUMBER.sub(MARK, ours)
        numbers = [int(n) for n in _NUMBER.findall(match.theirs)], [int(n) for n in _NUMBER.findall(ours)]
        groups.setdefault(key, []).append(numbers)
    rules = []
    best: dict[str, int] = {}
    for (theirs, _), pairs in groups.items():
        best[theirs] = max(best.get(theirs, 0), len(pairs))
    for (theirs, ours), pairs in groups.items():
        if len(pairs) < best[theirs] or "{" in theirs:  # a brace of theirs is no placeholder
            continue
        filled: list[str] = []
        used: set[int] = set()
        for place in range(len(pairs[0][1])):
            said = _source([(left, right[place]) for left, right in pairs], used)
            filled.append(said)
        template = _filled(theirs, [f"{{n{index}}}" for index in range(len(pairs[0][0]))])
        rules.append(_Rule(template, _filled(ours, filled), pattern_of(template)))
    return rules


def _filled(skeleton: str, parts: Sequence[str]) -> str:
    """The skeleton with its marks replaced, in order."""
    pieces = skeleton.split(MARK)
    return pieces[0] + "".join(part + piece for part, piece in zip(parts, pieces[1:], strict=True))


def _source(pairs: Sequence[tuple[list[int], int]], used: set[int]) -> str:
    """Where a number of ours comes from: a number of theirs, one less than it, or it is always the same.

    A number of theirs that says another one already says a second one only when both really change.
    """
    values = {value for _, value in pairs}
    count = min(len(left) for left, _ in pairs)
    for less in (0, 1):
        for place in range(count):
            if place in used and len(values) == 1:
                continue
            if all(left[place] - less == value for left, value in pairs):
                used.add(place)
                return f"{{n{place}}}" if not less else f"{{n{place}-1}}"
    return str(next(iter(values)))


def _by_place(
    unknown: Sequence[Entry], stages: Mapping[str, Entry], found: dict[str, Match], reference: Trace
) -> None:
    """A tensor between two matched neighbours is the one stage between theirs that it could be."""
    order = {entry.key: index for index, entry in enumerate(reference.entries)}
    places = [order[found[e.key].ours] if e.key in found else None for e in unknown]
    known = [place for place in places if place is not None]
    falls = sum(a > b for a, b in pairwise(known))
    if len(known) < 2 or falls * 5 > len(known):
        return
    taken = {match.ours for match in found.values()}
    for index, entry in enumerate(unknown):
        if entry.key in found:
            continue
        before = next((p for p in reversed(places[:index]) if p is not None), -1)
        after = next((p for p in places[index + 1 :] if p is not None), len(reference.entries))
        fitting = [
            key
            for key, stage in stages.items()
            if before < order[key] < after and key not in taken and stage.elements == entry.elements
        ]
        if len(fitting) > 1:
            # A port that calls it "out" means an output.
            word = re.split(r"[._/]", entry.name)[-1]
            fitting = [key for key in fitting if key.partition("@")[0].endswith(f".{word}")] or fitting
        if len(fitting) == 1:
            why = "by its place between two others"
            found[entry.key] = Match(theirs=entry.key, ours=fitting[0], certainty=LIKELY, why=why)
            taken.add(fitting[0])


def _by_statistics(entry: Entry, stages: Sequence[Entry]) -> Match | None:
    like = [s for s in stages if s.elements == entry.elements and _are_like(s, entry, 0.2)]
    if not like:
        return None
    nearest = min(like, key=lambda s: abs(s.statistics.get("rms", 0.0) - entry.statistics.get("rms", 0.0)))
    others = f", as {len(like) - 1} others" if len(like) > 1 else ""
    why = f"of the same size and spread{others}; not applied"
    return Match(theirs=entry.key, ours=nearest.key, certainty=POSSIBLE, why=why)
