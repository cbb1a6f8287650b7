"""Which chapters and paragraphs of a book are read."""

from __future__ import annotations

from collections.abc import Sequence

from sonant.books.document import Chapter
from sonant.errors import RequestError


def pick_chapters(
    chapters: Sequence[Chapter], chosen: str | None, *, everything: bool = False
) -> list[tuple[int, Chapter]]:
    """Chapters by number from 1: those of "1,3-5", else the body, else all. Raises RequestError."""
    numbered = list(enumerate(chapters, 1))
    if chosen is None:
        return [(n, c) for n, c in numbered if everything or c.part == "body"] or numbered
    wanted: set[int] = set()
    for part in chosen.split(","):
        numbers = range_of(part, "chapters") or range(0)
        last = numbers.start if part.strip().endswith("-") else numbers.stop - 1
        if last > len(numbered):
            raise RequestError(
                f"there is no chapter {last}; the book has {len(numbered)} (sonant read BOOK --list).",
                field="chapters",
            )
        wanted |= set(range(numbers.start, min(numbers.stop, len(numbered) + 1)))
    return [(n, c) for n, c in numbered if n in wanted]


def range_of(text: str | None, name: str) -> range | None:
    """Numbers of "3", "2-5" or "4-"; None of nothing. Raises RequestError naming the setting."""
    if text is None:
        return None
    first, dash, last = text.strip().partition("-")
    try:
        start = int(first)
        stop = (int(last) if last.strip() else 10**9) if dash else start
    except ValueError:
        start = stop = 0
    if start < 1 or stop < start:
        raise RequestError(
            f"{name} {text!r} is no range; expected numbers from 1 such as 3 or 2-5.", field=name
        )
    return range(start, stop + 1)
