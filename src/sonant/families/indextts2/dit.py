"""The velocity network of IndexTTS2's mel half: a diffusion transformer with a WaveNet tail.

    noisy mel, prompt mel, condition, style, time -> Linear -> 13 blocks with U-shaped skips
    -> Linear with the noisy mel -> WaveNet -> modulated Linear -> velocity [B, M, T]

Tap names: dit.t, dit.t2, dit.condition, dit.merged, dit.layer.{i}.skip, .attention_norm, .wqkv,
.query, .key (both rotated), .attention, .ffn_norm, .feed_forward, .out, dit.transformer, dit.skip, dit.conv1,
dit.wavenet.condition, dit.wavenet.{i}.in, .res_skip, dit.wavenet, dit.residual, dit.final, dit.out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.indextts2.config import DitConfig, WavenetConfig
from sonant.nn.norm import RMSNorm
from sonant.nn.rope import rope_table, rotate_interleaved
from sonant.nn.tap import tap

ROPE_THETA = 10_000.0
NORM_EPS = 1e-5
FINAL_EPS = 1e-6
TIME_FREQUENCIES = 128
TIME_SCALE = 1000.0
TIME_PERIOD = 10_000.0


def time_frequencies(device: torch.device | None = None) -> Tensor:
    """Angular frequencies [128] of the time embedding."""
    steps = torch.arange(TIME_FREQUENCIES, dtype=torch.float32, device=device)
    return torch.exp(-math.log(TIME_PERIOD) * steps / TIME_FREQUENCIES)


class TimeEmbedding(nn.Module):
    """Time [B] in 0..1 -> [B, D]: cosines then sines, Linear, SiLU, Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        frequencies = time_frequencies(time.device).to(time.dtype)
        angles = TIME_SCALE * time[:, None] * frequencies[None]
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))


class AdaptiveNorm(nn.Module):
    """RMS norm whose scale and shift come from the time: w * norm(x) + b.

    Parity: the scale is w itself, not 1 + w.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width, NORM_EPS)
        self.project_layer = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.project_layer(time)[:, None].chunk(2, dim=-1)
        return scale * self.norm(x) + shift


class Attention(nn.Module):
    """Full attention with rotated adjacent pairs: x [B, T, D] -> [B, T - start, D], from frame `start` on."""

    def __init__(self, width: int, heads: int, name: str) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.wqkv = nn.Linear(width, 3 * width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)
        self.name = name

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, start: int = 0) -> Tensor:
        batch, length, width = x.shape
        fused = tap(f"{self.name}.wqkv", self.wqkv(x))
        query, key, value = (
            part.view(batch, length, self.heads, self.head_dim).transpose(1, 2)
            for part in fused.chunk(3, dim=-1)
        )
        query = tap(f"{self.name}.query", rotate_interleaved(query, cos, sin))
        key = tap(f"{self.name}.key", rotate_interleaved(key, cos, sin))
        out = F.scaled_dot_product_attention(query[:, :, start:], key, value)
        return self.wo(out.transpose(1, 2).reshape(batch, length - start, width))


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, intermediate, bias=False)
        self.w3 = nn.Linear(width, intermediate, bias=False)
        self.w2 = nn.Linear(intermediate, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """Attention and feed-forward behind adaptive norms; a late block first mixes in an early output.

    forward: x [B, T, D] -> [B, T - start, D], the frames from `start` on.
    """

    def __init__(self, config: DitConfig, intermediate: int, name: str) -> None:
        super().__init__()
        width = config.hidden_dim
        self.attention = Attention(width, config.num_heads, name)
        self.feed_forward = FeedForward(width, intermediate)
        self.attention_norm = AdaptiveNorm(width)
        self.ffn_norm = AdaptiveNorm(width)
        self.skip_in_linear = nn.Linear(2 * width, width) if config.uvit_skip_connection else None
        self.name = name

    def forward(
        self, x: Tensor, time: Tensor, cos: Tensor, sin: Tensor, skip: Tensor | None, start: int = 0
    ) -> Tensor:
        name = self.name
        if skip is not None:
            assert self.skip_in_linear is not None
            x = tap(f"{name}.skip", self.skip_in_linear(torch.cat((x, skip), dim=-1)))
        y = tap(f"{name}.attention_norm", self.attention_norm(x, time))
        x = x[:, start:] + tap(f"{name}.attention", self.attention(y, cos, sin, start))
        y = tap(f"{name}.ffn_norm", self.ffn_norm(x, time))
        return tap(f"{name}.out", x + tap(f"{name}.feed_forward", self.feed_forward(y)))


class Transformer(nn.Module):
    """The blocks; the first half is remembered, the last half takes it back, last in first out.

    forward: x [B, T, D], time [B, D] -> [B, T - start, D]; the last block leaves out what comes
    before frame `start`.
    """

    def __init__(self, config: DitConfig, intermediate: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Block(config, intermediate, f"dit.layer.{index}") for index in range(config.depth)
        )
        self.norm = AdaptiveNorm(config.hidden_dim)
        self.head_dim = config.hidden_dim // config.num_heads
        self.has_skips = config.uvit_skip_connection

    def forward(self, x: Tensor, time: Tensor, start: int = 0) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        cos, sin = rope_table(positions, self.head_dim, ROPE_THETA)
        middle, last = len(self.layers) // 2, len(self.layers) - 1
        remembered: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            skip = remembered.pop() if self.has_skips and index > middle else None
            x = layer(x, time, cos, sin, skip, start if index == last else 0)
            if self.has_skips and index < middle:
                remembered.append(x)
        return tap("dit.transformer", self.norm(x, time))


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """x [B, C, T] reflected at both ends; a very short one is extended by zeros first."""
    length, longest = x.shape[-1], max(left, right)
    if longest >= length:
        extra = longest - length + 1
        return reflect_pad(F.pad(x, (0, extra)), left, right)[..., : left + length + right]
    # By rows, so that what lies in rows of channels stays so.
    places = torch.arange(-left, length + right, device=x.device).abs()
    places = (length - 1) - (length - 1 - places).abs()
    return x.transpose(1, 2).index_select(1, places).transpose(1, 2)


class WaveNet(nn.Module):
    """Gated convolutions whose skips are summed: x [B, C, T], condition [B, C] -> [B, C, T].

    Source: WaveNet, arXiv 1609.03499, as in VITS.
    """

    def __init__(self, config: WavenetConfig) -> None:
        super().__init__()
        width = config.hidden_dim
        self.width, self.kernel, self.rate = width, config.kernel_size, config.dilation_rate
        last = config.num_layers - 1
        self.cond_layer = nn.Conv1d(width, 2 * width * config.num_layers, 1)
        self.before = sum(reach - reach // 2 for reach in map(self.reach, range(config.num_layers)))
        """Earlier frames that an output depends on."""
        self.in_layers = nn.ModuleList(
            nn.Conv1d(width, 2 * width, config.kernel_size, dilation=config.dilation_rate**index)
            for index in range(config.num_layers)
        )
        self.res_skip_layers = nn.ModuleList(
            nn.Conv1d(width, width if index == last else 2 * width, 1) for index in range(config.num_layers)
        )

    def reach(self, index: int) -> int:
        """Neighbours that layer `index` sees, both sides together."""
        return (self.kernel - 1) * self.rate**index

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        conditions = tap("dit.wavenet.condition", self.cond_layer(condition[..., None]))
        total = torch.zeros_like(x)
        slices = conditions.chunk(len(self.in_layers), dim=1)
        layers = zip(self.in_layers, self.res_skip_layers, slices, strict=True)
        for index, (inner, outer, shift) in enumerate(layers):
            reach = self.reach(index)
            right = reach // 2
            y = tap(f"dit.wavenet.{index}.in", inner(reflect_pad(x, reach - right, right)))
            first, second = (y + shift).chunk(2, dim=1)
            y = tap(f"dit.wavenet.{index}.res_skip", outer(first.tanh() * second.sigmoid()))
            if y.shape[1] == self.width:  # the last layer only skips
                total = total + y
            else:
                residual, skip = y.chunk(2, dim=1)
                x, total = x + residual, total + skip
        return tap("dit.wavenet", total)


class FinalLayer(nn.Module):
    """(1 + scale) * norm(x) + shift, then Linear: x [B, T, D], time [B, D] -> [B, T, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        return self.linear(F.layer_norm(x, (self.width,), eps=FINAL_EPS) * (1 + scale) + shift)


class Dit(nn.Module):
    """Velocity at one time.

    forward: x, prompt [B, M, T], condition [B, T, C], style [B, S], time [B] -> [B, M, T - known]: the
    first `known` frames are not wanted, nor computed behind the last block's keys and values, but for those
    that the WaveNet still sees.
    """

    def __init__(self, config: DitConfig, wavenet: WavenetConfig, *, style: int, intermediate: int) -> None:
        super().__init__()
        width, mels = config.hidden_dim, config.in_channels
        self.t_embedder = TimeEmbedding(width)
        self.t_embedder2 = TimeEmbedding(wavenet.hidden_dim)
        self.cond_projection = nn.Linear(config.content_dim, width)
        self.cond_x_merge_linear = nn.Linear(2 * mels + width + style, width)
        self.transformer = Transformer(config, intermediate)
        self.skip_linear = nn.Linear(width + mels, width)
        self.conv1 = nn.Linear(width, wavenet.hidden_dim)
        self.wavenet = WaveNet(wavenet)
        self.res_projection = nn.Linear(width, wavenet.hidden_dim)
        self.final_layer = FinalLayer(wavenet.hidden_dim)
        self.conv2 = nn.Conv1d(wavenet.hidden_dim, mels, 1)

    def forward(
        self, x: Tensor, prompt: Tensor, condition: Tensor, style: Tensor, time: Tensor, *, known: int = 0
    ) -> Tensor:
        start = max(0, known - self.wavenet.before)
        embedded = tap("dit.t", self.t_embedder(time))
        noisy = x.transpose(1, 2)
        projected = tap("dit.condition", self.cond_projection(condition))
        styles = style[:, None].expand(-1, noisy.shape[1], -1)
        merged = torch.cat((noisy, prompt.transpose(1, 2), projected, styles), dim=-1)
        y = self.transformer(tap("dit.merged", self.cond_x_merge_linear(merged)), embedded, start)
        y = tap("dit.skip", self.skip_linear(torch.cat((y, noisy[:, start:]), dim=-1)))
        tail = tap("dit.conv1", self.conv1(y)).transpose(1, 2)
        tail = self.wavenet(tail, tap("dit.t2", self.t_embedder2(time))).transpose(1, 2)[:, known - start :]
        tail = tail + tap("dit.residual", self.res_projection(y[:, known - start :]))
        # Parity: modulated by the transformer's time embedding, not by the WaveNet's.
        tail = tap("dit.final", self.final_layer(tail, embedded))
        return tap("dit.out", self.conv2(tail.transpose(1, 2)))
