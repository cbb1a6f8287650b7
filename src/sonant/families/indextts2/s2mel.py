"""Codes and latents -> mel: the length regulator and flow matching around the DiT.

    codes [n] + latents [n, D] -> features [n, H]; in IndexTTS-2.5 the codec gives features
    features [T, H] at 50 Hz -> condition [int(1.72 T), C]
    prompt condition + condition, prompt mel, style, noise -> 25 Euler steps -> mel [M, T]

Tap names: s2mel.gpt_layer, .vq2emb, .features, .condition, .step.{i}.x, .step.{i}.velocity, .mel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.errors import RequestError
from sonant.families.indextts2.config import RegulatorConfig, S2MelConfig
from sonant.families.indextts2.dit import Dit
from sonant.nn.flow import guided, linear_times, solve_euler
from sonant.nn.tap import is_tapped, tap

FRAMES_PER_FEATURE = 1.72  # mel frames of a 50 Hz feature: 22050 / 256 / 50. Source: the original's constant


def frames_of(features: int, duration: float = 1.0) -> int:
    """Mel frames of so many features.

    Parity: multiplied from left to right and cut, not rounded; another order gives other lengths.
    """
    return max(1, int(features * FRAMES_PER_FEATURE * duration))


class LengthRegulator(nn.Module):
    """Nearest neighbour in time, then convolutions: x [B, T, H], frames -> [B, frames, C].

    It stretches; it predicts no durations.
    """

    def __init__(self, config: RegulatorConfig) -> None:
        super().__init__()
        self.content_in_proj = nn.Linear(config.in_channels, config.channels)
        layers: list[nn.Module] = []
        for _ in config.sampling_ratios:
            layers.append(nn.Conv1d(config.channels, config.channels, 3, padding=1))
            layers.append(nn.GroupNorm(1, config.channels))
            layers.append(nn.Mish())
        layers.append(nn.Conv1d(config.channels, config.channels, 1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.content_in_proj(x).transpose(1, 2)
        x = F.interpolate(x, size=frames, mode="nearest")
        return self.model(x).transpose(1, 2)


class S2Mel(nn.Module):
    """The mel half: length regulator, velocity network, and where `latent_widths` are given a projection."""

    def __init__(self, config: S2MelConfig, *, latent_widths: Sequence[int], intermediate: int) -> None:
        super().__init__()
        self.config = config
        # Three Linears without activations between them.
        linears = [nn.Linear(inner, outer) for inner, outer in pairwise(latent_widths)]
        self.gpt_layer = nn.Sequential(*linears) if linears else None
        self.length_regulator = LengthRegulator(config.regulator)
        self.estimator = Dit(config.dit, config.wavenet, style=config.style_dim, intermediate=intermediate)

    def features(self, latents: Tensor, embedded: Tensor) -> Tensor:
        """Features [1, n, H] of latents [1, n, D] and embedded codes [1, n, H]."""
        assert self.gpt_layer is not None
        projected = tap("s2mel.gpt_layer", self.gpt_layer(latents))
        return tap("s2mel.features", tap("s2mel.vq2emb", embedded) + projected)

    def condition(self, features: Tensor, duration: float = 1.0) -> Tensor:
        """Condition [1, frames, C] of features [1, T, H]; `duration` 2 is half the pace."""
        frames = frames_of(features.shape[1], duration)
        return tap("s2mel.condition", self.length_regulator(features, frames))

    def generate(
        self,
        condition: Tensor,
        prompt: Tensor,
        style: Tensor,
        noise: Tensor,
        *,
        steps: int,
        guidance: float,
    ) -> Tensor:
        """Mel [1, M, T], prompt region included (zero there), from noise [1, M, T].

        condition [1, T, C] covers prompt and speech, prompt [1, M, P] is the reference mel, style [1, S].
        Guidance g moves away from the unconditional velocity: (1 + g) v - g v_null; 0 asks for v alone.
        """
        length, known = condition.shape[1], prompt.shape[-1]
        if noise.shape[-1] != length:
            raise RequestError(
                f"the flow noise has {noise.shape[-1]} frames; expected {length}. Draw it for this length."
            )
        if self.config.dit.zero_prompt_speech_token:
            condition = torch.cat((torch.zeros_like(condition[:, :known]), condition[:, known:]), dim=1)
        x = noise.clone()
        x[..., :known] = 0  # the prompt region is never integrated
        padded = torch.zeros_like(x)
        padded[..., :known] = prompt
        if guidance > 0:  # one batch of two: with conditions, and with none
            padded, condition, style = (
                torch.cat((tensor, torch.zeros_like(tensor))) for tensor in (padded, condition, style)
            )

        # A trace sees the prompt's velocity as well.
        unwanted = 0 if is_tapped() else known

        def velocity(x: Tensor, time: Tensor, step: int) -> Tensor:
            rows = padded.shape[0]
            x = tap(f"s2mel.step.{step}.x", x).expand(rows, -1, -1)
            moved = self.estimator(x, padded, condition, style, time.expand(rows), known=unwanted)
            moved = tap(f"s2mel.step.{step}.velocity", moved)
            if guidance > 0:
                moved = guided(moved[:1], moved[1:], guidance)
            return F.pad(moved[..., known - unwanted :], (known, 0))

        x = solve_euler(velocity, x, linear_times(steps).to(x))
        return tap("s2mel.mel", x)
