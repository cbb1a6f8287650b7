"""Conditioning of the GPT: w2v-bert features [B, T, D] -> latents [B, N, width].

    2-D convolution (time / 2) -> conformer -> perceiver resampler

One pair makes 32 speaker latents, a second one makes the single emotion latent.
Tap names for a pair named P: P.embed, P.positions, P.layer.{i}.attention, .convolution, .out, P.out,
P.perceiver.{i}.attention, .feed_forward, P.latents.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.errors import RequestError
from sonant.families.indextts2.config import ConditionConfig
from sonant.nn.tap import tap

KERNEL = 15  # depthwise kernel. Source: the original class's default
HEAD_DIM = 64  # of the perceiver, whatever the widths are
PERCEIVER_LAYERS = 2
NORM_EPS = 1e-5


class Subsampling(nn.Module):
    """x [B, T, D] -> [B, (T - 1) // 2, width]: 3x3 convolution of stride 2, ReLU, Linear."""

    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, width, 3, 2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(width * ((inner - 1) // 2), width))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < 3:
            raise RequestError(
                f"the reference audio gives {x.shape[1]} feature frames; expected at least 3. "
                "Give a longer clip."
            )
        x = self.conv(x[:, None])  # [B, width, T', D']
        return self.out(x.transpose(1, 2).flatten(2))


class PositionedAttention(nn.Module):
    """Attention with a content term and a term for the key's own place.

    Parity: Transformer-XL's relative shift is missing in the original, so the position term depends on
    where the key is, not on how far away it is.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_dim))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        query, key, value = (
            self._heads(self.linear_q(x)),
            self._heads(self.linear_k(x)),
            self._heads(self.linear_v(x)),
        )
        places = self._heads(self.linear_pos(positions))  # [1, H, T, head_dim]
        content = (query + self.pos_bias_u[:, None]) @ key.transpose(-1, -2)
        placed = (query + self.pos_bias_v[:, None]) @ places.transpose(-1, -2)
        weights = ((content + placed) / math.sqrt(self.head_dim)).softmax(dim=-1)
        return self.linear_out((weights @ value).transpose(1, 2).flatten(2))


class ConvolutionModule(nn.Module):
    """Pointwise with gate, depthwise over 15 frames, norm, SiLU, pointwise: x [B, T, D] -> [B, T, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise_conv(F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1))
        x = F.silu(self.norm(x.transpose(1, 2)))
        return self.pointwise_conv2(x.transpose(1, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, intermediate)
        self.w_2 = nn.Linear(intermediate, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w_2(F.silu(self.w_1(x)))


class ConformerLayer(nn.Module):
    """Attention, convolution, feed-forward, each behind a norm and with a residual; a norm at the end."""

    def __init__(self, config: ConditionConfig, name: str) -> None:
        super().__init__()
        width = config.output_size
        self.self_attn = PositionedAttention(width, config.attention_heads)
        self.conv_module = ConvolutionModule(width)
        self.feed_forward = FeedForward(width, config.linear_units)
        self.norm_mha = nn.LayerNorm(width, NORM_EPS)
        self.norm_conv = nn.LayerNorm(width, NORM_EPS)
        self.norm_ff = nn.LayerNorm(width, NORM_EPS)
        self.norm_final = nn.LayerNorm(width, NORM_EPS)
        self.name = name

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + tap(f"{self.name}.attention", self.self_attn(self.norm_mha(x), positions))
        x = x + tap(f"{self.name}.convolution", self.conv_module(self.norm_conv(x)))
        x = x + self.feed_forward(self.norm_ff(x))
        return tap(f"{self.name}.out", self.norm_final(x))


class Conformer(nn.Module):
    """x [B, T, D] -> [B, (T - 1) // 2, width]. Parity: nothing is ever masked, see the note on lengths.

    The original passes the feature width as the length of the clip; at 15 s and less that masks nothing.
    """

    def __init__(self, inner: int, config: ConditionConfig, positions: int, name: str) -> None:
        super().__init__()
        width = config.output_size
        self.embed = Subsampling(inner, width)
        self.encoders = nn.ModuleList(
            ConformerLayer(config, f"{name}.layer.{index}") for index in range(config.num_blocks)
        )
        self.after_norm = nn.LayerNorm(width, NORM_EPS)
        self.position_table = nn.Parameter(torch.zeros(1, positions, width))
        self.scale = math.sqrt(width)
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        x = tap(f"{self.name}.embed", self.embed(x) * self.scale)
        positions = tap(f"{self.name}.positions", self.position_table[:, : x.shape[1]])
        for layer in self.encoders:
            x = layer(x, positions)
        return tap(f"{self.name}.out", self.after_norm(x))


class ResamplerAttention(nn.Module):
    """Latents ask, latents and context answer: queries [B, N, D], context [B, T, D] -> [B, N, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * HEAD_DIM, bias=False)
        self.to_kv = nn.Linear(width, 2 * heads * HEAD_DIM, bias=False)
        self.to_out = nn.Linear(heads * HEAD_DIM, width, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        key, value = self.to_kv(torch.cat((x, context), dim=1)).chunk(2, dim=-1)
        query, key, value = (
            part.view(part.shape[0], part.shape[1], self.heads, HEAD_DIM).transpose(1, 2)
            for part in (self.to_q(x), key, value)
        )
        out = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(out.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """Linear to twice the width, gelu(second half) * first half, Linear back. Source: arXiv 2002.05202."""

    def __init__(self, width: int, mult: int) -> None:
        super().__init__()
        inner = int(width * mult * 2 / 3)
        self.up = nn.Linear(width, 2 * inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.up(x).chunk(2, dim=-1)
        return self.down(F.gelu(second) * first)


class ResamplerLayer(nn.Module):
    """Attention and feed-forward with residuals, no norms."""

    def __init__(self, width: int, heads: int, mult: int, name: str) -> None:
        super().__init__()
        self.attention = ResamplerAttention(width, heads)
        self.feed_forward = GatedFeedForward(width, mult)
        self.name = name

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = tap(f"{self.name}.attention", self.attention(x, context)) + x
        return tap(f"{self.name}.feed_forward", self.feed_forward(x)) + x


class Perceiver(nn.Module):
    """context [B, T, C] -> latents [B, N, D]. Source: arXiv 2103.03206, as in the tortoise family."""

    def __init__(self, inner: int, width: int, latents: int, heads: int, mult: int, name: str) -> None:
        super().__init__()
        # Parity: no projection where the widths agree
        self.proj_context = nn.Linear(inner, width) if inner != width else nn.Identity()
        self.latents = nn.Parameter(torch.zeros(latents, width))
        self.layers = nn.ModuleList(
            ResamplerLayer(width, heads, mult, f"{name}.perceiver.{index}")
            for index in range(PERCEIVER_LAYERS)
        )
        self.gamma = nn.Parameter(torch.ones(width))
        self.scale = math.sqrt(width)

    def forward(self, context: Tensor) -> Tensor:
        context = self.proj_context(context)
        x = self.latents.expand(context.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, context)
        return F.normalize(x, dim=-1) * self.scale * self.gamma


class Conditioner(nn.Module):
    """A conformer and the perceiver behind it: features [B, T, D] -> latents [B, N, width]."""

    def __init__(
        self,
        config: ConditionConfig,
        *,
        inner: int,
        width: int,
        latents: int,
        positions: int,
        name: str,
    ) -> None:
        super().__init__()
        self.conformer = Conformer(inner, config, positions, name)
        self.perceiver = Perceiver(
            config.output_size, width, latents, config.attention_heads, config.perceiver_mult, name
        )
        self.name = name

    def forward(self, features: Tensor) -> Tensor:
        return tap(f"{self.name}.latents", self.perceiver(self.conformer(features)))
