"""A decoder whose samples are played at another pace, for models that change none themselves."""

from __future__ import annotations

import numpy as np

from sonant.audio.stretch import Stretcher
from sonant.engine.model import Array, AudioDecoder, Prompt, SpeechModel, as_samples
from sonant.request.audio import Samples


class StretchedDecoder:
    """The samples of another decoder, time-stretched as they come."""

    def __init__(self, decoder: AudioDecoder, rate: float, sample_rate: int) -> None:
        self._decoder = decoder
        self._stretcher = Stretcher(rate, sample_rate)

    @property
    def timings(self) -> dict[str, float]:
        """Those of the decoder inside."""
        return getattr(self._decoder, "timings", {})

    def push(self, tokens: Array) -> Samples:
        """Samples [S] at the new pace that became certain."""
        return self._stretched(self._decoder.push(tokens))

    def finish(self) -> Samples:
        """What is left, [S]."""
        rest = self._stretched(self._decoder.finish())
        return np.concatenate((rest, self._stretcher.finish()))

    def _stretched(self, samples: Array) -> Samples:
        return self._stretcher.push(as_samples(samples))


def open_decoder(model: SpeechModel, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
    """The model's decoder for a prompt, at the pace that the prompt asks for."""
    decoder = model.decoder(prompt, streaming=streaming)
    if prompt.stretch == 1.0:
        return decoder
    return StretchedDecoder(decoder, prompt.stretch, model.spec.sample_rate)
