"""When each word of a sentence is said: a small aligner that needs the sound and the text, and no model.

    samples [S], text -> stretches of speech between pauses -> words shared out over them -> times

Pauses are where the sound is quiet; words are parted over the stretches so that each gets about its share of
the time by its length, and so that a pause falls after punctuation where it can. Inside a stretch words take
time by their length. Measured on 30 sentences of the built-in voice against a recogniser's word times: see
docs/server.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import regex

Samples = npt.NDArray[np.float32]

FRAME_SECONDS = 0.01
QUIET_BELOW_PEAK = 35.0
"""dB below the loudest frames that count as quiet."""
FLOOR = -60.0
"""dB below full scale that are quiet whatever the rest is like."""
SHORTEST_PAUSE = 0.09
"""Seconds; the closure of a plosive is shorter."""
_WIDE = r"\p{Han}|\p{Hiragana}|\p{Katakana}"
_WORD = regex.compile(
    rf"(?:{_WIDE})|(?:(?!{_WIDE})[\p{{L}}\p{{M}}\p{{N}}])(?:(?!{_WIDE})[\p{{L}}\p{{M}}\p{{N}}'’.,:%-]*(?!{_WIDE})[\p{{L}}\p{{M}}\p{{N}}%])?"
)
_DIGIT_LETTERS = 3.5
"""How many letters a digit is read as, about."""
_WORD_LETTERS = 1.6
"""What every word takes beyond its letters, in letters."""
_PAUSE_MARKS = frozenset(",;:.!?…—–()，。！？；：、")
_NOT_AT_A_MARK = 0.12
"""Seconds of misfit that a pause at a place without punctuation costs."""


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text, and when it is said, in seconds."""

    text: str
    start: float
    end: float
    first: int
    """Position of its first character in the text."""


def word_times(samples: Samples, sample_rate: int, text: str) -> list[Word]:
    """When the words of `text` are said in `samples` [S]; none where there is no word or no sound."""
    found = [(match[0], match.start(), match.end()) for match in _WORD.finditer(text)]
    stretches = speech(samples, sample_rate)
    if not found or not stretches:
        return []
    weights = [_weight(word) for word, _, _ in found]
    pauses_after = [
        bool(_PAUSE_MARKS & set(text[end : found[index + 1][1]])) if index + 1 < len(found) else True
        for index, (_, _, end) in enumerate(found)
    ]
    stretches = _fewer(stretches, len(found))
    words: list[Word] = []
    begin = 0
    for (start, end), count in zip(stretches, _shared_out(weights, pauses_after, stretches), strict=True):
        group = range(begin, begin + count)
        whole = sum(weights[index] for index in group)
        at = start
        for index in group:
            until = at + (end - start) * weights[index] / whole
            words.append(Word(found[index][0], round(at, 3), round(until, 3), found[index][1]))
            at = until
        begin += count
    return words


def speech(samples: Samples, sample_rate: int) -> list[tuple[float, float]]:
    """Stretches of sound between pauses, in seconds."""
    size = max(1, round(sample_rate * FRAME_SECONDS))
    count = len(samples) // size
    if not count:
        return []
    frames = np.asarray(samples[: count * size], dtype=np.float64).reshape(count, size)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    loud = level > max(FLOOR, float(np.percentile(level, 95)) - QUIET_BELOW_PEAK)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], loud.astype(np.int8), [0]))))
    runs = [
        (int(a) * size / sample_rate, int(b) * size / sample_rate)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]
    joined: list[tuple[float, float]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] < SHORTEST_PAUSE:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _weight(word: str) -> float:
    letters = sum(_DIGIT_LETTERS if letter.isdigit() else 1.0 for letter in word if letter.isalnum())
    return (letters * 2.5 if regex.match(_WIDE, word) else letters) + _WORD_LETTERS


def _fewer(stretches: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many stretches: the shortest pauses are no pauses then."""
    kept = list(stretches)
    while len(kept) > most:
        gaps = [after[0] - before[1] for before, after in pairwise(kept)]
        index = gaps.index(min(gaps))
        kept[index : index + 2] = [(kept[index][0], kept[index + 1][1])]
    return kept


def _shared_out(
    weights: Sequence[float], pauses_after: Sequence[bool], stretches: Sequence[tuple[float, float]]
) -> list[int]:
    """How many words each stretch holds: every one at least one word, with the least misfit in seconds."""
    seconds = [end - start for start, end in stretches]
    pace = sum(seconds) / sum(weights)
    sums = np.concatenate(([0.0], np.cumsum(weights)))
    words, parts = len(weights), len(seconds)
    cost = np.full((parts + 1, words + 1), np.inf)
    came = np.zeros((parts + 1, words + 1), dtype=np.int64)
    cost[0, 0] = 0.0
    penalty = np.array([0.0, *(0.0 if pause else _NOT_AT_A_MARK for pause in pauses_after)])
    for part in range(1, parts + 1):
        for last in range(part, words - (parts - part) + 1):
            misfit = np.abs((sums[last] - sums[part - 1 : last]) * pace - seconds[part - 1])
            total = cost[part - 1, part - 1 : last] + misfit
            best = int(np.argmin(total))
            cost[part, last] = total[best] + (penalty[last] if last < words else 0.0)
            came[part, last] = part - 1 + best
    counts = []
    last = words
    for part in range(parts, 0, -1):
        counts.append(last - int(came[part, last]))
        last = int(came[part, last])
    return counts[::-1]
