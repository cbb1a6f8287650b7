"""Marks a user may put into text: pause tags and a glossary of respelled words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

LONGEST_PAUSE = 60.0
"""Seconds; longer pause tags are shortened to this."""

_PAUSE = re.compile(r"\[pause:\s*(\d{1,6}(?:\.\d{1,6})?)\s*(ms|s)?\s*\]", re.IGNORECASE)


def split_pauses(text: str) -> Iterator[tuple[str, float]]:
    """Text between tags such as `[pause:1.5s]` or `[pause:300ms]`, each with the seconds that follow it."""
    start = 0
    for tag in _PAUSE.finditer(text):
        seconds = float(tag[1]) / (1000.0 if (tag[2] or "").lower() == "ms" else 1.0)
        yield text[start : tag.start()], min(seconds, LONGEST_PAUSE)
        start = tag.end()
    yield text[start:], 0.0


def apply_glossary(text: str, glossary: Mapping[str, str]) -> str:
    """Text with every whole-word occurrence of a glossary term respelled, longest term first."""
    terms = sorted((term for term in glossary if term), key=len, reverse=True)
    if not terms:
        return text
    pattern = "|".join(
        (r"(?<!\w)" if t[0].isalnum() else "") + re.escape(t) + (r"(?!\w)" if t[-1].isalnum() else "")
        for t in terms
    )
    lowered = {term.lower(): spoken for term, spoken in glossary.items()}
    return re.sub(pattern, lambda hit: lowered[hit[0].lower()], text, flags=re.IGNORECASE)
