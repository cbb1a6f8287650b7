"""Integrated loudness after ITU-R BS.1770, and bringing sound to one without clipping.

A recording that is whole gets one gain (`at_loudness`); sound that leaves while it is made gets one that
follows from what has passed (`Leveller`).
"""

from __future__ import annotations

import logging
import math
from collections import deque

import numpy as np
import numpy.typing as npt

from sonant.audio.response import Response, of_sections

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]

HIGHEST_PEAK = 0.97
"""Share of full scale that a gain may reach; a lossy codec overshoots by a little."""
MOST_ROUNDED = 4.0
"""dB that the loudest peak may be rounded by for a loudness; beyond, the loudness gives way."""
MOST_MISSED = 1.0
"""LU that it may give way by before that is told."""
BLOCK_SECONDS = 0.4  # BS.1770's gating block; shorter recordings have no loudness
HOP_SECONDS = 0.1  # one block to the next
FULL_SCALE_LUFS = -0.691  # loudness of a mean square of 1 after K-weighting
ABSOLUTE_GATE = -70.0  # LUFS; a quieter block is silence
RELATIVE_GATE = -10.0  # LU below the mean: pauses do not count
WEIGHTING_MEMORY = 0.25  # seconds; the K-weighting's high-pass falls by a factor e every 4 ms

USUAL_LOUDNESS = -23.0
"""LUFS that speech is taken to have before any was heard."""
PRIOR_SECONDS = 0.5
"""How long it counts as having been heard like that: less follows the first word, more is late."""
MOST_GAIN = 20.0
"""dB, up or down."""
KNEE = 0.8
"""Share of full scale above which a peak that was not foreseen is rounded, to stay under HIGHEST_PEAK."""


def measure_loudness(samples: Samples, sample_rate: int) -> float:
    """Loudness of samples [S] in LUFS; minus infinity for silence. Recordings under 0.4 s are repeated."""
    if not np.any(samples):
        return float("-inf")
    least = int(BLOCK_SECONDS * sample_rate) + 1
    if len(samples) < least:
        samples = np.tile(samples, -(-least // len(samples)))
    weighting = of_sections(_k_weighting(sample_rate), sample_rate)
    squares = np.square(Response(weighting, sample_rate, WEIGHTING_MEMORY).push(samples))
    count = round((len(samples) / sample_rate - BLOCK_SECONDS) / HOP_SECONDS) + 1
    begins = np.arange(count) * (HOP_SECONDS / BLOCK_SECONDS)  # in blocks
    edges = [
        (int(BLOCK_SECONDS * n * sample_rate), int(BLOCK_SECONDS * (n + 1) * sample_rate)) for n in begins
    ]
    powers = np.array([squares[begin:end].sum() for begin, end in edges]) / (BLOCK_SECONDS * sample_rate)
    powers = powers[powers >= _power(ABSOLUTE_GATE)]
    if not len(powers):
        return float("-inf")
    gate = _power(_loudness(powers.mean()) + RELATIVE_GATE)
    return _loudness(powers[powers > gate].mean())


def at_loudness(samples: Samples, sample_rate: int, target: float) -> Samples:
    """The samples with one gain, so that their loudness is `target` LUFS, or as near as their peak allows.

    A peak that would clip is rounded, by MOST_ROUNDED at most.
    """
    found = measure_loudness(samples, sample_rate)
    if not np.isfinite(found):
        return samples
    return unclipped(samples * np.float32(gain_to(target, found, float(np.abs(samples).max()))))


def gain_to(target: float, found: float, peak: float) -> float:
    """The factor from a loudness to another, both in LUFS; less where the largest sample would be rounded by
    more than MOST_ROUNDED, which is told."""
    gain = 10 ** ((target - found) / 20)
    highest = HIGHEST_PEAK * 10 ** (MOST_ROUNDED / 20)
    if peak * gain > highest:
        gain = highest / peak
        reached = found + 20 * np.log10(gain)
        if target - reached > MOST_MISSED:
            logger.warning(
                "%.1f LUFS would clip the loudest sample; the recording is at %.1f LUFS instead",
                target,
                reached,
            )
    return float(gain)


def unclipped(samples: Samples) -> Samples:
    """The samples as they are where none is beyond HIGHEST_PEAK, else with their peaks rounded."""
    return samples if np.abs(samples).max(initial=0.0) <= HIGHEST_PEAK else rounded(samples)


class Leveller:
    """Brings passing speech to a loudness, sample by sample as it comes: pieces joined equal the whole.

    The gain of each 0.1 s is decided before it begins, by the loudness of all that was heard until then
    (BS.1770's blocks and gates) together with PRIOR_SECONDS of USUAL_LOUDNESS. So nothing is held back, the
    first word is not far off, and over a long text the gain comes to rest. Peaks above KNEE are rounded.
    """

    def __init__(self, target: float, sample_rate: int) -> None:
        self._target = target
        self._sections = _k_weighting(sample_rate)
        self._state = np.zeros((len(self._sections), 2))
        self._squares = np.zeros(max(1, round(HOP_SECONDS * sample_rate)))
        """Of the weighted samples of the 0.1 s under way, as far as `_filled`."""
        self._filled = 0
        self._recent = deque([0.0] * round(BLOCK_SECONDS / HOP_SECONDS), round(BLOCK_SECONDS / HOP_SECONDS))
        """Mean squares of the last 0.1 s each; before the first there was silence."""
        self._counts, self._powers = np.zeros(_BINS), np.zeros(_BINS)
        """Of the blocks so far, by loudness: how many, and their power in all."""
        self._gain = self._next_gain = self._wanted()

    def push(self, samples: Samples) -> Samples:
        """The next samples [S], levelled [S]."""
        from scipy.signal import sosfilt

        if not len(samples):
            return samples
        weighted, self._state = sosfilt(self._sections, samples.astype(np.float64), zi=self._state)
        levelled = np.empty(len(samples), np.float32)
        size, at = len(self._squares), 0
        while at < len(samples):
            begin, end = self._filled, min(size, self._filled + len(samples) - at)
            part = slice(at, at + end - begin)
            self._squares[begin:end] = weighted[part] ** 2
            way = (np.arange(begin, end) + 1) / size
            gains = self._gain + (self._next_gain - self._gain) * way
            levelled[part] = rounded(samples[part] * gains)
            at, self._filled = at + end - begin, end
            if end == size:
                self._turn()
        return levelled

    def _turn(self) -> None:
        """A 0.1 s is whole: it counts, and the gain goes on to what is wanted now."""
        self._filled = 0
        self._recent.append(float(self._squares.mean()))
        power = sum(self._recent) / len(self._recent)
        if power > _power(ABSOLUTE_GATE):
            place = min(int((_loudness(power) - ABSOLUTE_GATE) / _BIN), _BINS - 1)
            self._counts[place] += 1
            self._powers[place] += power
        self._gain, self._next_gain = self._next_gain, self._wanted()

    def heard(self) -> tuple[float, float]:
        """The loudness of what was heard in LUFS, and how many seconds of it count."""
        if not self._counts.any():
            return USUAL_LOUDNESS, 0.0
        gate = _loudness(self._powers.sum() / self._counts.sum()) + RELATIVE_GATE
        above = slice(max(0, int((gate - ABSOLUTE_GATE) / _BIN)), None)
        count = self._counts[above].sum()
        return _loudness(self._powers[above].sum() / count), count * HOP_SECONDS

    def _wanted(self) -> float:
        """The factor that brings what is to be expected to the target."""
        loudness, seconds = self.heard()
        expected = (PRIOR_SECONDS * USUAL_LOUDNESS + seconds * loudness) / (PRIOR_SECONDS + seconds)
        return 10 ** (min(max(self._target - expected, -MOST_GAIN), MOST_GAIN) / 20)


_BIN, _BINS = 0.5, 200  # LU, and how many from ABSOLUTE_GATE up: blocks are counted by loudness


def _power(loudness: float) -> float:
    return float(10 ** ((loudness - FULL_SCALE_LUFS) / 10))


def _loudness(power: float) -> float:
    return FULL_SCALE_LUFS + 10 * math.log10(power)


def _k_weighting(sample_rate: int) -> npt.NDArray[np.float64]:
    """BS.1770's two filters as second-order sections [2, 6]: a shelf of 4 dB at 1.5 kHz, high-pass at 38 Hz.

    Source: R. Bristow-Johnson's cookbook of equalizers, with the figures that pyloudnorm takes for BS.1770's.
    """
    gain, turn = 10 ** (4.0 / 40.0), 2.0 * np.pi * (1500.0 / sample_rate)
    cos, width = np.cos(turn), 2 * np.sqrt(gain) * (np.sin(turn) / (2.0 * (1 / np.sqrt(2))))
    shelf = [
        gain * ((gain + 1) + (gain - 1) * cos + width),
        -2 * gain * ((gain - 1) + (gain + 1) * cos),
        gain * ((gain + 1) + (gain - 1) * cos - width),
        (gain + 1) - (gain - 1) * cos + width,
        2 * ((gain - 1) - (gain + 1) * cos),
        (gain + 1) - (gain - 1) * cos - width,
    ]
    turn = 2.0 * np.pi * (38.0 / sample_rate)
    cos, alpha = np.cos(turn), np.sin(turn) / (2.0 * 0.5)
    high_pass = [(1 + cos) / 2, -(1 + cos), (1 + cos) / 2, 1 + alpha, -2 * cos, 1 - alpha]
    sections = np.array([shelf, high_pass])
    return sections / sections[:, 3:4]


def rounded(samples: npt.NDArray[np.floating]) -> Samples:
    """The samples with what is above KNEE bent towards HIGHEST_PEAK, which none reaches."""
    size = np.abs(samples)
    over = np.maximum(size - KNEE, 0.0) / (HIGHEST_PEAK - KNEE)
    bent = KNEE + (HIGHEST_PEAK - KNEE) * over / (1 + over)
    return np.where(size > KNEE, np.copysign(bent, samples), samples).astype(np.float32)
