"""Pieces -> segments that fit the model, by the original's own rules.

Pieces gather in a stretch. After each piece the first rule that applies closes it: a comma re-splits the
stretch at commas, a hyphen at hyphens, an end mark closes it within the limit, and beyond the limit it is
cut by length. Neighbours are joined again where the sum fits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

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
