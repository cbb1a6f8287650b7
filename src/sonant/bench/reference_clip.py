"""A voice for models that need one: three seconds of a steady synthetic vowel, the same on every machine."""

from __future__ import annotations

import numpy as np

from sonant.engine.engine import Engine
from sonant.request.audio import Audio
from sonant.request.voice import Voice

SECONDS = 3.0
RATE = 24_000


def reference_clip() -> Audio:
    """A buzzing vowel of 120 Hz with a slow swell; not speech, but it exercises every encoder."""
    time = np.arange(int(SECONDS * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * 120 * harmonic * time) / harmonic for harmonic in range(1, 20))
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 2.5 * time)
    return Audio((0.1 * wave * swell).astype(np.float32), RATE)


def reference_voice(engine: Engine) -> Voice:
    """That clip as a voice of the engine's model, without a transcript."""
    return engine.clone(reference_clip(), name="bench")
