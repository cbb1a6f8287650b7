"""Do a transcript and what a recogniser heard say the same?"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+(?:['’][^\W_]+)*")
SHOWN = 6
"""Words of a difference that are quoted."""


@dataclass(frozen=True)
class Match:
    """How far two texts agree, word by word in order."""

    share: float
    """Twice the words in common over the words of both, 0 to 1."""
    longest: int
    """Words of the longest stretch that only one of them has."""
    missing: tuple[str, ...]
    """Words only the second has, the first few."""
    extra: tuple[str, ...]
    """Words only the first has, the first few."""


def words(text: str) -> list[str]:
    """Words in lower case without marks; each Chinese character, kana or hangul is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))


def compare_words(first: str, second: str) -> Match:
    """How far two texts agree; 1 where both are empty."""
    one, other = words(first), words(second)
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    extra: list[str] = []
    missing: list[str] = []
    longest = 0
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            extra += one[i:j]
            missing += other[k:m]
            longest = max(longest, j - i, m - k)
    share = matcher.ratio() if one or other else 1.0
    return Match(share, longest, tuple(missing[:SHOWN]), tuple(extra[:SHOWN]))
