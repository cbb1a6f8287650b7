"""What a documented stage is, and the table of a family: names in the order of computation and their inputs.

A name may hold placeholders for numbers, "talker.layer.{layer}.query". An input may refer to a smaller
number, "talker.layer.{layer-1}.mlp"; where that falls below 0, `first` applies instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

PARTS = ("voice", "prompt", "decode", "audio")
"""Reference encoder, prompt building, the autoregressive half, tokens to waveform."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REFERENCE = re.compile(r"\{(\w+)(-\d+)?\}")
_SEGMENT = re.compile(r"(segment\.\d+\.)?(call\.\d+\.)?")


@cache
def pattern_of(template: str) -> re.Pattern[str]:
    """A name with placeholders as a regex with one named group for each."""
    parts = _PLACEHOLDER.split(template)
    text = "".join(
        re.escape(part) if index % 2 == 0 else rf"(?P<{part}>\d+)" for index, part in enumerate(parts)
    )
    return re.compile(text)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One documented stage; `inputs` are the documented stages it is computed from."""

    name: str
    shape: str
    what: str
    part: str
    inputs: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    """Inputs where one of `inputs` would have a number below 0."""
    kind: str = "stage"
    """"stage", "token" (a discrete decision that decoding goes on from), "draw" or "input"."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The name as a regex with one named group for each placeholder."""
        return pattern_of(self.name)


class StageTable:
    """The stages of one family; `token` names the stage whose occurrences count the decoding steps.

    `pieces` names the stage from which on a signal may be computed in pieces, one occurrence each. `frame`
    names the stage that is computed once for each step that was carried out, where a last token may be
    drawn and not be used; the token itself where that cannot be. `beams` names the stage that has a value for
    each beam, where there are any; `set_by_model` the sampling settings that are on where a request has none.
    """

    def __init__(
        self,
        family: str,
        stages: Sequence[Stage],
        *,
        token: str = "",
        frame: str = "",
        pieces: str = "",
        beams: str = "",
        set_by_model: Sequence[str] = (),
    ) -> None:
        self.family = family
        self.stages = tuple(stages)
        self.token = token
        self.frame = frame or token
        self.pieces = pieces
        self.beams = beams
        self.set_by_model = tuple(set_by_model)
        self._plain = {stage.name: (index, stage) for index, stage in enumerate(stages)}
        self._loops: dict[str, int] = {}
        """Where each loop over a placeholder begins, by the name up to it."""
        for index, stage in enumerate(stages):
            for match in _PLACEHOLDER.finditer(stage.name):
                self._loops.setdefault(stage.name[: match.end()], index)
        self._found: dict[str, tuple[int, Stage, dict[str, int]] | None] = {}

    def find(self, name: str) -> tuple[int, Stage, dict[str, int]] | None:
        """Place in the order, stage and numbers of a recorded name; None when it is not documented."""
        if name not in self._found:
            self._found[name] = self._search(_SEGMENT.sub("", name, count=1))
        return self._found[name]

    def _search(self, name: str) -> tuple[int, Stage, dict[str, int]] | None:
        if name in self._plain:
            index, stage = self._plain[name]
            return index, stage, {}
        for index, stage in enumerate(self.stages):
            match = stage.pattern.fullmatch(name) if "{" in stage.name else None
            if match:
                return index, stage, {key: int(value) for key, value in match.groupdict().items()}
        return None

    def place(self, name: str) -> tuple[int, ...]:
        """Sorts recorded names of one pass in the order of computation: a layer is whole before the next."""
        found = self.find(name)
        if found is None:
            return (len(PARTS),)
        index, stage, numbers = found
        loops: list[int] = []
        for match in _PLACEHOLDER.finditer(stage.name):
            loops += (self._loops[stage.name[: match.end()]], numbers[match.group(1)])
        return (PARTS.index(stage.part), *loops, index)

    def pattern_of(self, name: str) -> str:
        """The documented name with its placeholders, or the name itself."""
        found = self.find(name)
        return found[1].name if found else name

    def kind(self, name: str) -> str:
        """The kind of a recorded name; undocumented names say it themselves by their first word."""
        found = self.find(name)
        if found:
            return found[1].kind
        head = name.split(".", 1)[0]
        return head if head in {"input", "draw"} else "stage"

    def shape(self, name: str) -> str:
        """The documented shape of a recorded name, such as "[B, T, C]"; "" when there is none."""
        found = self.find(name)
        return found[1].shape if found else ""

    def in_pieces(self, name: str) -> bool:
        """May occurrences of `name` be pieces of one signal?"""
        found, start = self.find(name), self.find(self.pieces) if self.pieces else None
        if found is None or start is None or name.startswith("output."):
            return False
        return found[0] >= start[0]

    def inputs(self, name: str) -> tuple[str, ...] | None:
        """Names of the stages that `name` is computed from; None when that is not documented."""
        found = self.find(name)
        if found is None:
            return None
        _, stage, numbers = found
        match = _SEGMENT.match(name)
        prefix = match.group() if match else ""
        resolved = [resolve(edge, numbers) for edge in stage.inputs]
        if any(edge is None for edge in resolved) and stage.first:
            resolved = [resolve(edge, numbers) for edge in stage.first]
        return tuple(prefix + edge for edge in resolved if edge is not None)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)


def resolve(edge: str, numbers: Mapping[str, int]) -> str | None:
    """`edge` with the known placeholders filled in; None when a number would be below 0."""
    is_negative = False

    def fill(match: re.Match[str]) -> str:
        nonlocal is_negative
        if match.group(1) not in numbers:
            return match.group()
        value = numbers[match.group(1)] + int(match.group(2) or 0)
        is_negative = is_negative or value < 0
        return str(value)

    filled = _REFERENCE.sub(fill, edge)
    return None if is_negative else filled


def read_table(family: str, data: Mapping[str, Any]) -> StageTable:
    """The table of a family from plain data: rows of each part, and what the table itself is told.

    A row is name, shape, what it is, its inputs, its first inputs, kind; both lists have spaces between.
    """
    stages = tuple(
        Stage(
            name=name,
            shape=shape,
            what=what,
            part=part,
            inputs=tuple(sources[0].split()) if sources else (),
            first=tuple(sources[1].split()) if len(sources) > 1 else (),
            kind=sources[2] if len(sources) > 2 else "stage",
        )
        for part in PARTS
        for name, shape, what, *sources in data.get(part, ())
    )
    return StageTable(family, stages, **{key: value for key, value in data.items() if key not in PARTS})
