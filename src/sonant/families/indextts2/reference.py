"""A reference clip -> everything the model knows of a voice, or of an emotion.

    clip -> 22.05 kHz, at most 15 s -> prompt mel; -> 16 kHz -> w2v-bert features, style vector
    features -> quantised (not in IndexTTS-2.5) -> prompt condition; -> speaker latents; -> emotion vector

Tap names: reference.audio_22k, .audio_16k, .semantic, .quantised, .mel, .fbank, .condition; the networks'
own taps come between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.audio.fbank import fbank
from sonant.audio.mel import MelConfig, log_mel
from sonant.audio.resample import resample_sinc, resample_soxr
from sonant.errors import RequestError
from sonant.families.indextts2.campplus import CampPlus
from sonant.families.indextts2.config import S2MelConfig
from sonant.families.indextts2.s2mel import LengthRegulator
from sonant.families.indextts2.semantic_codec import SemanticCodec
from sonant.families.indextts2.w2v_bert import W2vBert, seamless_features
from sonant.nn.tap import tap
from sonant.request.audio import Audio

SEMANTIC_RATE = 16_000
LONGEST = 15  # seconds of a clip that are listened to. Source: the original
MEL_FLOOR, ENERGY_FLOOR = 1e-5, 1e-9


def mel_config(config: S2MelConfig) -> MelConfig:
    """The prompt mel's settings."""
    s = config.spectrogram
    return MelConfig(
        sample_rate=config.sample_rate,
        n_fft=s.n_fft,
        hop=s.hop_length,
        bins=s.n_mels,
        padding=(s.n_fft - s.hop_length) // 2,
        window=s.win_length,
        low=s.fmin,
        high=s.highest,
        energy_floor=ENERGY_FLOOR,
        floor=MEL_FLOOR,
    )


@dataclass(frozen=True, eq=False)
class SpeakerFeatures:
    """What a speaker's clip gives."""

    semantic: Tensor
    """Normalised w2v-bert features [1, T, H]."""
    style: Tensor
    """[1, S]"""
    mel: Tensor
    """Prompt mel [1, M, P]."""
    condition: Tensor
    """Prompt condition [1, P, C]."""


@dataclass(frozen=True, eq=False)
class ReferenceEncoder:
    """The networks that listen, float32."""

    w2v_bert: W2vBert
    mean: Tensor
    deviation: Tensor
    codec: SemanticCodec | None
    """What quantises the features that the prompt condition is made of; without it they are taken raw."""
    campplus: CampPlus
    regulator: LengthRegulator
    config: S2MelConfig
    device: torch.device | str

    def load(self, audio: Audio, sample_rate: int) -> Tensor:
        """At most 15 s of a clip [S] at a rate, by soxr."""
        if not audio.samples.size:
            raise RequestError("the reference audio is empty; expected speech. Give another clip.")
        samples = resample_soxr(audio.samples, audio.sample_rate, sample_rate)
        cut = torch.from_numpy(samples[: LONGEST * sample_rate].copy())
        return cut.to(self.device)

    def semantic(self, waveform: Tensor) -> Tensor:
        """Normalised w2v-bert features [1, T, H] of waveform [S] at 16 kHz."""
        features, whole = seamless_features(waveform)
        hidden = self.w2v_bert(features[None], whole[None])
        return tap("reference.semantic", (hidden - self.mean) / self.deviation)

    def speaker(self, audio: Audio) -> SpeakerFeatures:
        """Features of a speaker's clip. Raises RequestError when it is too short."""
        waveform = tap("reference.audio_22k", self.load(audio, self.config.sample_rate))
        narrow = resample_sinc(waveform, self.config.sample_rate, SEMANTIC_RATE)
        narrow = tap("reference.audio_16k", narrow)
        semantic = self.semantic(narrow)
        content = semantic
        if self.codec is not None:
            content = tap("reference.quantised", self.codec.quantise(semantic))
        mel = tap("reference.mel", log_mel(waveform[None], mel_config(self.config)))
        bank = tap("reference.fbank_raw", fbank(narrow))
        bank = tap("reference.fbank", bank - bank.mean(dim=0, keepdim=True))
        style = self.campplus(bank[None])
        condition = tap("reference.condition", self.regulator(content, mel.shape[-1]))
        return SpeakerFeatures(semantic, style, mel, condition)

    def emotion(self, audio: Audio) -> Tensor:
        """Normalised w2v-bert features [1, T, H] of an emotion clip.

        Parity: resampled straight to 16 kHz, so even a speaker's own clip gives slightly other numbers.
        """
        return self.semantic(tap("reference.emotion_16k", self.load(audio, SEMANTIC_RATE)))
