"""Low-frequency trouble in a voice: how much there is, and a high-pass that takes it away piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sonant.audio.response import Response, low_pass
from sonant.errors import RequestError

Samples = npt.NDArray[np.float32]

RUMBLE_HZ = 50.0
"""Energy below this is no voice: the lowest speaking voices start near 70 Hz."""
CUTOFF_HZ = 60.0
"""Where the high-pass is set when it is switched on by itself."""
MEMORY = 0.4
"""Seconds; a low-pass at RUMBLE_HZ falls by a factor e every 8 ms."""
MOST_OFFSET = 0.01
"""Share of full scale; a larger mean is a bias that a loudspeaker feels and a cut makes click."""
MOST_RUMBLE = 0.10
"""Share of the energy below RUMBLE_HZ; clean speech keeps under 0.01."""


@dataclass(frozen=True)
class Rumble:
    """DC offset (mean of the samples) and the share of the energy below RUMBLE_HZ, without the offset."""

    offset: float
    share: float

    @property
    def is_excessive(self) -> bool:
        """True beyond MOST_OFFSET or MOST_RUMBLE."""
        return abs(self.offset) > MOST_OFFSET or self.share > MOST_RUMBLE


class HighPass:
    """Butterworth high-pass of order 4 that carries its state from piece to piece.

    Pieces filtered one after the other equal the whole filtered at once.
    """

    def __init__(self, cutoff: float, sample_rate: int) -> None:
        from scipy.signal import butter

        if not 10.0 <= cutoff <= min(400.0, sample_rate / 4):
            raise RequestError(
                f"the high-pass is set to {cutoff:g} Hz; expected 10 to {min(400.0, sample_rate / 4):g} Hz. "
                f"{CUTOFF_HZ:g} Hz removes rumble and leaves voices alone.",
                field="de_rumble",
            )
        self._sections = butter(4, cutoff, "highpass", fs=sample_rate, output="sos")
        self._state: npt.NDArray[np.float64] | None = None

    def push(self, samples: Samples) -> Samples:
        """Filtered samples [S] of the next piece [S]."""
        from scipy.signal import sosfilt, sosfilt_zi

        if not len(samples):
            return samples
        if self._state is None:  # as if the first sample had lasted forever: an offset makes no click
            self._state = sosfilt_zi(self._sections) * float(samples[0])
        filtered, self._state = sosfilt(self._sections, samples.astype(np.float64), zi=self._state)
        return filtered.astype(np.float32)


class RumbleMeter:
    """Measures rumble while samples pass by."""

    def __init__(self, sample_rate: int) -> None:
        self._low_pass = Response(low_pass(RUMBLE_HZ, 4, sample_rate), sample_rate, MEMORY)
        self._count = 0
        self._sum = self._energy = self._low_sum = self._low = 0.0

    def push(self, samples: Samples) -> None:
        """Take the next piece [S]."""
        if not len(samples):
            return
        exact = samples.astype(np.float64)
        low = self._low_pass.push(exact)
        self._count += len(exact)
        self._sum += float(exact.sum())
        self._energy += float(exact @ exact)
        self._low_sum += float(low.sum())
        self._low += float(low @ low)

    def result(self) -> Rumble:
        """What was measured so far; zeros for silence."""
        if not self._count:
            return Rumble(0.0, 0.0)
        offset = self._sum / self._count
        varying = self._energy - self._sum**2 / self._count
        low = self._low - self._low_sum**2 / self._count
        return Rumble(offset, max(0.0, low / varying) if varying > 1e-9 * self._count else 0.0)
