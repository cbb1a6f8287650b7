"""Which part of a prompt a position belongs to: role, language tag, speaker, text, clip.

Told from what a trace records of itself (lengths of ids, the request), so that it works for any port that
is compared with it. A family's module here has LAYOUTS: for each stage that holds a prompt's vectors, a
function that gives its parts in order, words and how many positions each has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from sonant.catalogue.registry import having
from sonant.parity.trace import Entry, Trace

Layout = Callable[[Trace, Entry], list[tuple[str, int]]]


@cache
def layouts(family: str) -> Mapping[str, Layout]:
    """Layouts by stage; none for a family that tells of none."""
    if family not in having(__name__, "{}.py"):
        return {}
    found: Mapping[str, Layout] = import_module(f"{__name__}.{family}").LAYOUTS
    return found


def part_of(trace: Trace, entry: Entry, position: int, family: str) -> tuple[str, int]:
    """Words for one position of a prompt's vectors, and how many positions they are for; "" if unknown."""
    layout = layouts(family).get(entry.name)
    at = 0
    for words, length in layout(trace, entry) if layout is not None else ():
        if at <= position < at + length:
            return words, length
        at += length
    return "", 0
