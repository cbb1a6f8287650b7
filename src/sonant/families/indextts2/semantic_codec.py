"""MaskGCT's semantic codec, as far as speaking needs it: features -> codes -> quantised features.

    features [B, T, D] at 50 Hz -> codes [B, T] -> [B, T, D] projected back

Tap names: codec.encoder, codec.in_project, codec.codes, codec.out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.indextts2.config import CodecConfig
from sonant.nn.tap import tap

NORM_EPS = 1e-6  # Source: vocos


class ConvNeXt(nn.Module):
    """Depthwise convolution, norm, Linear, GELU, Linear, learned gain, residual: x [B, D, T]."""

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.pwconv1 = nn.Linear(width, intermediate)
        self.pwconv2 = nn.Linear(intermediate, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).transpose(1, 2))
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.transpose(1, 2)


class VocosBackbone(nn.Module):
    """x [B, D_in, T] -> [B, T, D]."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.embed = nn.Conv1d(config.hidden_size, config.vocos_dim, 7, padding=3)
        self.norm = nn.LayerNorm(config.vocos_dim, NORM_EPS)
        self.convnext = nn.ModuleList(
            ConvNeXt(config.vocos_dim, config.vocos_intermediate_dim) for _ in range(config.vocos_num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(config.vocos_dim, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x.transpose(1, 2))


class SemanticCodec(nn.Module):
    """Encoder and the one factorised vector quantiser. Source: MaskGCT, arXiv 2409.00750."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.encoder = nn.ModuleList((VocosBackbone(config), nn.Linear(config.vocos_dim, config.hidden_size)))
        self.in_project = nn.Conv1d(config.hidden_size, config.codebook_dim, 1)
        self.out_project = nn.Conv1d(config.codebook_dim, config.hidden_size, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T] of features [B, T, D]: the nearest code vector, both sides at unit length."""
        x = features.transpose(1, 2)
        for stage in self.encoder:
            x = stage(x)
        x = tap("codec.encoder", x)
        small = tap("codec.in_project", self.in_project(x.transpose(1, 2)))  # [B, 8, T]
        queries = F.normalize(small.transpose(1, 2), dim=-1)  # [B, T, 8]
        book = F.normalize(self.codebook.weight, dim=-1)  # [N, 8]
        distance = (
            queries.pow(2).sum(-1, keepdim=True) - 2 * queries @ book.T + book.pow(2).sum(-1)[None, None]
        )
        return tap("codec.codes", distance.argmin(dim=-1))

    def embed(self, codes: Tensor) -> Tensor:
        """Quantised features [B, T, D] of codes [B, T]; the code vectors are not normalised here."""
        return tap("codec.out", self.out_project(self.codebook(codes).transpose(1, 2)).transpose(1, 2))

    def quantise(self, features: Tensor) -> Tensor:
        """Features [B, T, D] replaced by their quantised selves."""
        return self.embed(self.encode(features))
