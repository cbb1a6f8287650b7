"""`transformer.Decoder` for one or a few new positions a row, with shapes that never change.

Where a row is comes in as tensors, so a step can be recorded once and replayed (nn/replay.py), and rows of
different age are one batch. Same weights and mathematics as `Decoder`, with fewer and larger operations:
query, key and value are one product, and so are gate and up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.cache import KVCache
from sonant.nn.rope import rope_table
from sonant.nn.transformer import Decoder

SHORTEST_REACH = 128
"""Cache positions that attention looks at, at least; it doubles as a row grows."""


def batch_sizes(slots: int) -> list[int]:
    """The sizes of batch that steps are made for: 1, 2, 4, ... and all."""
    sizes = [1]
    while sizes[-1] < slots:
        sizes.append(min(2 * sizes[-1], slots))
    return sizes


def reaches(capacity: int) -> list[int]:
    """The numbers of positions that steps look at: 128, 256, ... and all."""
    made = [min(SHORTEST_REACH, capacity)]
    while made[-1] < capacity:
        made.append(min(2 * made[-1], capacity))
    return made


@dataclass(frozen=True, eq=False)
class Reach:
    """What a step sees of a cache, and where it writes.

    keys and values are a layer's storage each, [B, kv_heads, capacity, head_dim], and take the new positions
    [B, L]; the first `length` places are looked at, with `mask` [B or 1, 1, L, length] added to the scores
    (None: all of them are visible to every new position).
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    positions: Tensor
    mask: Tensor | None
    length: int

    @classmethod
    def of(cls, cache: KVCache, positions: Tensor, length: int) -> Reach:
        """For the next position [B] of each of the first B rows, which sees all before it."""
        rows, store = positions.shape[0], cache.keys[0]
        is_ahead = torch.arange(length, device=store.device) > positions[:, None]
        mask = torch.zeros(is_ahead.shape, dtype=store.dtype, device=store.device)
        return cls(
            [keys[:rows] for keys in cache.keys],
            [values[:rows] for values in cache.values],
            positions[:, None],
            mask.masked_fill(is_ahead, float("-inf"))[:, None, None],
            length,
        )

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [B, L, kv_heads, head_dim] of one layer; all that is looked at."""
        keys, values = self.keys[layer], self.values[layer]
        rows = torch.arange(key.shape[0], device=key.device)[:, None]
        keys[rows, :, self.positions] = key
        values[rows, :, self.positions] = value
        return keys[:, :, : self.length], values[:, :, : self.length]


class _Layer:
    """The weights of one layer, fused; the decoder's own become views of them, so nothing is held twice."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv = _fused(projections)
        biases = [projection.bias for projection in projections if projection.bias is not None]
        self.qkv_bias = torch.cat([bias.data for bias in biases]) if biases else None
        self.gate_up = _fused((mlp.gate_proj, mlp.up_proj))
        self.out, self.down = attention.o_proj.weight.data, mlp.down_proj.weight.data
        self.before_attention = layer.input_layernorm.weight.data
        self.before_mlp = layer.post_attention_layernorm.weight.data
        self.head_norm: Tensor | None = None
        """[heads + kv_heads, head_dim]: of every query head, then of every key head."""
        if attention.config.qk_norm:
            counts = (attention.config.heads, attention.config.kv_heads)
            norms = (attention.q_norm.weight.data, attention.k_norm.weight.data)
            self.head_norm = torch.cat(
                [norm.expand(count, -1) for norm, count in zip(norms, counts, strict=True)]
            )


def _fused(linears: Sequence[nn.Linear]) -> Tensor:
    fused = torch.cat([linear.weight.data for linear in linears])
    start = 0
    for linear in linears:
        rows = linear.weight.shape[0]
        linear.weight = nn.Parameter(fused[start : start + rows], requires_grad=False)
        start += rows
    return fused


class StepStack:
    """The steps of one decoder; `reach` says up to which position."""

    def __init__(self, decoder: Decoder) -> None:
        config = decoder.config
        assert config.window is None, "a step looks back without limit"
        assert not config.layer_scale, "residual branches are not scaled"
        self.config = config
        self.norm = decoder.norm.weight.data
        self.layers = [_Layer(layer) for layer in decoder.layers]
        self._cos = self._sin = torch.empty(0)

    def reach(self, capacity: int) -> None:
        """Have the rotations of positions 0 .. capacity - 1 ready."""
        if capacity <= self._cos.shape[0]:
            return
        places = torch.arange(capacity, device=self.norm.device)
        if self.norm.dtype == torch.float64:
            places = places.double()
        cos, sin = rope_table(places, self.config.head_dim, self.config.rope_theta)
        # With the first half of the sines negated, a rotation is x * cos + (x rolled by a half) * sin.
        self._cos = torch.cat((cos, cos), dim=-1).to(self.norm.dtype)
        self._sin = torch.cat((-sin, sin), dim=-1).to(self.norm.dtype)

    def __call__(self, x: Tensor, reach: Reach) -> Tensor:
        """Hidden states [B, L, D] after the final norm of x [B, L, D]."""
        c = self.config
        batch, new, _ = x.shape
        groups, turning = c.heads // c.kv_heads, c.heads + c.kv_heads
        cos, sin = self._cos[reach.positions][:, :, None], self._sin[reach.positions][:, :, None]
        mask = reach.mask
        if mask is not None:  # the query heads of one key head stand in a row: [B, 1, groups * L, length]
            mask = mask[:, :, None].expand(-1, -1, groups, -1, -1).flatten(2, 3)
        for index, layer in enumerate(self.layers):
            made = F.linear(_norm(x, layer.before_attention, c.norm_eps), layer.qkv, layer.qkv_bias)
            made = made.view(batch, new, turning + c.kv_heads, c.head_dim)
            turned, value = made[:, :, :turning], made[:, :, turning:]
            if layer.head_norm is not None:
                turned = _norm(turned, layer.head_norm, c.norm_eps)
            turned = torch.addcmul(turned * cos, turned.roll(c.head_dim // 2, -1), sin)
            keys, values = reach.write(index, turned[:, :, c.heads :], value)
            query = turned[:, :, : c.heads].view(batch, new, c.kv_heads, groups, c.head_dim)
            query = query.permute(0, 2, 3, 1, 4).reshape(batch, c.kv_heads, groups * new, c.head_dim)
            seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            seen = seen.view(batch, c.kv_heads, groups, new, c.head_dim).permute(0, 3, 1, 2, 4)
            x = _plus_product(x, seen.reshape(batch, new, -1), layer.out)
            gate, up = F.linear(_norm(x, layer.before_mlp, c.norm_eps), layer.gate_up).chunk(2, dim=-1)
            x = _plus_product(x, F.silu(gate) * up, layer.down)
        return _norm(x, self.norm, c.norm_eps)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None, eps) * weight


def _plus_product(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """x [B, L, D] + y [B, L, K] weight^T [K, D]"""
    return torch.addmm(x.flatten(0, 1), y.flatten(0, 1), weight.t()).view_as(x)
