"""Pre-norm decoder stack of the Qwen kind: grouped-query attention, rotary positions, SwiGLU.

    x [B, T, D] -> hidden [B, T, D] after the final norm

One definition serves Qwen3-TTS's talker, code predictor and codec transformer, CosyVoice3's language
model and IndexTTS2's emotion classifier; what differs between them are booleans of DecoderConfig.
Tap names, in order, for a stack named P: P.layer.{i}.in, .query, .key, .attention, .mlp, .out ; P.norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.cache import Rows
from sonant.nn.norm import LayerScale, RMSNorm
from sonant.nn.rope import rope_table, rotate_half_split
from sonant.nn.tap import tap


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and switches of one stack; each family fills it from its own config file."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int  # explicit: it is not width / heads in every checkpoint
    intermediate: int
    rope_theta: float
    norm_eps: float
    qk_norm: bool = False
    """RMS norm of each query and key head, before the rotation (Qwen3)."""
    qkv_bias: bool = False
    """Biases on q, k and v, none on o (Qwen2)."""
    layer_scale: bool = False
    """Both residual branches times a learned vector (the 12.5 Hz codec)."""
    window: int | None = None
    """A position sees itself and window - 1 earlier ones; None sees all."""

    def __post_init__(self) -> None:
        assert self.heads % self.kv_heads == 0, "query heads divide over kv heads"


class Attention(nn.Module):
    """Causal grouped-query attention. Source: arXiv 2305.13245."""

    def __init__(self, config: DecoderConfig, name: str) -> None:
        super().__init__()
        self.config = config
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, inner, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, kv, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, kv, bias=config.qkv_bias)
        self.o_proj = nn.Linear(inner, config.width, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps)
        self._query_tap, self._key_tap = f"{name}.query", f"{name}.key"

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        rows: Rows | None,
        layer: int,
    ) -> Tensor:
        c = self.config
        batch, length, _ = x.shape
        query = self.q_proj(x).view(batch, length, c.heads, c.head_dim)
        key = self.k_proj(x).view(batch, length, c.kv_heads, c.head_dim)
        value = self.v_proj(x).view(batch, length, c.kv_heads, c.head_dim).transpose(1, 2)
        if c.qk_norm:
            query, key = self.q_norm(query), self.k_norm(key)
        query = tap(self._query_tap, rotate_half_split(query.transpose(1, 2), cos, sin))
        key = tap(self._key_tap, rotate_half_split(key.transpose(1, 2), cos, sin))
        if rows is not None:
            key, value = rows.append(layer, key, value)
        # [B, H, T, head_dim]
        out = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=c.heads != c.kv_heads
        )
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)). Source: arXiv 2002.05202."""

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, intermediate, bias=False)
        self.up_proj = nn.Linear(width, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: DecoderConfig, name: str) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.norm_eps)
        self.self_attn = Attention(config, name)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps)
        self.mlp = SwiGLU(config.width, config.intermediate)
        self.has_scale = config.layer_scale
        if config.layer_scale:
            self.self_attn_layer_scale = LayerScale(config.width)
            self.mlp_layer_scale = LayerScale(config.width)
        self._in_tap, self._out_tap = f"{name}.in", f"{name}.out"
        self._attention_tap, self._mlp_tap = f"{name}.attention", f"{name}.mlp"

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        rows: Rows | None,
        layer: int,
    ) -> Tensor:
        x = tap(self._in_tap, x)
        branch = self.self_attn(self.input_layernorm(x), cos, sin, mask, rows, layer)
        branch = tap(self._attention_tap, branch)
        x = x + (self.self_attn_layer_scale(branch) if self.has_scale else branch)
        branch = tap(self._mlp_tap, self.mlp(self.post_attention_layernorm(x)))
        return tap(self._out_tap, x + (self.mlp_layer_scale(branch) if self.has_scale else branch))


class Decoder(nn.Module):
    """The stack and its final norm.

    forward: x [B, T, D] -> [B, T, D]. With `rows`, positions and mask follow the cache (which grows by
    T); without, positions count from 0 and the mask is causal. `positions` [B, T] and `mask`
    [B, 1, T, T] (True = may look) override these, for left-padded batches.
    Attribute names are the checkpoints' own (`layers.N.self_attn.q_proj`, ..., `norm`).
    """

    def __init__(self, config: DecoderConfig, name: str) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            DecoderLayer(config, f"{name}.layer.{index}") for index in range(config.layers)
        )
        self.norm = RMSNorm(config.width, config.norm_eps)
        self._norm_tap = f"{name}.norm"

    def forward(
        self,
        x: Tensor,
        *,
        rows: Rows | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        window = self.config.window
        if rows is not None:
            positions = rows.positions if positions is None else positions
            if mask is None:
                mask = rows.mask if window is None else rows.windowed(window)
        else:
            length = x.shape[1]
            steps = torch.arange(length, device=x.device)
            if positions is None:
                positions = steps[None]
            if mask is None:
                distance = steps[:, None] - steps[None, :]
                seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
                mask = seen[None, None]
        if x.dtype == torch.float64:
            positions = positions.double()
        cos, sin = rope_table(positions, self.config.head_dim, self.config.rope_theta)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)  # [B, 1, T, head_dim / 2]
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, mask, rows, index)
        if rows is not None:
            rows.commit()
        return tap(self._norm_tap, self.norm(x))
