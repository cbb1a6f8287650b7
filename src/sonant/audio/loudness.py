"""Integrated loudness after ITU-R BS.1770, and bringing a recording to one without clipping."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]

HIGHEST_PEAK = 0.97
"""Share of full scale that a gain may reach; a lossy codec overshoots by a little."""
BLOCK_SECONDS = 0.4  # BS.1770's gating block; shorter recordings have no loudness


def measure_loudness(samples: Samples, sample_rate: int) -> float:
    """Loudness of samples [S] in LUFS; minus infinity for silence. Recordings under 0.4 s are repeated."""
    import pyloudnorm

    if not np.any(samples):
        return float("-inf")
    least = int(BLOCK_SECONDS * sample_rate) + 1
    if len(samples) < least:
        samples = np.tile(samples, -(-least // len(samples)))
    with np.errstate(divide="ignore"):
        return float(pyloudnorm.Meter(sample_rate).integrated_loudness(samples.astype(np.float64)))


def at_loudness(samples: Samples, sample_rate: int, target: float) -> Samples:
    """The samples with one gain, so that their loudness is `target` LUFS, or as near as their peak allows."""
    found = measure_loudness(samples, sample_rate)
    if not np.isfinite(found):
        return samples
    gain = 10 ** ((target - found) / 20)
    peak = float(np.abs(samples).max())
    if peak * gain > HIGHEST_PEAK:
        gain = HIGHEST_PEAK / peak
        reached = found + 20 * np.log10(gain)
        logger.warning(
            "%.1f LUFS would clip the loudest sample; the recording is at %.1f LUFS instead", target, reached
        )
    return (samples * np.float32(gain)).astype(np.float32)
