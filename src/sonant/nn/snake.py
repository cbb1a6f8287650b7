"""Periodic activations. Source: Snake, arXiv 2006.08195; SnakeBeta, BigVGAN, arXiv 2206.04658."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """x + sin^2(alpha x) / (alpha + 1e-9) with one alpha for each channel: x [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def terms(self) -> tuple[Tensor, Tensor]:
        """What each channel [C] is multiplied with inside the sine, and what its square is."""
        return self.alpha, 1.0 / (self.alpha + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        speed, size = self.terms()
        return x + size[:, None] * torch.sin(x * speed[:, None]).pow(2)


class SnakeBeta(nn.Module):
    """x + sin^2(exp(alpha) x) / (exp(beta) + 1e-9), one alpha and beta (both logarithms) a channel.

    forward: x [B, C, T], or [B, T, C] with `channels_last`.
    """

    def __init__(self, channels: int, *, channels_last: bool = False) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.channels_last = channels_last

    def terms(self) -> tuple[Tensor, Tensor]:
        """What each channel [C] is multiplied with inside the sine, and what its square is."""
        return self.alpha.exp(), 1.0 / (self.beta.exp() + 1e-9)

    def forward(self, x: Tensor) -> Tensor:
        speed, size = self.terms()
        if not self.channels_last:
            speed, size = speed[:, None], size[:, None]
        return torch.addcmul(x, size, torch.sin(x * speed).square_())
