"""What a stage was computed from: the nearest compared stages, and what lies between and was not compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from sonant.parity.reference.tracefile import split_key
from sonant.parity.stages.table import StageTable, pattern_of
from sonant.parity.trace import Entry, Trace, stored_pair

CACHED = ("key", "c_attn")
"""Last words of stages that later steps attend to as well, from the last pass of several positions on."""


class Origins:
    """The stages of two traces as they are passed, in the order of computation."""

    def __init__(self, reference: Trace, other: Trace, table: StageTable, order: Trace) -> None:
        self.reference, self.other, self.table = reference, other, table
        self.is_any_layout = reference.is_foreign or other.is_foreign
        self.are_complete = not any(
            trace.is_foreign or trace.metadata.get("stages", "*") != "*" for trace in (reference, other)
        )
        self._known = {e.name for trace in (reference, other) for e in trace.entries}
        # What only the other trace has, has no place in this order: it counts as passed.
        self._passed = {e.name for e in other.entries} - {e.name for e in order.entries}
        self._last: dict[str, str] = {}
        """The latest compared key of each name."""
        self._latest: dict[str, str] = {}
        """The latest key of each name in the order of computation, compared or not."""
        self._previous = ""

    def compared(self, entry: Entry) -> None:
        """An entry that both traces hold was passed."""
        self._previous = entry.key
        self.counted(entry)

    def counted(self, entry: Entry) -> None:
        """An entry was passed that counts as compared, though one of the traces lacks it."""
        self._last[entry.name] = entry.key
        self.passed(entry)

    def passed(self, entry: Entry) -> None:
        """An entry was passed."""
        self._latest[entry.name] = entry.key
        self._passed.add(entry.name)

    def inputs(self, entry: Entry) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
                    latest = _latest(name, self._latest)
                    if not latest and not self.are_complete and is_direct:
                        between.append(name)
                    visit(latest, is_direct)
                elif name in self._last and (self._last[name] == self._latest[name] or self._is_uneven(name)):
                    found.append(self._last[name])
                elif same := self._same_tensor(name):
                    found.append(same)
                else:
                    # What was compared of an earlier pass only says nothing of this one.
                    if is_direct and (name in self._passed or self._may_be(name, entry)):
                        between.append(self._latest.get(name, name))
                    visit(self.table.inputs(name) or (), False)

        inputs = self.table.inputs(entry.name)
        if inputs is None and self.reference.is_foreign and self.other.is_foreign:
            return (), ()  # the order of a file is not the order of computation
        if inputs is None:
            return ((self._previous,) if self._previous else ()), ()
        visit(inputs, True)
        return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(between))

    def _same_tensor(self, name: str) -> str:
        """The compared stage that an input of a layer, which was not compared, is handed on from; else ""."""
        given = self.reference.by_key.get(self._latest.get(name, ""))
        if given is None or not self.is_any_layout or not name.endswith(".in"):
            return ""
        for source in self.table.inputs(name) or ():
            entry = self.reference.by_key.get(self._last.get(source, ""))
            is_same_pass = entry is not None and entry.key == self._latest[source]
            if entry is not None and is_same_pass and torch.equal(*stored_pair(entry, given)):
                return entry.key
        return ""

    def _is_uneven(self, name: str) -> bool:
        """A draw of two of Sonant's or the recorders' runs: where one drew less often, nothing is missing."""
        return self.table.kind(name) == "draw" and not self.is_any_layout

    def remembered(self, inputs: Iterable[str]) -> tuple[str, ...]:
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
        if self.are_complete or is_given or name in self._known or name == entry.name:
            return False
        # What is computed from a later stage is so from the second time on.
        return entry.occurrence > 0 or self.table.place(name) < self.table.place(entry.name)


def _latest(template: str, last: Mapping[str, str]) -> list[str]:
    """The last of the names that a template fits."""
    pattern = pattern_of(template)
    return [name for name in last if pattern.fullmatch(name)][-1:]
