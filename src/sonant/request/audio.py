"""Samples at a rate: the sound that goes in and comes out. No torch here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sonant.errors import RequestError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono samples [S], float32 in about [-1, 1], at `sample_rate` Hz."""

    samples: Samples
    sample_rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1:
            raise RequestError(
                f"audio of shape {self.samples.shape} is not mono; expected one row of samples. "
                "Average the channels first, or read the file with Audio.read."
            )
        if self.samples.dtype != np.float32:
            object.__setattr__(self, "samples", self.samples.astype(np.float32))

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    @staticmethod
    def read(
        source: str | os.PathLike[str] | bytes | BinaryIO,
        *,
        sample_rate: int | None = None,
        max_seconds: float | None = None,
    ) -> Audio:
        """Audio from a path, bytes or file object, mono; resampled when `sample_rate` is given.

        Raises RequestError when the source is not readable audio or is longer than `max_seconds`.
        """
        from sonant.audio.io import read_audio

        samples, rate = read_audio(source, sample_rate=sample_rate, max_seconds=max_seconds)
        return Audio(samples, rate)

    def write(self, target: str | os.PathLike[str] | BinaryIO, *, format: str | None = None) -> None:
        """Write to a path (format from its suffix) or a file object (`format` needed)."""
        from sonant.audio.io import write_audio

        write_audio(target, self.samples, self.sample_rate, format=format)
