"""Another pace at the same pitch, in pieces: FFmpeg's `atempo` (WSOLA), through PyAV.

`atempo` takes 0.5 to 100 at once; slower paces pass it twice. Pieces joined equal one call on the whole,
since the filter is handed windows of the same size whatever the pieces are.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

WINDOW = 1024
"""Samples handed to the filter at once."""

Samples = npt.NDArray[np.float32]


class Stretcher:
    """Plays samples [S] at `rate` times their pace; `push` gives what is certain, `finish` the rest."""

    def __init__(self, rate: float, sample_rate: int) -> None:
        import av.filter

        self._sample_rate = sample_rate
        graph = av.filter.Graph()
        source: Any = graph.add_abuffer(
            format="flt", sample_rate=sample_rate, layout="mono", time_base=Fraction(1, sample_rate)
        )
        last = source
        for step in _steps(rate):
            tempo = graph.add("atempo", f"{step:.6f}")
            last.link_to(tempo)
            last = tempo
        sink: Any = graph.add("abuffersink")
        last.link_to(sink)
        graph.configure()
        self._graph, self._source, self._sink = graph, source, sink
        self._pending = np.zeros(0, np.float32)
        self._taken = 0

    def push(self, samples: Samples) -> Samples:
        """Samples that became certain."""
        self._pending = np.concatenate((self._pending, samples.astype(np.float32, copy=False)))
        whole = len(self._pending) // WINDOW * WINDOW
        ready, self._pending = self._pending[:whole], self._pending[whole:]
        for start in range(0, whole, WINDOW):
            self._give(ready[start : start + WINDOW])
        return self._taken_out()

    def finish(self) -> Samples:
        """What is left. Nothing may be pushed afterwards."""
        if len(self._pending):
            self._give(self._pending)
        if not self._taken:
            return np.zeros(0, np.float32)
        self._source.push(None)
        return self._taken_out()

    def _give(self, samples: Samples) -> None:
        import av

        frame = av.AudioFrame.from_ndarray(samples[None].copy(), format="flt", layout="mono")
        frame.sample_rate = self._sample_rate
        frame.pts = self._taken
        frame.time_base = Fraction(1, self._sample_rate)
        self._taken += len(samples)
        self._source.push(frame)

    def _taken_out(self) -> Samples:
        import av

        pieces: list[Samples] = []
        while True:
            try:
                pieces.append(self._sink.pull().to_ndarray().reshape(-1))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
        return np.concatenate(pieces).astype(np.float32) if pieces else np.zeros(0, np.float32)


def _steps(rate: float) -> list[float]:
    """The rate as factors that one filter takes."""
    return [rate] if rate >= 0.5 else [rate**0.5, rate**0.5]
