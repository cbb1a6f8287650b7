"""Pieces or text -> segments that fit the model, by the originals' own rules.

IndexTTS2 cuts pieces of its vocabulary. They gather in a stretch. After each piece the first rule that
applies closes it: a comma re-splits the stretch at commas, a hyphen at hyphens, an end mark closes it within
the limit, and beyond the limit it is cut by length. Neighbours are joined again where the sum fits.
IndexTTS-2.5 cuts the text, at more marks, and counts what its vocabulary makes of it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

END_MARKS = (".", "!", "?", "▁.", "▁?", "▁...")
COMMAS = (",", "▁,")
HYPHENS = ("-",)
QUOTES = ("'", "▁'")

_log = logging.getLogger(__name__)


def split_segments(
    pieces: Sequence[str], limit: int, *, quick: int = 0, marks: Sequence[str] = END_MARKS
) -> list[list[str]]:
    """Segments of at most `limit` pieces. With `quick` the first `quick` pieces are joined less eagerly."""
    parts: list[list[str]] = []
    stretch: list[str] = []
    length = 0  # Parity: a quote pulled in from ahead is not counted
    for index, piece in enumerate(pieces):
        stretch.append(piece)
        length += 1
        splitter = _resplit(stretch, marks)
        if splitter is not None:
            parts.extend(split_segments(stretch, limit, quick=quick, marks=splitter))
        elif length <= limit:
            if piece not in marks or length <= 2:
                continue
            if index + 1 < len(pieces) and pieces[index + 1] in QUOTES:
                stretch.append(pieces[index + 1])  # Parity: the quote also opens the next stretch
            parts.append(stretch)
        else:
            parts.extend(stretch[start : start + limit] for start in range(0, len(stretch), limit))
            _log.warning(
                "a stretch of %d text pieces has no mark to split at; cut at %d: %s",
                len(stretch),
                limit,
                "".join(stretch),
            )
        stretch, length = [], 0
    if stretch:
        parts.append(stretch)
    return _join(parts, limit, quick)


def _resplit(stretch: Sequence[str], marks: Sequence[str]) -> Sequence[str] | None:
    """The finer marks at which this stretch should be split at once, or None."""
    if not any(mark in marks for mark in COMMAS) and any(mark in stretch for mark in COMMAS):
        return COMMAS
    if "-" not in marks and "-" in stretch:
        return HYPHENS
    return None


def _join(parts: Sequence[list[str]], limit: int, quick: int) -> list[list[str]]:
    joined: list[list[str]] = []
    seen = 0
    for part in parts:
        if not part:
            continue
        seen += len(part)
        together = len(joined[-1]) + len(part) if joined else 0
        if joined and ((together <= limit and seen > quick) or together <= limit / 2):
            joined[-1] = joined[-1] + part
        else:
            joined.append(part)
    return joined


# IndexTTS-2.5's marks; no Arabic ones. Source: the original.
_AFTER_MARK = re.compile(r"(?<=[，。！？、；：,.!?;:\n])")
_PRONUNCIATION = re.compile(r"<\|SPECIAL_TOKEN_\d+\|>.*?<\|SPECIAL_TOKEN_\d+\|>")


def split_by_tokens(text: str, budget: int, count: Callable[[str], int]) -> list[str]:
    """Stretches of `text` that `count` to at most `budget` tokens; joined they are the text.

    Cut at marks, where that is not enough between any two characters, and never inside an annotated
    pronunciation, which may therefore be longer than the budget.
    """
    if count(text) <= budget:
        return [text]
    return list(_gathered(_atoms(text, budget, count), lambda joined: count(joined) <= budget))


def split_by_punctuation(text: str, most: int) -> list[str]:
    """Stretches of at most `most` characters that end at marks; one without marks may be longer."""
    return list(_gathered(_AFTER_MARK.split(text), lambda joined: len(joined) <= most))


def _gathered(parts: Iterable[str], fits: Callable[[str], bool]) -> Iterator[str]:
    """Neighbours joined as long as they fit together."""
    current = ""
    for part in parts:
        if current and not fits(current + part):
            yield current
            current = part
        else:
            current += part
    if current:
        yield current


def _atoms(text: str, budget: int, count: Callable[[str], int]) -> Iterator[str]:
    """Annotated pronunciations whole, and between them what ends at a mark or fits by its characters."""
    start = 0
    for found in (*_PRONUNCIATION.finditer(text), None):
        end = len(text) if found is None else found.start()
        for part in _AFTER_MARK.split(text[start:end]):
            if count(part) <= budget:
                yield part
            else:
                yield from _gathered(part, lambda joined: count(joined) <= budget)
        if found is not None:
            yield found[0]
            start = found.end()
