"""What a third-party front end is given at most: its rules were written for prose, and some are quadratic.

Digit runs beyond what its number words know are read digit by digit; a word longer than any word gets blanks;
a sentence longer than any sentence is cut between words. Ordinary prose passes unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sonant.text.markup import PRONUNCIATION, PRONUNCIATION_PATTERN

LONGEST_NUMBER = 33
"""Digits. Source: hibari names powers of a thousand up to 10^33, and fails beyond."""
LONGEST_WORD = 48
"""Characters. English dictionaries end at 45; time grows with the cube of a word's length."""
LONGEST_SENTENCE = 600
"""Characters; time grows with the square of a sentence's length."""
_NUMBER = re.compile(rf"\d(?:[,.' \u00a0]?\d){{{LONGEST_NUMBER},}}")
_WORD = re.compile(rf"{PRONUNCIATION_PATTERN}|\S{{{LONGEST_WORD + 1},}}")
_CUT = re.compile(rf"\S.{{0,{LONGEST_SENTENCE - 1}}}(?:(?=\s)|$)|\S{{1,{LONGEST_SENTENCE}}}", re.DOTALL)


def within_bounds(sentence: str) -> Iterator[str]:
    """The sentence in pieces that a front end reads in a bounded time without failing; usually itself."""
    if len(sentence) > LONGEST_NUMBER:
        sentence = _NUMBER.sub(
            lambda run: " ".join(letter for letter in run[0] if letter.isdigit()), sentence
        )
        sentence = _WORD.sub(_with_blanks, sentence)
    if len(sentence) <= LONGEST_SENTENCE:
        yield sentence
        return
    yield from (piece[0].strip() for piece in _CUT.finditer(sentence))


def _with_blanks(word: re.Match[str]) -> str:
    if PRONUNCIATION.fullmatch(word[0]):
        return word[0]
    return " ".join(word[0][start : start + LONGEST_WORD] for start in range(0, len(word[0]), LONGEST_WORD))
