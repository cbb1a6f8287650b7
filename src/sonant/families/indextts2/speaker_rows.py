"""How a speaker enters the GPT: out of the clip's features (IndexTTS2), or of its style vector (2.5).

Either gives latents [N, D], to which the emotion vector is added, and two rows that follow them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonant.families.indextts2.conditioning import Conditioner
from sonant.families.indextts2.config import ConditionConfig
from sonant.nn.tap import tap

FOLLOWERS = 2
"""Rows between the latents and the text."""


class ResampledSpeaker(nn.Module):
    """IndexTTS2: normalised w2v-bert features [1, T, H] -> 32 latents; two learned rows follow."""

    def __init__(
        self, config: ConditionConfig, *, features: int, width: int, latents: int, positions: int
    ) -> None:
        super().__init__()
        self.conditioner = Conditioner(
            config, inner=features, width=width, latents=latents, positions=positions, name="gpt.speaker"
        )
        self.speeds = nn.Embedding(FOLLOWERS, width)  # 0 is the plain duration row, 1 its "half" companion

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return self.conditioner(features)[0]

    def followers(self) -> Tensor:
        """[2, D], the "half" row first."""
        return self.speeds.weight.flip(0)


class ProjectedSpeaker(nn.Module):
    """IndexTTS-2.5: style vector [1, S] -> one latent; two rows of zeros follow."""

    def __init__(self, style: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(style, width)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return tap("gpt.speaker.latents", self.projection(style)[None])[0]

    def followers(self) -> Tensor:
        """[2, D]: zeros. Parity: without them the logits move by 1.9 on the tiny original."""
        weight = self.projection.weight
        return torch.zeros(FOLLOWERS, weight.shape[0], dtype=weight.dtype, device=weight.device)
