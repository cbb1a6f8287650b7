"""Silence at the ends of a segment, cut by a rule as its samples come; speech and its pauses stay whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

LEVEL = 10 ** (-50 / 20)
"""Root mean square of a frame, as a share of full scale, above which it is sound."""
FRAME_SECONDS = 0.01
BEFORE, AFTER = 0.1, 0.25
"""Seconds of silence that stay before the first sound and after the last: attacks and the room's tail."""


class Trimmer:
    """Pieces pushed one after the other give what the whole pushed at once would.

    Silence inside is held back until the next sound, for it may be the end.
    """

    def __init__(self, sample_rate: int) -> None:
        self._size = max(1, round(FRAME_SECONDS * sample_rate))
        self._before, self._after = (round(seconds * sample_rate) for seconds in (BEFORE, AFTER))
        self._held: Samples = np.zeros(0, dtype=np.float32)
        """Silence that may have to go."""
        self._rest: Samples = np.zeros(0, dtype=np.float32)
        """Less than a frame."""
        self._has_sound = False

    def push(self, samples: Samples) -> Samples:
        """What of the next samples [S], and of those held back, is certain to stay."""
        whole = np.concatenate((self._rest, samples))
        count = len(whole) // self._size
        frames, self._rest = whole[: count * self._size], whole[count * self._size :]
        return self._take(frames, np.flatnonzero(self._are_loud(frames.reshape(count, self._size))))

    def finish(self) -> Samples:
        """What stays of the silence at the end."""
        last = self._rest
        is_loud = bool(len(last)) and bool(self._are_loud(last[None])[0])
        self._rest = last[:0]
        tail = self._take(last, np.zeros(int(is_loud), dtype=np.int64))
        if not self._has_sound:
            return tail
        return np.concatenate((tail, self._held[: self._after]))

    def _are_loud(self, frames: Samples) -> npt.NDArray[np.bool_]:
        return np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1)) > LEVEL

    def _take(self, frames: Samples, loud: npt.NDArray[np.int64]) -> Samples:
        if not len(loud):
            self._held = np.concatenate((self._held, frames))
            if not self._has_sound:
                self._held = self._held[max(0, len(self._held) - self._before - self._size) :]
            return frames[:0]
        whole = np.concatenate((self._held, frames))
        end = len(self._held) + (int(loud[-1]) + 1) * self._size
        begin = 0
        if not self._has_sound:
            begin = max(0, len(self._held) + int(loud[0]) * self._size - self._before)
        self._has_sound = True
        self._held = whole[end:]
        return whole[begin:end]
