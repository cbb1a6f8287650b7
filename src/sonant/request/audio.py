"""Samples at a rate: the sound that goes in and comes out. No torch here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from sonant.errors import RequestError

Samples = npt.NDArray[np.float32]
LONGEST_CLIP = 600.0
"""Seconds of a clip or a source that are decoded; a longer file is refused, whatever the model takes."""


@dataclass(frozen=True, eq=False, repr=False)
class Audio:
    """Mono samples [S], float32 in about [-1, 1], at `sample_rate` Hz."""

    samples: Samples
    sample_rate: int

    def __post_init__(self) -> None:
        given = type(self.samples).__name__
        try:
            samples = np.asarray(self.samples)
        except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors with a gradient
            raise RequestError(
                f"the {given} holds no levels that numpy can read ({error}); expected one row of floats in "
                "-1 to 1. Of a tensor, give tensor.detach().float().cpu().numpy()."
            ) from error
        if samples.ndim == 0:
            raise RequestError(
                f"a {given} is no row of samples; expected floats in -1 to 1. Read a file with Audio.read."
            )
        if samples.ndim != 1:
            raise RequestError(
                f"audio of shape {samples.shape} is not mono; expected one row of samples. "
                "Average the channels first, or read the file with Audio.read."
            )
        if samples.dtype.kind != "f":
            dtype, bits = samples.dtype, 8 * samples.itemsize
            is_sound = dtype.kind == "i" and bits <= 32
            advice = f"Divide {dtype} by {1 << (bits - 1)}" if is_sound else "Give floats"
            raise RequestError(
                f"samples of {dtype} are no levels; expected floats in -1 to 1. "
                f"{advice}, or read the file with Audio.read."
            )
        object.__setattr__(self, "samples", samples.astype(np.float32, copy=False))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.seconds:.2f} s at {self.sample_rate} Hz>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The samples [S], for numpy and whatever takes an array."""
        return np.array(self.samples, dtype=dtype, copy=True if copy else None)

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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a file, in the format that its ending names; the path, to go on with."""
        self.write(path)
        return Path(path)

    def to_bytes(self, format: str = "wav") -> bytes:
        """A whole file of this format (wav, flac, mp3, opus, aac, pcm) in memory."""
        target = BytesIO()
        self.write(target, format=format)
        return target.getvalue()

    def at_loudness(self, loudness: float) -> Self:
        """The same with one gain, so that its loudness is this many LUFS, or as near as its peak allows."""
        from sonant.audio.loudness import at_loudness

        return replace(self, samples=at_loudness(self.samples, self.sample_rate, loudness))

    def play(self) -> None:
        """Play through whichever player program this machine has, to the end.

        Raises DependencyError where there is none, GenerationError when it fails.
        """
        from sonant.audio.player import Player

        with Player(self.sample_rate) as player:
            player.write(self.samples)

    def _repr_html_(self) -> str:
        """What a notebook shows: a player, and waveform and spectrogram as one picture."""
        from sonant.audio.picture import notebook_page

        return notebook_page(self.samples, self.sample_rate, repr(self))
