"""Speech that has got stuck, told from its tokens and its samples while it is made.

    repeated_code     one token, or a cycle of less than PHRASE seconds, for LOOP seconds
    repeated_phrase   a cycle of PHRASE to LONGEST_CYCLE seconds, REPEATS times over and for LOOP seconds
    near_silence      nothing above QUIET for QUIET_SECONDS

The first two look at the first codebook of a frame's tokens, the third at the samples. What never ends is
stopped by its prompt's ceiling (`length_ceiling`). Only exact repetition counts: speech that is sampled does
not say the same tokens twice even where it says the same word, so ordinary speech stays far from these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sonant.request.audio import Samples

LOOP = 6.0
"""Seconds of repetition, the first time included, that count as stuck: a long held vowel lasts two."""
PHRASE = 0.4
LONGEST_CYCLE = 5.0
REPEATS = 4
QUIET = 1e-3
"""-60 dB of full scale."""
QUIET_SECONDS = 8.0
"""Longer than any pause inside a sentence; pauses between segments are not the model's."""
TRIES = 2
"""How often a segment that got stuck is spoken again, each time with a seed derived from its own."""


@dataclass(frozen=True)
class Stuck:
    """What was found, and how many frames of the segment are good: up to the end of the first time round."""

    kind: str
    good: int
    message: str


class LoopWatch:
    """Watches the tokens of one segment; `rate` is frames a second."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        longest = max(2, round(LONGEST_CYCLE * rate))
        self._past = np.full(longest, -1, dtype=np.int64)
        """The last tokens of the first codebook, the newest first."""
        self._periods = np.arange(1, longest + 1)
        self._equal = np.zeros(longest, dtype=np.int64)
        """For how many frames each token has equalled the one so many frames before it."""
        needed = np.maximum(self._periods * (REPEATS - 1), round(LOOP * rate) - self._periods)
        self._needed = np.maximum(needed, 1)
        self._frames = 0

    def push(self, tokens: Tensor) -> Stuck | None:
        """The next tokens [n, K]; what was found, once it has gone on for long enough."""
        for token in tokens[:, 0].tolist():
            self._equal = np.where(self._past == token, self._equal + 1, 0)
            self._past = np.concatenate(([token], self._past[:-1]))
            self._frames += 1
            found = np.flatnonzero(self._equal >= self._needed)
            if len(found):
                return self._stuck(int(self._periods[found[0]]))
        return None

    def _stuck(self, period: int) -> Stuck:
        same = int(self._equal[period - 1])
        seconds, total = period / self._rate, (same + period) / self._rate
        if seconds < PHRASE:
            return Stuck("repeated_code", self._frames - same, f"one sound went on for {total:.1f} s")
        return Stuck(
            "repeated_phrase",
            self._frames - same,
            f"{seconds:.1f} s of speech came {(same + period) // period} times over",
        )


def quiet_after(samples: Samples, rate: int, before: float) -> float:
    """Seconds of near-silence at the end of the sound so far; `before` is what there was before `samples`."""
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    return before + len(samples) / rate if not len(loud) else (len(samples) - 1 - int(loud[-1])) / rate
