"""Stages told by names and shapes, where values cannot tell: of a tensor that is wrong everywhere.

Tensors of one kind of name ("pass_0/blk1_attn", "pass_1/blk0_attn") are one documented stage. Which one is
told by the words in the name, by shapes under one reading of its numbers (layer, time), and by what is left
of the right values. Where two readings are equally good, none is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from sonant.parity.layout import arranged, axis_names, squeezed
from sonant.parity.measure import cosine
from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Entry

SURE = 1.0
"""A name that says nothing but the stage."""
ENOUGH = 0.6
"""A score below this says nothing."""
AHEAD = 0.2
"""So much better than any other stage must it be."""

LATE = 0.15
"""Taken off where layers or times would not begin with the first."""

WORDS = {
    "query": {"q", "query", "queries"},
    "key": {"k", "key", "keys"},
    "attention": {"att", "attn", "attention", "oproj", "wo", "selfattn", "selfattention", "sa", "o"},
    "mlp": {"mlp", "ffn", "ff", "feedforward", "down", "downproj", "wdown"},
    "out": {"out", "y", "hidden", "hiddens", "resid", "residual", "block", "state", "h", "xout", "layerout"},
    "in": {"in", "x", "input", "inputs", "xin", "layerin"},
    "norm": {"norm", "lnf", "finalnorm", "normf"},
    "logits": {"logits", "lmhead", "head"},
}
"""What ports call the stages of a decoder layer; other stages by the words of their own names."""
ROTATED = {"rope", "rot", "rotated", "rotary", "roped", "post"}
"""Words that a rotated query or key may have besides."""
RESULT = {"out", "output", "result", "proj", "projected", "o", "branch", "res", "delta", "y"}
"""Words that a branch may have besides: "attn_out" is the attention."""
SILENT = {
    *(
        "layer",
        "layers",
        "blk",
        "block",
        "blocks",
        "l",
        "h",
        "step",
        "steps",
        "s",
        "pass",
        "t",
        "frame",
        "frames",
    ),
    *("prefill", "decode", "talker", "model", "tensor", "dump", "trace", "post", "final", "the", "p", "pos"),
}
"""Words that say where, not what."""

_WORD = re.compile(r"[a-z]+|[A-Z][a-z]*")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Told:
    """A tensor of the port, the stage it is, and why."""

    theirs: str
    ours: str
    why: str


def skeleton(name: str) -> str:
    """A name with its numbers left open."""
    return _NUMBER.sub("#", name.replace("#", "_"))


def numbers(name: str) -> tuple[int, ...]:
    """The numbers of a name."""
    return tuple(int(number) for number in _NUMBER.findall(name))


def by_kind(
    unknown: Sequence[Entry],
    stages: Mapping[str, Entry],
    found: Mapping[str, str],
    table: StageTable,
) -> list[Told]:
    """Stages of tensors that `found` (their key to ours) does not name."""
    groups: dict[str, list[Entry]] = {}
    for entry in unknown:
        groups.setdefault(skeleton(entry.key), []).append(entry)
    ours: dict[str, dict[tuple[int, ...], str]] = {}
    for key in stages:
        ours.setdefault(_kind(key), {})[numbers(_full(key))] = key
    guesses: list[_Guess] = []
    for theirs, entries in groups.items():
        if all(entry.key in found for entry in entries):
            continue
        kinds = {_kind(found[e.key]) for e in entries if e.key in found}
        for kind in kinds or ours:
            guesses += _guesses(theirs, entries, kind, ours[kind], stages, found, table)
    told = _chosen(guesses, found)
    known = {**found, **{item.theirs: item.ours for item in told}}
    return told + _chosen(list(_carried(groups, ours, stages, known, table)), known)


def _full(key: str) -> str:
    """A stage's key with the number of its first pass as well."""
    return key if "@" in key else f"{key}@0"


def _kind(key: str) -> str:
    return skeleton(_full(key))


def _chosen(guesses: Sequence[_Guess], found: Mapping[str, str]) -> list[Told]:
    """The guesses that no other one contests, the best first."""
    told: list[Told] = []
    done: set[str] = set()
    taken = set(found.values())
    guesses = sorted(guesses, key=lambda guess: -guess.score)
    for guess in guesses:
        new = {e: o for e, o in guess.pairs.items() if e not in found}
        if guess.theirs in done or taken & set(new.values()) or guess.score < ENOUGH:
            continue
        rivals = [
            g
            for g in guesses
            if _contest(g, guess)
            and g.theirs not in done
            and not taken & {o for e, o in g.pairs.items() if e not in found}
            and g.score > guess.score - AHEAD
        ]
        if rivals:
            continue
        done.add(guess.theirs)
        taken |= set(new.values())
        told += [Told(e, o, guess.why) for e, o in new.items()]
    return told


def _carried(
    groups: Mapping[str, Sequence[Entry]],
    ours: Mapping[str, Mapping[tuple[int, ...], str]],
    stages: Mapping[str, Entry],
    found: Mapping[str, str],
    table: StageTable,
) -> Iterator[_Guess]:
    """What the prefill's names teach of the frames': one last word is one stage, one place one numbering.

    "pre.b0.sa" found to be an attention says what "tok1.b0.sa" is, where "tok1.b0.q" says which pass it is.
    """
    kinds: dict[str, set[str]] = {}
    numbered: dict[str, dict[tuple[int, ...], tuple[int, ...]]] = {}
    for theirs, entries in groups.items():
        place, word = _parts(theirs)
        for entry in entries:
            if entry.key in found:
                kinds.setdefault(word, set()).add(_kind(found[entry.key]))
                numbered.setdefault(place, {})[numbers(entry.key)] = numbers(_full(found[entry.key]))
    for theirs, entries in groups.items():
        place, word = _parts(theirs)
        is_open = word and place in numbered and not any(entry.key in found for entry in entries)
        if is_open and len(kinds.get(word, ())) == 1:
            (kind,) = kinds[word]
            yield from _guesses(theirs, entries, kind, ours[kind], stages, found, table, numbered[place])


def _parts(theirs: str) -> tuple[str, str]:
    """The skeleton of a name up to its last number, and the words behind it."""
    place, mark, word = theirs.rpartition("#")
    return f"{place}{mark}", word.strip("._/-")


def _contest(a: _Guess, b: _Guess) -> bool:
    """Are these two stages for one name, or two names for one stage?"""
    if a.theirs == b.theirs:
        return a.kind != b.kind
    return bool(set(a.pairs.values()) & set(b.pairs.values()))


@dataclass(frozen=True)
class _Guess:
    theirs: str
    kind: str
    score: float
    pairs: dict[str, str]
    why: str


def _guesses(
    theirs: str,
    entries: Sequence[Entry],
    kind: str,
    ours: Mapping[tuple[int, ...], str],
    stages: Mapping[str, Entry],
    found: Mapping[str, str],
    table: StageTable,
    said: Mapping[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Iterator[_Guess]:
    """The best reading of the numbers in a kind of name as one kind of stage, if there is one.

    `said` is how names of the same place are numbered, and that the stage is this one.
    """
    is_known = said is not None or any(entry.key in found for entry in entries)
    named = SURE if is_known else hint(theirs, kind)
    best: _Guess | None = None
    for reading in _readings(entries, next(iter(ours))):
        if any(_read(reading, theirs) != right for theirs, right in (said or {}).items()):
            continue
        pairs = {entry.key: ours.get(_read(reading, numbers(entry.key)), "") for entry in entries}
        are_free = all(pairs[key] == found.get(key, pairs[key]) for key in pairs)
        if not are_free or len(set(pairs.values())) < len(pairs) or "" in pairs.values():
            continue
        alike = [_likeness(stages[pairs[e.key]], e, table) for e in entries]
        if any(value is None for value in alike):
            continue
        likeness = sum(value or 0.0 for value in alike) / len(alike)
        mapped = [_read(reading, numbers(entry.key)) for entry in entries]
        late = sum(min(column) != 0 for column in zip(*mapped, strict=True))
        score = named + max(0.0, likeness) - LATE * late
        if best is None or score > best.score + 1e-9:
            why = "by its shape and what its values have in common"
            if is_known:
                why = "by the pattern of other names"
            elif named >= SURE:
                why = "by its name and shape"
            best = _Guess(theirs, kind, score, pairs, why)
    if best is not None:
        yield best


def _readings(entries: Sequence[Entry], ours: tuple[int, ...]) -> Iterable[tuple[tuple[int, int], ...]]:
    """For each number of a stage's key: which number of the port's name it is, and how much to add.

    A place below 0 stands for a number that the name does not say: the first one.
    """
    count = len(numbers(entries[0].key))
    changing = [p for p in range(count) if len({numbers(e.key)[p] for e in entries}) > 1]
    choices = [(-1, 0), *((place, less) for place in range(count) for less in (0, -1, 1))]
    for reading in product(choices, repeat=len(ours)):
        places = [place for place, _ in reading if place >= 0]
        if len(set(places)) == len(places) and set(changing) <= set(places):
            yield reading


def _read(reading: Sequence[tuple[int, int]], found: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(found[place] + less if place >= 0 else 0 for place, less in reading)


def _likeness(stage: Entry, entry: Entry, table: StageTable) -> float | None:
    """Cosine of the two in the order that fits best; None when the shape does not fit."""
    if stage.elements != entry.elements or stage.sampled is not None or entry.sampled is not None:
        return None
    if not stage.stored.is_floating_point() or not entry.stored.is_floating_point():
        return None
    if squeezed(stage.shape) == squeezed(entry.shape):
        return cosine(stage.stored.flatten().double(), entry.stored.flatten().double())
    fit = arranged(stage.stored, entry.stored, axis_names(table.shape(stage.name), stage.shape))
    if fit is None or fit.is_part:
        return None
    return cosine(stage.stored.flatten().double(), fit.values.flatten().double())


def hint(theirs: str, kind: str) -> float:
    """From 0 to 1: how much a name speaks of a kind of stage."""
    said = [word.lower() for word in _WORD.findall(theirs)]
    *place, leaf = kind.partition("@")[0].split(".")
    silent = SILENT.union(*(part.split("_") for part in place))
    words = WORDS.get(leaf, {leaf, *leaf.split("_")})
    more = ROTATED if leaf in {"query", "key"} else RESULT if leaf in {"attention", "mlp"} else set[str]()
    telling = [word for word in said if word not in silent or (word in words and word == said[-1])]
    if not any(word in words for word in telling):
        return 0.0
    return sum(word in words or word in more for word in telling) / len(telling)
