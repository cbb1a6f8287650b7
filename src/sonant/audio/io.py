"""Read audio as mono float32 at a known rate; write files."""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

Samples = npt.NDArray[np.float32]


def read_audio(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    sample_rate: int | None = None,
    max_seconds: float | None = None,
) -> tuple[Samples, int]:
    """Mono samples [S] and their rate in Hz."""
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if sample_rate is not None and sample_rate != rate:
        return soxr.resample(mono, rate, sample_rate).astype(np.float32), sample_rate
    return mono, rate


def write_audio(
    target: str | os.PathLike[str] | BinaryIO,
    samples: Samples,
    sample_rate: int,
    *,
    format: str | None = None,
) -> None:
    """Write samples [S] to a file."""
    soundfile.write(target, samples, sample_rate, format=format)
