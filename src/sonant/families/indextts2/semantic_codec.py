"""The semantic codecs, as far as speaking needs them.

    IndexTTS2     features [B, T, D] at 50 Hz -> codes [B, T] -> [B, T, D] projected back
    IndexTTS-2.5  codes [B, T] at 25 Hz -> [B, T, D] projected back -> decoder -> features [B, 2 T, D]

Tap names: codec.encoder, codec.in_project, codec.codes, codec.out; in 2.5 codec.out, codec.decoder,
codec.repeated, codec.up. Inside encoder and decoder: .embed, .norm, .block.{i}.dwconv, .norm, .pwconv1,
.pwconv2, .out, and .final_norm.
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

    def __init__(self, width: int, intermediate: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.pwconv1 = nn.Linear(width, intermediate)
        self.pwconv2 = nn.Linear(intermediate, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = tap(f"{self.name}.dwconv", self.dwconv(x))
        y = tap(f"{self.name}.norm", self.norm(y.transpose(1, 2)))
        y = tap(f"{self.name}.pwconv1", self.pwconv1(y))
        y = tap(f"{self.name}.pwconv2", self.pwconv2(F.gelu(y)))
        return tap(f"{self.name}.out", x + (self.gamma * y).transpose(1, 2))


class VocosBackbone(nn.Module):
    """x [B, D_in, T] -> [B, T, D]."""

    def __init__(self, config: CodecConfig, name: str) -> None:
        super().__init__()
        self.name = name
        self.embed = nn.Conv1d(config.hidden_size, config.vocos_dim, 7, padding=3)
        self.norm = nn.LayerNorm(config.vocos_dim, NORM_EPS)
        self.convnext = nn.ModuleList(
            ConvNeXt(config.vocos_dim, config.vocos_intermediate_dim, f"{name}.block.{index}")
            for index in range(config.vocos_num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(config.vocos_dim, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = tap(f"{self.name}.embed", self.embed(x)).transpose(1, 2)
        x = tap(f"{self.name}.norm", self.norm(x)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        return tap(f"{self.name}.final_norm", self.final_layer_norm(x.transpose(1, 2)))


def vocos(config: CodecConfig, name: str) -> nn.ModuleList:
    """Backbone and the Linear behind it; the first takes channels first, both give frames first."""
    return nn.ModuleList((VocosBackbone(config, name), nn.Linear(config.vocos_dim, config.hidden_size)))


class Quantiser(nn.Module):
    """One factorised vector quantiser: features [B, T, D] <-> codes [B, T], through vectors of 8 numbers."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.in_project = nn.Conv1d(config.hidden_size, config.codebook_dim, 1)
        self.out_project = nn.Conv1d(config.codebook_dim, config.hidden_size, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, T] of x [B, T, D]: the nearest code vector, both sides at unit length."""
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


class SemanticCodec(nn.Module):
    """IndexTTS2's: encoder and quantiser. Source: MaskGCT, arXiv 2409.00750."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.encoder = vocos(config, "codec.encoder")
        self.quantiser = Quantiser(config)

    def encode(self, features: Tensor) -> Tensor:
        """Codes [B, T] of features [B, T, D]."""
        x = features.transpose(1, 2)
        for stage in self.encoder:
            x = stage(x)
        return self.quantiser.encode(tap("codec.encoder", x))

    def quantise(self, features: Tensor) -> Tensor:
        """Features [B, T, D] replaced by their quantised selves."""
        return self.quantiser.embed(self.encode(features))


class HalfRateCodec(nn.Module):
    """IndexTTS-2.5's, from the codes on: codes [B, T] at 25 Hz -> features [B, 2 T, D] at 50 Hz."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.quantiser = Quantiser(config)
        self.decoder = vocos(config, "codec.decoder")
        self.up = nn.Conv1d(config.hidden_size, config.hidden_size, 3, padding=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Features of codes; every frame is repeated, then smoothed by a convolution."""
        x = self.quantiser.embed(codes).transpose(1, 2)
        for stage in self.decoder:
            x = stage(x)
        x = tap("codec.decoder", x).transpose(1, 2)
        repeated = tap("codec.repeated", F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return tap("codec.up", self.up(repeated)).transpose(1, 2)
