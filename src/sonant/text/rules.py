"""Reading rules: at each place where something must be read out, the first rule that applies says how.

A rule is a name, a pattern that is tried at one place only, and a function from what it found to words.
Nothing is scanned twice, so a text takes time in proportion to its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import regex

Match: TypeAlias = Any
"""A `regex.Match[str]`; the package has no types."""
Read = Callable[[Match], "str | None"]


@dataclass(frozen=True)
class Rule:
    """What is read out by one rule. `read` gives None where it does not apply after all."""

    name: str
    written: str
    """Its pattern."""
    read: Read
    starts: str
    """Where it may begin: any of "d" (a digit), "l" (a word), "s" (another sign)."""
    ignore_case: bool = False

    @cached_property
    def pattern(self) -> regex.Pattern[str]:
        """Compiled when it is first tried: of a hundred rules, a text without digits tries the fewest."""
        return regex.compile(self.written, regex.IGNORECASE if self.ignore_case else 0)


@dataclass(frozen=True)
class Change:
    """One stretch of text and what is spoken instead."""

    rule: str
    written: str
    spoken: str


LONGEST = 300
"""Characters that a rule may see ahead. Without a bound each try looks through the whole rest of the text."""

_PLACE = regex.compile(
    r"(?P<d>\p{Nd})|(?P<l>(?<![[\p{L}--[\p{Han}\p{Hiragana}\p{Katakana}]]\p{M}\p{N}_'’])"
    r"[\p{L}--[\p{Han}\p{Hiragana}\p{Katakana}]])|(?P<s>[^\p{L}\p{M}\p{Nd}\s,;!?\"”“])",
    regex.VERSION1,
)
_WORD_REST = regex.compile(r"[\p{L}\p{M}]++")
_DIGITS_REST = regex.compile(r"\p{Nd}++")


class Rules:
    """Rules of one language in their order."""

    def __init__(self, rules: Iterable[Rule], *, gap: str = " ") -> None:
        self._gap = gap
        self._by_start: dict[str, list[Rule]] = {"d": [], "l": [], "s": []}
        for rule in rules:
            for start in rule.starts:
                self._by_start[start].append(rule)

    def read(self, text: str, begin: int = 0, end: int | None = None) -> tuple[str, list[Change]]:
        """`text[begin:end]` as it is read aloud, and what was changed in it; its surroundings are seen."""
        end = len(text) if end is None else end
        out: list[str] = []
        changes: list[Change] = []
        kept = place = begin
        while (found := _PLACE.search(text, place, end)) is not None:
            start = found.start()
            kind = found.lastgroup or "s"
            ahead = min(end, start + LONGEST)
            for rule in self._by_start[kind]:
                hit = rule.pattern.match(text, start, ahead)
                if hit is None or hit.end() == start:
                    continue
                spoken = rule.read(hit)
                if spoken is None:
                    continue
                out.append(text[kept:start])
                out.append(self._spaced(spoken, out, text[hit.end() : hit.end() + 1]))
                changes.append(Change(rule.name, hit[0], spoken))
                kept = place = hit.end()
                break
            else:
                rest = {"l": _WORD_REST, "d": _DIGITS_REST}.get(kind)
                run = rest.match(text, start, end) if rest else None
                place = run.end() if run else start + 1
        out.append(text[kept:end])
        return "".join(out), changes

    def _spaced(self, spoken: str, out: list[str], after: str) -> str:
        """The words with a gap towards letters that touch them."""
        before = next((part[-1] for part in reversed(out) if part), "")
        left = self._gap if before and spoken[:1].isalnum() and _is_letter(before) else ""
        right = self._gap if after and spoken[-1:].isalnum() and _is_letter(after) else ""
        return left + spoken + right


def _is_letter(character: str) -> bool:
    """Whether a word that touches this character would run into it; East Asian ones stand without blanks."""
    return character.isalnum() and not is_east(character)


def is_east(character: str) -> bool:
    """Whether the character is of a writing without blanks between words."""
    return "\u2e80" <= character <= "\ua4cf" or "\uf900" <= character <= "\ufaff" or character >= "\U00020000"
