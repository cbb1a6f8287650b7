"""Codec encoder, a Mimi encoder: waveform [B, S] at 24 kHz -> tokens [B, T, K] at 12.5 Hz.

    waveform -> strided causal convolutions (25 Hz) -> transformer -> x2 downsampling
        -> semantic quantizer, and acoustic residual quantizers of the same input
Source: Mimi, arXiv 2410.00037.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.qwen3_tts.config import CodecEncoderConfig
from sonant.nn.conv import CausalConv1d
from sonant.nn.norm import LayerScale
from sonant.nn.quantize import ResidualCodebooks
from sonant.nn.rope import rope_table, rotate_half_split
from sonant.nn.tap import tap

# Samples of one pass through the convolutions: a multiple of every frame length in use would be exact
# in itself; `encode` rounds it to one.
PIECE_SECONDS = 10


class ResidualBlock(nn.Module):
    """x + conv1(elu(conv_k(elu(x)))), narrower in the middle."""

    def __init__(self, width: int, config: CodecEncoderConfig) -> None:
        super().__init__()
        inner = width // config.compress
        self.first = CausalConv1d(width, inner, config.residual_kernel_size)
        self.second = CausalConv1d(inner, width, 1)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, past = self.first(F.elu(x), past)
        y, _ = self.second(F.elu(y))
        return x + y, past


class ConvolutionStack(nn.Module):
    """Waveform [B, 1, S] -> [B, D, S / prod(ratios)], in pieces."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        width = config.filters
        self.first = CausalConv1d(1, width, config.kernel_size)
        self.residuals, self.strided = nn.ModuleList(), nn.ModuleList()
        for ratio in reversed(config.upsampling_ratios):
            self.residuals.append(ResidualBlock(width, config))
            self.strided.append(CausalConv1d(width, 2 * width, 2 * ratio, ratio))
            width *= 2
        self.last = CausalConv1d(width, config.width, config.last_kernel_size)
        self.stride = math.prod(config.upsampling_ratios)

    def forward(self, x: Tensor, pasts: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        kept: list[Tensor] = []

        def run(layer: nn.Module, x: Tensor) -> Tensor:
            y, past = layer(x, None if pasts is None else pasts[len(kept)])
            kept.append(past)
            return y

        x = run(self.first, x)
        for residual, strided in zip(self.residuals, self.strided, strict=True):
            x = run(residual, x)
            x = run(strided, F.elu(x))
        return run(self.last, F.elu(x)), kept


class EncoderLayer(nn.Module):
    """x += scale(attention(norm(x))); x += scale(mlp(norm(x))). Attention sees everything earlier."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.config = config
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.input_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.q_proj = nn.Linear(config.width, inner, bias=False)
        self.k_proj = nn.Linear(config.width, kv, bias=False)
        self.v_proj = nn.Linear(config.width, kv, bias=False)
        self.o_proj = nn.Linear(inner, config.width, bias=False)
        self.self_attn_layer_scale = LayerScale(config.width)
        self.post_attention_layernorm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.width, config.intermediate, bias=False)
        self.fc2 = nn.Linear(config.intermediate, config.width, bias=False)
        self.mlp_layer_scale = LayerScale(config.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        c = self.config
        batch, length, _ = x.shape
        normed = self.input_layernorm(x)
        query = self.q_proj(normed).view(batch, length, c.heads, c.head_dim).transpose(1, 2)
        key = self.k_proj(normed).view(batch, length, c.kv_heads, c.head_dim).transpose(1, 2)
        value = self.v_proj(normed).view(batch, length, c.kv_heads, c.head_dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(
            rotate_half_split(query, cos, sin),
            rotate_half_split(key, cos, sin),
            value,
            is_causal=True,
            enable_gqa=c.heads != c.kv_heads,
        )
        x = x + self.self_attn_layer_scale(self.o_proj(out.transpose(1, 2).reshape(batch, length, -1)))
        y = self.fc2(F.gelu(self.fc1(self.post_attention_layernorm(x))))
        return x + self.mlp_layer_scale(y)


class CodecEncoder(nn.Module):
    """The whole encoder. Attribute names are near the checkpoint's; see `weights.py`."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.convolutions = ConvolutionStack(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        stride = config.downsampling
        self.downsample = nn.Conv1d(config.width, config.width, 2 * stride, stride=stride, bias=False)
        split = config.semantic_quantizers
        self.semantic = ResidualCodebooks(split, config.codebook_size, config.codebook_dim)
        self.semantic_in = nn.Conv1d(config.width, config.codebook_dim, 1, bias=False)
        self.acoustic = ResidualCodebooks(
            config.quantizers - split, config.codebook_size, config.codebook_dim
        )
        self.acoustic_in = nn.Conv1d(config.width, config.codebook_dim, 1, bias=False)

    def embed(self, waveform: Tensor) -> Tensor:
        """Waveform [B, S] -> [B, D, T] at the frame rate, before quantisation."""
        frame = self.convolutions.stride * self.config.downsampling
        piece = PIECE_SECONDS * self.config.sampling_rate // frame * frame
        pieces, pasts = [], None
        for start in range(0, waveform.shape[-1], piece):
            x, pasts = self.convolutions(waveform[:, None, start : start + piece], pasts)
            pieces.append(x)
        x = tap("codec_encoder.seanet.out", torch.cat(pieces, dim=-1))
        x = x.transpose(1, 2)
        positions = torch.arange(x.shape[1], device=x.device)
        cos, sin = rope_table(positions, self.config.head_dim, self.config.rope_theta)
        for index, layer in enumerate(self.layers):
            x = tap(f"codec_encoder.layer.{index}.out", layer(x, cos, sin))
        x = tap("codec_encoder.transformer.out", x.transpose(1, 2))
        stride = self.downsample.stride[0]
        x = F.pad(x, (stride, -x.shape[-1] % stride), mode="replicate")
        return tap("codec_encoder.downsample.out", self.downsample(x))

    def forward(self, waveform: Tensor, quantizers: int | None = None) -> Tensor:
        """Waveform [B, S] -> tokens [B, T, K]; T = ceil(S / samples a frame), K all or `quantizers`."""
        x = self.embed(waveform)
        split = self.config.semantic_quantizers
        # Parity: both quantizers start from the same embedding, not one from the other's remainder.
        semantic = self.semantic.encode(self.semantic_in(x).transpose(1, 2))
        rest = None if quantizers is None else quantizers - split
        acoustic = self.acoustic.encode(self.acoustic_in(x).transpose(1, 2), rest)
        return tap("codec_encoder.tokens", torch.cat((semantic, acoustic), dim=-1))
