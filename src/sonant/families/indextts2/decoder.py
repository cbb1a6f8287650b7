"""Codes of one utterance -> waveform: features, flow matching, vocoder, all when the codes are complete."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sonant.errors import GenerationError
from sonant.families.indextts2.gpt import IndexGpt
from sonant.families.indextts2.s2mel import S2Mel
from sonant.families.indextts2.semantic_codec import HalfRateCodec, SemanticCodec
from sonant.families.indextts2.vocoder import BigVgan
from sonant.nn import sampling
from sonant.nn.tap import tap


@dataclass(frozen=True, eq=False, kw_only=True)
class DecodeInputs:
    """What the mel half needs of a prompt."""

    ids: tuple[int, ...]
    latents: Tensor
    """Speaker latents [N, D]."""
    emotion: Tensor
    """Emotion vector [D]."""
    style: Tensor
    """[1, S]"""
    mel: Tensor
    """Prompt mel [1, M, P]."""
    condition: Tensor
    """Prompt condition [1, P, C]."""
    steps: int
    guidance: float
    seed: int
    duration: float = 1.0
    """Of the speech, as a multiple of the model's own."""


class CodeFeatures(Protocol):
    """What turns codes into features at 50 Hz."""

    @property
    def stage(self) -> str:
        """Its name in the timings."""
        ...

    @property
    def codes(self) -> int:
        """Size of the code book."""
        ...

    def __call__(self, codes: Tensor, inputs: DecodeInputs) -> Tensor:
        """Features [1, T, H] of codes [n]."""
        ...


@dataclass(frozen=True, eq=False)
class LatentFeatures:
    """IndexTTS2: hidden states of a second pass of the GPT, and what the codes stand for in the codec."""

    gpt: IndexGpt
    codec: SemanticCodec
    s2mel: S2Mel
    stage: str = "latent"

    @property
    def codes(self) -> int:
        """Size of the code book."""
        return self.codec.quantiser.codebook.num_embeddings

    def __call__(self, codes: Tensor, inputs: DecodeInputs) -> Tensor:
        latents = self.gpt.latents(inputs.latents, inputs.emotion, inputs.ids, codes).float()
        return self.s2mel.features(latents, self.codec.quantiser.embed(codes[None]))


@dataclass(frozen=True, eq=False)
class DecodedFeatures:
    """IndexTTS-2.5: the codec's decoder."""

    codec: HalfRateCodec
    stage: str = "codec"

    @property
    def codes(self) -> int:
        """Size of the code book."""
        return self.codec.quantiser.codebook.num_embeddings

    def __call__(self, codes: Tensor, inputs: DecodeInputs) -> Tensor:
        return tap("s2mel.features", self.codec.decode(codes[None]))


@dataclass(eq=False, kw_only=True)
class IndexDecoder:
    """Gathers codes and speaks them at `finish`: the flow needs all of them at once.

    `noise` [1, M, T] starts the flow; without it, it is drawn from the prompt's seed. `timings` are the
    seconds of each stage.
    """

    features: CodeFeatures
    s2mel: S2Mel
    vocoder: BigVgan
    inputs: DecodeInputs
    noise: Tensor | None = None
    timings: dict[str, float] = field(default_factory=dict)
    _pieces: list[Tensor] = field(default_factory=list)

    def push(self, tokens: Tensor) -> Tensor:
        """Nothing yet, [0]: codes [n, 1] are only remembered."""
        self._pieces.append(tokens.reshape(-1))
        return torch.zeros(0)

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """Waveform [S] of all codes. Raises GenerationError when they cannot be spoken."""
        device = self.inputs.condition.device
        codes = torch.cat([torch.zeros(0, dtype=torch.long), *(p.cpu() for p in self._pieces)])
        codes = tap("s2mel.codes", codes).to(device)
        self._check(codes)
        i = self.inputs
        with self._timed(self.features.stage, device):
            features = self.features(codes, i)
        with self._timed("flow", device):
            condition = self.s2mel.condition(features, i.duration)
            condition = torch.cat((i.condition, condition), dim=1)
            noise = self.noise
            if noise is None:
                rng = sampling.generator(i.seed, "flow noise")
                noise = torch.randn(1, i.mel.shape[1], condition.shape[1], generator=rng)
            noise = tap("s2mel.noise", noise)
            mel = self.s2mel.generate(
                condition, i.mel, i.style, noise.to(device), steps=i.steps, guidance=i.guidance
            )[..., i.mel.shape[-1] :]
        with self._timed("vocoder", device):
            return self.vocoder(mel)[0, 0].cpu()

    def _check(self, codes: Tensor) -> None:
        if codes.numel() == 0:
            raise GenerationError(
                "the model ended the segment without a single code; expected speech. "
                "Try another seed, or other words."
            )
        outside = codes >= self.features.codes
        if bool(outside.any()):
            raise GenerationError(
                f"the model chose code {int(codes[outside][0])} at place {int(outside.nonzero()[0])}; its "
                f"code book has {self.features.codes} (the start code lies outside it). Try "
                "another seed, or set the option mask_start_code."
            )

    @contextmanager
    def _timed(self, stage: str, device: torch.device) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        if device.type == "cuda":  # to wait for the whole device would break others' recordings
            torch.cuda.current_stream(device).synchronize()
        self.timings[stage] = time.perf_counter() - begun
