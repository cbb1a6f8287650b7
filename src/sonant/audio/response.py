"""A filter given by its frequency response, over sound that comes in pieces.

For what is measured, not heard: pieces equal the whole up to rounding (1e-12), not to the bit. It needs numpy
alone: `scipy.signal`, whose filters are the same to the bit, takes longer to load than a sentence to speak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Exact = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating]
Factors = Callable[[Real], npt.NDArray[Any]]
"""Frequencies in Hz [F] -> complex factors [F]."""

AT_ONCE = 1 << 18
"""Samples that are transformed together at most: a bound on memory."""


class Response:
    """Filtered samples, piece by piece.

    memory: seconds after which what was heard no longer matters, to a float64's precision.
    """

    def __init__(self, response: Factors, sample_rate: int, memory: float) -> None:
        self._response = response
        self._step = 1.0 / sample_rate
        self._past: Exact = np.zeros(round(memory * sample_rate))

    def push(self, samples: Real) -> Exact:
        """The next piece [S], filtered [S]."""
        parts = [self._next(samples[at : at + AT_ONCE]) for at in range(0, len(samples), AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _next(self, samples: Real) -> Exact:
        # What comes round from the end of the transform's circle is heard only where the past lies.
        heard = np.concatenate((self._past, samples.astype(np.float64)))
        size = 1 << (len(heard) - 1).bit_length()
        spectrum = np.fft.rfft(heard, size) * self._response(np.fft.rfftfreq(size, self._step))
        filtered = np.fft.irfft(spectrum, size)[len(self._past) : len(heard)]
        self._past = heard[len(heard) - len(self._past) :]
        return filtered


def low_pass(cutoff: float, order: int, sample_rate: int) -> Factors:
    """The response of a Butterworth low-pass, made digital by the bilinear transform."""
    poles = np.exp(1j * np.pi * (2 * np.arange(order) + order + 1) / (2 * order))

    def response(frequencies: Real) -> npt.NDArray[Any]:
        warped = np.tan(np.pi * np.minimum(frequencies / sample_rate, 0.5 - 1e-9))
        place = 1j * warped / np.tan(np.pi * cutoff / sample_rate)
        found = np.ones(len(frequencies), np.complex128)
        for pole in poles:
            found *= -pole / (place - pole)
        return found

    return response


def of_sections(sections: Exact, sample_rate: int) -> Factors:
    """The response of second-order sections [N, 6]: b0 b1 b2 a0 a1 a2 of each."""

    def response(frequencies: Real) -> npt.NDArray[Any]:
        delay = np.exp(-2j * np.pi * frequencies / sample_rate)
        found = np.ones(len(frequencies), np.complex128)
        for b0, b1, b2, a0, a1, a2 in sections:
            found *= (b0 + delay * (b1 + delay * b2)) / (a0 + delay * (a1 + delay * a2))
        return found

    return response
