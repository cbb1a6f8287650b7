"""Speech that goes wrong, told from its tokens, its scores and its samples while it is made.

    repeated_code     one token, or a cycle of less than PHRASE seconds, for LOOP seconds
    repeated_phrase   a cycle of PHRASE to LONGEST_CYCLE seconds, REPEATS times over and for LOOP seconds
    near_silence      nothing above QUIET for QUIET_SECONDS
    missing_end       past OVERDUE of the steps that its text allows, the end token was out of reach (rank
                      END_RANK or worse, probability under END_CHANCE) in every look of END_SECONDS; not
                      where the text arrives while it is spoken
    reference_echo    its first ECHO_SECONDS are ECHO_SHARE the reference clip's own tokens
    not_finite        scores that are no numbers
    runaway           it reached the most steps that its text allows (always stopped there: `length_ceiling`)

The loops and the echo look at the first codebook of a frame's tokens, near-silence at the samples. Only exact
repetition counts: speech that is sampled does not say the same tokens twice even where it says the same word,
so ordinary speech stays far from these. One implementation for every family; what a family brings is
`Prompt.reference` and `SpeechModel.ending`. Figures and false alarms: docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sonant.engine.model import Array, Ending, Prompt
from sonant.request.audio import Samples
from sonant.request.settings import guards_of
from sonant.request.speech import SpeechRequest

LOOP = 6.0
"""Seconds of repetition, the first time included, that count as stuck: a long held vowel lasts two."""
PHRASE = 0.4
LONGEST_CYCLE = 5.0
REPEATS = 4
QUIET = 1e-3
"""-60 dB of full scale."""
QUIET_SECONDS = 8.0
"""Longer than any pause inside a sentence; pauses between segments are not the model's."""
OVERDUE = 0.5
"""Share of the ceiling, which allows a text two to four times what it takes at an ordinary pace."""
END_SECONDS = 4.0
LOOK_SECONDS = 0.4
"""The scores are looked at so often, and only of what is overdue: that costs nothing."""
END_RANK = 100
"""Before the end of ordinary speech the end token comes among the likeliest; in speech that missed it, others
have measured ranks about 1,500."""
END_CHANCE = 1e-5
ECHO_SECONDS = 0.8
ECHO_BEGINS = 0.5
"""Seconds into the segment by which an echo has begun."""
ECHO_SHARE = 0.9
ECHO_KINDS = 0.5
"""Share of an echo's tokens that are different ones: all silences are alike."""
TRIES = 2
"""How often a segment that went wrong is spoken again, each time with a seed derived from its own."""


@dataclass(frozen=True)
class Stuck:
    """What was found, and which frames of the segment are good: from `skip` on, up to `good`."""

    kind: str
    good: int
    message: str
    skip: int = 0


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

    def push(self, tokens: Array) -> Stuck | None:
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


class EchoWatch:
    """Watches the first tokens of one segment for those of the reference [N, K]."""

    def __init__(self, rate: float, reference: Array) -> None:
        self._rate = rate
        self._size = max(4, round(ECHO_SECONDS * rate))
        self._until = self._size + round(ECHO_BEGINS * rate)
        known = reference[:, 0].cpu().numpy()
        self._windows: npt.NDArray[np.int64] = (
            np.lib.stride_tricks.sliding_window_view(known, self._size)
            if len(known) >= self._size
            else np.zeros((0, self._size), dtype=np.int64)
        )
        self._heard: list[int] = []

    def push(self, tokens: Array) -> Stuck | None:
        """The next tokens [n, K]; what was found, once."""
        for token in tokens[:, 0].tolist():
            if len(self._heard) >= self._until:
                return None
            self._heard.append(token)
            last = self._heard[-self._size :]
            if len(last) < self._size or len(set(last)) < ECHO_KINDS * self._size:
                continue
            same = (self._windows == np.array(last)).mean(axis=1)
            if len(same) and same.max() >= ECHO_SHARE:
                frames, self._until = len(self._heard), 0
                message = f"it began with {self._size / self._rate:.1f} s of the reference clip"
                return Stuck("reference_echo", 1 << 40, message, skip=frames)
        return None


class EndWatch:
    """Watches the end token of one segment that takes longer than its text should; `ceiling` is in steps."""

    def __init__(self, rate: float, ceiling: int) -> None:
        self._rate = rate
        self._due = OVERDUE * ceiling
        self._every = max(1, round(LOOK_SECONDS * rate))
        self._far_since: tuple[int, int] | None = None
        """Steps and frames at the first of the looks in a row in which it was out of reach."""

    def look(self, steps: int, frames: int, ending: Callable[[], Ending | None]) -> Stuck | None:
        """What was found after so many steps, which gave so many frames."""
        if steps < self._due or steps % self._every:
            return None
        end = ending()
        if end is None or end.rank < END_RANK or end.probability > END_CHANCE:
            self._far_since = None
            return None
        if self._far_since is None:
            self._far_since = steps, frames
        began, good = self._far_since
        if steps - began < END_SECONDS * self._rate:
            return None
        message = (
            f"it has missed its end: after {steps / self._rate:.1f} s, far more than its text takes, the end "
            f"token was at rank {end.rank:,} (probability {end.probability:.0e})"
        )
        return Stuck("missing_end", good, message)


class SegmentWatch:
    """All that watches the steps of one segment, for the guards that are asked for.

    is_speech: whether the tokens are the model's speech. is_fed: whether its text arrives while it is spoken.
    Nobody knows then how long it takes, and steps may wait for words, so a missed end is not looked for.
    """

    def __init__(
        self, prompt: Prompt, rate: float, guards: frozenset[str], *, is_speech: bool, is_fed: bool
    ) -> None:
        self._guards = guards
        self._loops = LoopWatch(rate) if is_speech else None
        has_echo = is_speech and "reference_echo" in guards and prompt.reference is not None
        self._echo = EchoWatch(rate, prompt.reference) if has_echo and prompt.reference is not None else None
        has_end = "missing_end" in guards and not is_fed and may_run_away(prompt)
        self._end = EndWatch(rate, prompt.ceiling) if has_end else None

    def push(self, tokens: Array) -> Stuck | None:
        """The next tokens [n, K] of the segment; what was found."""
        echo = self._echo.push(tokens) if self._echo is not None else None
        loop = self._loops.push(tokens) if self._loops is not None else None
        if loop is not None:
            self._loops = None
        return echo or (loop if loop is not None and loop.kind in self._guards else None)

    def look(self, steps: int, frames: int, ending: Callable[[], Ending | None]) -> Stuck | None:
        """After each step, so many of them: what the end token's chance tells."""
        found = self._end.look(steps, frames, ending) if self._end is not None else None
        if found is not None:
            self._end = None
        return found


def watches_for(request: SpeechRequest, kind: str) -> bool:
    """Whether one of the guards is asked for."""
    return request.stuck_speech != "off" and kind in guards_of(request.guards)


def may_run_away(prompt: Prompt) -> bool:
    """Whether the prompt's ceiling says something of its text, and is not the caller's own max_frames."""
    most = prompt.sampling.max_frames
    return most is None or prompt.ceiling < most


def quiet_after(samples: Samples, rate: int, before: float) -> float:
    """Seconds of near-silence at the end of the sound so far; `before` is what there was before `samples`."""
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    return before + len(samples) / rate if not len(loud) else (len(samples) - 1 - int(loud[-1])) / rate
