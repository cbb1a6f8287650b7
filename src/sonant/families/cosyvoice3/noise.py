"""Where the flow starts and what the vocoder adds: noise by absolute frame, from a named source.

Default: drawn from the utterance's own generators. "reference": the buffers that the original draws in its
constructors and stores nowhere, made again bit for bit from their recipe, block by block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from sonant.errors import GenerationError
from sonant.families.cosyvoice3.config import MAX_SECONDS, CosyVoice3Config
from sonant.nn.sampling import generator

BLOCK = 50
"""Frames drawn at once: fixed, so that how often noise is asked for never changes it."""


class Noise(Protocol):
    """Noise of one utterance; frame 0 is the first prompt frame for the flow, the first spoken one for
    the vocoder."""

    def flow(self, stop: int) -> Tensor:
        """Gaussian [M, stop]: the flow's start for frames 0 to stop."""
        ...

    def source(self, start: int, stop: int) -> Tensor:
        """Uniform in 0..1, [(stop - start) * samples, K]; `start` never decreases from call to call."""
        ...


class _Blocks:
    """Rows made block by block in order; those before `start` are forgotten."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make
        self._rows: Tensor | None = None
        self._first = 0

    def take(self, start: int, stop: int) -> Tensor:
        rows = self._make() if self._rows is None else self._rows
        parts, end = [rows], self._first + rows.shape[0]
        while end < stop:
            parts.append(self._make())
            end += parts[-1].shape[0]
        self._rows = torch.cat(parts)[start - self._first :]
        self._first = start
        return self._rows[: stop - start]


class SeededNoise:
    """Noise from the generators of one seed.

    The flow's first `prompt` frames have the same noise whatever the seed, as in the original all frames
    have: what a stream keeps of its voice then serves the next.
    """

    def __init__(self, config: CosyVoice3Config, seed: int, *, prompt: int = 0) -> None:
        bins, harmonics = config.flow.mel_bins, config.vocoder.harmonics
        self._samples = config.vocoder.samples
        flow, source = generator(seed, "flow noise"), generator(seed, "source noise")
        self._flow = _Blocks(lambda: torch.randn(BLOCK, bins, generator=flow))
        self._prompt = torch.randn(prompt, bins, generator=generator(0, "prompt noise"))
        self._source = _Blocks(lambda: torch.rand(BLOCK * self._samples, harmonics, generator=source))

    def flow(self, stop: int) -> Tensor:
        known = self._prompt[:stop]
        return torch.cat((known, self._flow.take(0, stop)[len(known) :])).T

    def source(self, start: int, stop: int) -> Tensor:
        return self._source.take(start * self._samples, stop * self._samples)


class ReferenceNoise:
    """The original's constructor noise. Source: its classes, in the order in which the yaml builds them.

    One generator, seeded with 0 by the flow's solver, draws: the flow's buffer of 300 s; the initial
    values of the layers built afterwards, which loading replaces; the start phases (never read); and the
    vocoder's buffer. Only the part that is spoken is made.
    """

    def __init__(self, config: CosyVoice3Config) -> None:
        self._samples = config.vocoder.samples
        self._frames = MAX_SECONDS * config.token_rate * config.flow.frames_per_token
        self.generator = rng = torch.Generator().manual_seed(0)
        """Stands at the vocoder's buffer until that is asked for."""
        self._flow = torch.randn(config.flow.mel_bins, self._frames, generator=rng)
        _skip_layers(config, rng)
        harmonics = config.vocoder.harmonics
        self.start_phases = torch.rand(harmonics, generator=rng)
        self.start_phases[0] = 0
        self._source = _Blocks(lambda: torch.rand(BLOCK * self._samples, harmonics, generator=rng))

    def flow(self, stop: int) -> Tensor:
        self._check(stop)
        return self._flow[:, :stop]

    def source(self, start: int, stop: int) -> Tensor:
        self._check(stop)
        return self._source.take(start * self._samples, stop * self._samples)

    def _check(self, stop: int) -> None:
        if stop > self._frames:
            raise GenerationError(
                f"the original's noise ends after {MAX_SECONDS} s, prompt included, and this utterance is "
                'longer. Split the text, or leave out the option noise "reference".'
            )


def _skip_layers(config: CosyVoice3Config, rng: torch.Generator) -> None:
    """Draw what the initialisation of the layers between the two buffers draws, and drop it."""
    flow, vocoder = config.flow, config.vocoder
    width, kernel = vocoder.f0_channels, vocoder.f0_lookahead + 1
    torch.empty(flow.speech_tokens, flow.mel_bins).normal_(generator=rng)  # token embedding
    uniform = [(flow.mel_bins, flow.speaker_dim)]  # speaker projection: (outputs, inputs)
    uniform += [(width, vocoder.in_channels * kernel)]  # F0 network
    uniform += [(width, width * 3)] * 4
    uniform += [(1, width)]
    for outputs, inputs in uniform:
        torch.empty(outputs, inputs).uniform_(generator=rng)
        torch.empty(outputs).uniform_(generator=rng)


class GivenNoise:
    """Recorded noise: flow [M, T], source [T * samples, K]."""

    def __init__(self, config: CosyVoice3Config, flow: Tensor, source: Tensor) -> None:
        self._samples, self._flow, self._source = config.vocoder.samples, flow, source

    def flow(self, stop: int) -> Tensor:
        self._check(stop, self._flow.shape[1])
        return self._flow[:, :stop]

    def source(self, start: int, stop: int) -> Tensor:
        self._check(stop, self._source.shape[0] // self._samples)
        return self._source[start * self._samples : stop * self._samples]

    def _check(self, stop: int, held: int) -> None:
        if stop > held:
            raise GenerationError(
                f"the recorded noise holds {held} frames and {stop} are needed. Record a longer one."
            )
