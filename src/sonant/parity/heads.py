"""Heads that a port keeps as one array each ("b0.Q0", "b0.Q1", ...), taken together as one tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from sonant.parity.layout import arranged, axis_names, relative
from sonant.parity.naming import numbers, skeleton
from sonant.parity.reference.tracefile import statistics
from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Entry

EQUAL = 2e-3
"""Below this relative distance heads taken together are a stage of the reference."""
HEADS = ("head", "heads", "hd", "h")
"""Words in front of a head's number."""


def gathered(
    unknown: Sequence[Entry], stages: Mapping[str, Entry], table: StageTable
) -> dict[str, tuple[Entry, tuple[str, ...]]]:
    """What may be heads of one stage, by the first one's key: an entry of all of them, and their keys."""
    sizes = {
        (size, stage.elements)
        for stage in stages.values()
        for letter, size in zip(axis_names(table.shape(stage.name), stage.shape), stage.shape, strict=True)
        if letter == "H" and stage.stored.is_floating_point()
    }
    kinds: dict[str, list[Entry]] = {}
    for entry in unknown:
        if entry.stored.is_floating_point() and entry.sampled is None:
            kinds.setdefault(skeleton(entry.key), []).append(entry)
    taken = {entry.key for entry in unknown}
    found: dict[str, tuple[Entry, tuple[str, ...]]] = {}
    for entries in kinds.values():
        count = len(numbers(entries[0].key))
        places = [place for place in range(count) if _are_heads(_grouped(entries, place), sizes)]
        before = [re.split(r"[^a-z]", part.lower())[-1] for part in re.split(r"\d+", entries[0].key)]
        places.sort(key=lambda place: (before[place] in HEADS, place), reverse=True)
        place = next((place for place in places if _is_told(_grouped(entries, place), stages, table)), None)
        for group in _grouped(entries, place) if place is not None else ():
            stacked = torch.stack([entry.stored for entry in group])
            key = _without(group[0].key, place or 0)
            while key in taken:
                key += "_heads"
            taken.add(key)
            whole = replace(
                group[0], key=key, shape=tuple(stacked.shape), stored=stacked, statistics=statistics(stacked)
            )
            found[group[0].key] = whole, tuple(entry.key for entry in group)
    return found


def _grouped(entries: Iterable[Entry], place: int) -> list[list[Entry]]:
    """Entries whose names differ in one number only, by that number."""
    groups: dict[tuple[int, ...], list[tuple[int, Entry]]] = {}
    for entry in entries:
        found = numbers(entry.key)
        groups.setdefault(found[:place] + found[place + 1 :], []).append((found[place], entry))
    return [[entry for _, entry in sorted(group, key=lambda one: one[0])] for group in groups.values()]


def _are_heads(groups: Sequence[Sequence[Entry]], sizes: set[tuple[int, int]]) -> bool:
    """Has every group as many members of one shape as a stage of their size has heads?"""
    counts = {len(group) for group in groups}
    return len(counts) == 1 and all(
        len(group) > 1
        and len({entry.shape for entry in group}) == 1
        and (len(group), len(group) * group[0].elements) in sizes
        for group in groups
    )


def _is_told(groups: Sequence[Sequence[Entry]], stages: Mapping[str, Entry], table: StageTable) -> bool:
    """Has one of the groups the values of a stage, or is none of its members as large as one alone?"""
    with_heads = [s for s in stages.values() if "H" in axis_names(table.shape(s.name), s.shape)]
    for group in groups:
        stacked = torch.stack([entry.stored for entry in group])
        for stage in with_heads:
            if stage.elements == stacked.numel() and stage.sampled is None:
                fit = arranged(stage.stored, stacked, axis_names(table.shape(stage.name), stage.shape))
                if fit is not None and not fit.is_part and relative(stage.stored, fit.values) <= EQUAL:
                    return True
    alone = {stage.elements for stage in with_heads}
    return not any(group[0].elements in alone for group in groups)


def _without(key: str, place: int) -> str:
    """A key without one of its numbers."""
    pieces = re.split(r"(\d+)", key)
    del pieces[2 * place + 1]
    return "".join(pieces)
