"""Two resamplers: soxr for ordinary use, and the windowed sinc whose exact kernel some models expect."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soxr

from sonant.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

Samples = npt.NDArray[np.float32]

ZEROS = 6  # zero crossings of the sinc on each side. Source: torchaudio's default
ROLLOFF = 0.99  # cut-off as a share of the lower Nyquist frequency. Source: torchaudio's default


def resample_soxr(samples: Samples, from_rate: int, to_rate: int) -> Samples:
    """Samples [ceil(S * to / from)] by soxr's high-quality setting, as librosa loads audio."""
    _check_rates(from_rate, to_rate)
    if from_rate == to_rate or samples.shape[0] == 0:
        return samples
    # Parity: librosa's length; rounding of the ratio can add a sample (44100 -> 24000 Hz: 24001 a second).
    length = math.ceil(samples.shape[0] * (float(to_rate) / from_rate))
    resampled = soxr.resample(samples, from_rate, to_rate, quality="HQ").astype(np.float32, copy=False)
    if len(resampled) < length:
        resampled = np.pad(resampled, (0, length - len(resampled)))
    return np.ascontiguousarray(resampled[:length])


@lru_cache(maxsize=16)
def sinc_kernel(old: int, new: int) -> npt.NDArray[np.float32]:
    """Kernel [new, 1, 2 * width + old] for a reduced ratio new / old; width from `sinc_width`."""
    cutoff = min(old, new) * ROLLOFF
    width = sinc_width(old, new)
    # Parity: the phases are rounded to float32 before they are added in float64.
    phases = (np.arange(0, -new, -1, dtype=np.float32) / np.float32(new)).astype(np.float64)
    positions = np.arange(-width, width + old, dtype=np.float64) / old
    times = np.clip((phases[:, None] + positions[None]) * cutoff, -ZEROS, ZEROS)
    window = np.cos(times * math.pi / ZEROS / 2) ** 2
    angles = times * math.pi
    safe = np.where(angles == 0, 1.0, angles)
    kernel = np.where(angles == 0, 1.0, np.sin(safe) / safe) * window * (cutoff / old)
    return kernel.astype(np.float32)[:, None]


def sinc_width(old: int, new: int) -> int:
    """Input samples on each side that the kernel reaches."""
    return math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))


def resample_sinc(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Waveform [.., ceil(S * to / from)] by a Hann-windowed sinc (6 zero crossings, roll-off 0.99)."""
    _check_rates(from_rate, to_rate)
    if from_rate == to_rate:
        return waveform
    divisor = math.gcd(from_rate, to_rate)
    old, new = from_rate // divisor, to_rate // divisor
    if old * new > 20_000_000:
        raise RequestError(
            f"sample rates {from_rate} and {to_rate} Hz have too small a common divisor for the sinc. "
            "Resample the audio to a usual rate such as 48000 Hz first."
        )
    import torch

    kernel = torch.from_numpy(sinc_kernel(old, new)).to(waveform)
    width = sinc_width(old, new)
    rows = waveform.reshape(-1, 1, waveform.shape[-1])
    padded = torch.nn.functional.pad(rows, (width, width + old))
    pieces = torch.nn.functional.conv1d(padded, kernel, stride=old)  # [N, new, steps]
    resampled = pieces.transpose(1, 2).reshape(rows.shape[0], -1)
    length = math.ceil(new * waveform.shape[-1] / old)
    return resampled[:, :length].reshape(*waveform.shape[:-1], length)


def _check_rates(from_rate: int, to_rate: int) -> None:
    if from_rate <= 0 or to_rate <= 0:
        raise RequestError(
            f"cannot resample from {from_rate} Hz to {to_rate} Hz; both rates must be positive. "
            "Check the audio file and the wanted rate."
        )
