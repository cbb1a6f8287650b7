"""Words and signs that a model which speaks given languages has no sound for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import regex

_SCRIPTS = {
    "chinese": r"\p{Han}\p{Bopomofo}",
    "japanese": r"\p{Han}\p{Hiragana}\p{Katakana}",
    "korean": r"\p{Hangul}\p{Han}",
    "russian": r"\p{Cyrillic}",
    "arabic": r"\p{Arabic}",
    "greek": r"\p{Greek}",
    "hebrew": r"\p{Hebrew}",
    "hindi": r"\p{Devanagari}",
    "thai": r"\p{Thai}",
    "ukrainian": r"\p{Cyrillic}",
}
"""Writing of the languages that are not written in Latin letters; those are read by every model."""
MOST_NAMED = 20
_SIGN = regex.compile(r"[\p{S}--[$+<=>^`|~´¨¯¸°€£¥]]", regex.VERSION1)


@lru_cache(maxsize=32)
def _outside(languages: tuple[str, ...]) -> regex.Pattern[str]:
    allowed = "".join({_SCRIPTS.get(name, "") for name in languages})
    return regex.compile(rf"[^\p{{Latin}}\p{{Common}}\p{{Inherited}}{allowed}]++")


def unspoken_words(text: str, languages: Sequence[str], *, signs: bool = True) -> tuple[str, ...]:
    """What of a text has no sound in any of the languages, each once and in order: words in another writing,
    and `signs` that no rule read. Without languages nothing is known, and nothing is told."""
    if not languages or text.isascii():
        return ()
    outside = _outside(tuple(name.lower() for name in languages))
    found = dict.fromkeys(match[0] for match in outside.finditer(text))
    if signs:
        found.update(dict.fromkeys(match[0] for match in _SIGN.finditer(text)))
    return tuple(found)


def has_speech(text: str, languages: Sequence[str]) -> bool:
    """Whether a letter or digit is left once what has no sound in the languages is taken away."""
    if text.isascii() or not languages:
        return any(character.isalnum() for character in text)
    rest = _outside(tuple(name.lower() for name in languages)).sub("", text)
    return any(character.isalnum() for character in rest)


def named(words: Iterable[str]) -> str:
    """The words as a list for a message, shortened."""
    words = list(words)
    more = f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else ""
    return ", ".join(word[:40] for word in words[:MOST_NAMED]) + more
