"""A decoder whose samples are played at another pace, for models that change none themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonant.audio.stretch import Stretcher
from sonant.engine.model import AudioDecoder, Prompt, SpeechModel


class StretchedDecoder:
    """The samples of another decoder, time-stretched as they come."""

    def __init__(self, decoder: AudioDecoder, rate: float, sample_rate: int) -> None:
        self._decoder = decoder
        self._stretcher = Stretcher(rate, sample_rate)

    @property
    def timings(self) -> dict[str, float]:
        """Those of the decoder inside."""
        return getattr(self._decoder, "timings", {})

    def push(self, tokens: Tensor) -> Tensor:
        """Samples [S] at the new pace that became certain."""
        return self._stretched(self._decoder.push(tokens))

    def finish(self) -> Tensor:
        """What is left, [S]."""
        rest = self._stretched(self._decoder.finish())
        return torch.cat((rest, torch.from_numpy(self._stretcher.finish())))

    def _stretched(self, samples: Tensor) -> Tensor:
        plain = samples.detach().to("cpu", torch.float32).numpy()
        return torch.from_numpy(np.ascontiguousarray(self._stretcher.push(plain)))


def open_decoder(model: SpeechModel, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
    """The model's decoder for a prompt, at the pace that the prompt asks for."""
    decoder = model.decoder(prompt, streaming=streaming)
    if prompt.stretch == 1.0:
        return decoder
    return StretchedDecoder(decoder, prompt.stretch, model.spec.sample_rate)
