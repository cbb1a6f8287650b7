"""The driver of conformance kits: what is computed meets what is recorded, by the rows of a data file.

A row of `FAMILY.toml` is a key of the recording, the name of what is found ("=" for the same name, nothing
where code checks it), a tolerance and how the two fit. In both names `{n}` and `{m}` stand for numbers, `{x}`
for anything, other words in braces for small letters. A tolerance is one of `[limits]`, or "exact". How they
fit, several words at will:

    head, tail   the recording holds the first or the last entries of the last axis
    rows         ... of the axis before it
    turned       the last two axes are swapped
    share        the tolerance is a share of the largest recorded value
    scaled       both are divided by the largest recorded value where that is above 1
    finite       minus infinity is recorded as a large negative number; what is removed must agree exactly

A batch axis of one is added or dropped as the recording has it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.nn.tap import tapped
from sonant.parity.kit import KitReport, RecordedFiles

PLACEHOLDERS = {"n": r"\d+", "m": r"\d+", "x": r"[\w.]+"}
NEVER = -1e30
"""At or below it a recorded score stands for minus infinity."""


@dataclass(frozen=True)
class Row:
    """One kind of recorded tensor, and what it is compared with."""

    key: re.Pattern[str]
    found: str
    limit: float | None
    """None: everything equal, as whole numbers are."""
    fit: frozenset[str]


class Kit:
    """One kit's folder, its recordings, the rows of its family, and the report."""

    def __init__(
        self,
        folder: Path,
        recordings: Path,
        report: KitReport,
        family: str,
        *,
        pattern: str = "**/*.safetensors",
    ) -> None:
        self.folder = folder
        self.report = report
        self.files = RecordedFiles(recordings, pattern)
        text = files(__package__).joinpath(f"{family}.toml").read_text(encoding="utf-8")
        self.data: dict[str, Any] = tomllib.loads(text)
        """The whole data file: its other tables are what the family's own module makes of them."""
        self.limits: dict[str, float] = self.data["limits"]
        self.rows = {group: [self._row(*row) for row in rows] for group, rows in self.data["rows"].items()}

    def _row(self, key: str, found: str, limit: str, fit: str = "") -> Row:
        parts = re.split(r"\{(\w+)\}", key)
        for place in range(1, len(parts), 2):
            parts[place] = f"(?P<{parts[place]}>{PLACEHOLDERS.get(parts[place], '[a-z_]+')})"
        parts[::2] = map(re.escape, parts[::2])
        allowed = None if limit == "exact" else self.limits[limit]
        return Row(re.compile("".join(parts)), found, allowed, frozenset(fit.split()))

    def json(self, name: str) -> Any:
        """Data of a JSON file among the recordings; None without it."""
        path = self.files.folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def compare(
        self,
        group: str,
        case: str,
        recorded: Mapping[str, Any],
        found: Mapping[str, Any],
        *,
        prefix: str = "",
        title: str = "{}",
        cut: int = 0,
        is_partial: bool = False,
        exact: Callable[[], Mapping[str, Any]] | None = None,
    ) -> set[str]:
        """Check each recorded value that a row of `group` knows, in the order of `found`; gives their keys.

        `prefix` stands before the keys in the recording; `title` is how the report names what is left of
        them; the first `cut` entries of axis 1 are recorded and never computed here. A value that should be
        there and was not computed is a failure, unless this is a partial check of the group. `exact` gives
        what is found in float64, for what is at the edge of its tolerance.
        """
        exact = cache(exact) if exact is not None else None
        places = {name: place for place, name in enumerate(found)}
        known: list[tuple[int, str, str, Row]] = []
        for key in recorded:
            short = key.removeprefix(prefix)
            for row in self.rows[group] if key.startswith(prefix) else ():
                if match := row.key.fullmatch(short):
                    name = short if row.found == "=" else row.found.format(**match.groupdict())
                    if name:
                        known.append((places.get(name, len(places)), key, name, row))
                    break
        for place, key, name, row in sorted(known, key=lambda entry: entry[0]):
            check = title.format(key.removeprefix(prefix))
            if place < len(places):
                expected = recorded[key][:, cut:] if cut else recorded[key]
                self._meet(case, check, name, found, expected, row, exact)
            elif not is_partial:
                self.report.check(case, check, False, f"{name!r} was not computed")
        return {key for _, key, _, _ in known}

    def _meet(
        self,
        case: str,
        title: str,
        name: str,
        made: Mapping[str, Any],
        expected: Any,
        row: Row,
        exact: Callable[[], Mapping[str, Any]] | None,
    ) -> None:
        found, limit = _fitted(made[name], expected, row.fit), row.limit
        if "finite" in row.fit and found.shape == expected.shape:
            kept = expected > NEVER
            self.report.equal(case, f"{title} removed", found <= NEVER, ~kept)
            found, expected = found[kept], expected[kept]
        largest = float(expected.abs().max()) if row.fit & {"share", "scaled"} else 1.0
        if "scaled" in row.fit and largest > 1.0:
            found, expected = found / largest, expected / largest
        if limit is None:
            self.report.equal(case, title, found, expected)
        else:
            allowed = limit * largest if "share" in row.fit else limit
            again = None
            if exact is not None and not row.fit & {"finite", "scaled"}:
                again = partial(_exactly, exact, name, expected, row.fit)
            self.report.close(case, title, found, expected, allowed, again)


def _exactly(exact: Callable[[], Mapping[str, Any]], name: str, expected: Any, fit: frozenset[str]) -> Any:
    """What float64 gives in the recording's layout; None of a stage that is not computed in it."""
    made = exact()
    return _fitted(made[name], expected, fit) if name in made else None


def _fitted(found: Any, expected: Any, fit: frozenset[str]) -> Any:
    """`found` in the recording's layout, as far as its row allows; of several times the first one."""
    found = found[0] if isinstance(found, Taken) else found
    if not isinstance(expected, Tensor) or not isinstance(found, Tensor):
        return found
    if "turned" in fit and found.ndim > 1:
        found = found.mT
    while found.ndim < expected.ndim:
        found = found[None]
    while found.ndim > expected.ndim and found.shape[0] == 1:
        found = found[0]
    axis = -2 if "rows" in fit else -1
    if fit & {"head", "tail"} and found.ndim == expected.ndim:
        left = max(0, found.shape[axis] - expected.shape[axis])
        found = found.narrow(axis, left if "tail" in fit else 0, found.shape[axis] - left)
    return found


class Taken(list[Tensor]):
    """The tensors of one tapped name, in order of time."""


@contextmanager
def watched() -> Iterator[dict[str, Taken]]:
    """Everything tapped inside the block, by name in the order of computation."""
    seen: dict[str, Taken] = {}

    def sink(name: str, tensor: Tensor) -> None:
        seen.setdefault(name, Taken()).append(tensor.detach().clone())

    with tapped(sink), torch.inference_mode():
        yield seen
