"""Int8 and int4 weights for the autoregressive networks on a CPU.

Weights are quantised symmetrically by groups along the input axis, activations to int8 by the same
groups on the fly. `PlainLinear` states the arithmetic in torch; `NativeLinear` and `NativeDecoder` run
the same in C (src/sonant/native/stack.c). Both stand in for `nn.Linear` and `nn.transformer.Decoder`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.cache import CacheRows
from sonant.nn.rope import rope_table
from sonant.nn.tap import tap
from sonant.nn.transformer import Decoder, DecoderLayer

TILE = 64
"""Output rows that the C kernel takes together."""
BLOCK = 64
"""Tokens of one call into C; longer prefills go in blocks of this size."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored: bits 8 or 4, in groups of `group` inputs with one scale each."""

    bits: int
    group: int


INT8 = Precision(bits=8, group=64)
INT4 = Precision(bits=4, group=32)
PRECISIONS: Mapping[str, Precision] = {"int8": INT8, "int4": INT4}


def quantize_weight(weight: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """Codes [N, K] int8 and scales [N, G] of a weight [N, K]; the last group may be shorter.

    int8: scale = largest magnitude / 127. int4: scale = the entry of largest magnitude / -8, so that
    all sixteen levels are used.
    """
    grouped = _grouped(weight.float(), precision.group)
    place = grouped.abs().argmax(dim=-1, keepdim=True)
    peak = grouped.gather(-1, place)
    scale = peak.abs() / 127 if precision.bits == 8 else peak / -8
    scale = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
    low, high = (-127, 127) if precision.bits == 8 else (-8, 7)
    codes = (grouped / scale).round().clamp(low, high)
    return codes.flatten(1)[:, : weight.shape[1]].to(torch.int8), scale[..., 0]


def quantize_activation(x: Tensor, group: int) -> Tensor:
    """x [..., K] rounded to int8 by groups and back to float: what the kernel multiplies with."""
    grouped = _grouped(x.float(), group)
    scale = grouped.abs().amax(dim=-1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
    return ((grouped / scale).round() * scale).flatten(-2)[..., : x.shape[-1]]


def _grouped(x: Tensor, group: int) -> Tensor:
    surplus = -x.shape[-1] % group
    padded = F.pad(x, (0, surplus))
    return padded.view(*padded.shape[:-1], -1, group)


class PlainLinear(nn.Module):
    """The quantised linear layer in plain torch, for any size; the reference for the C kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: Precision) -> None:
        super().__init__()
        codes, scales = quantize_weight(weight, precision)
        wide = scales.repeat_interleave(precision.group, dim=1)[:, : weight.shape[1]]
        self.group = precision.group
        self.weight = nn.Parameter(codes.float() * wide, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(quantize_activation(x, self.group), self.weight, self.bias)


class _Packed:
    """One weight matrix in the kernel's own memory, freed with this object."""

    def __init__(self, library: ctypes.CDLL, weight: Tensor, precision: Precision) -> None:
        rows, inputs = weight.shape
        self.rows, self.inputs, self.precision = rows, inputs, precision
        self._library = library
        self.handle = library.sonant_linear_new(rows, inputs, precision.bits, precision.group)
        if not self.handle:
            raise MemoryError(f"no memory for a {rows} x {inputs} weight")
        source = weight.detach().float().contiguous()
        library.sonant_linear_pack(self.handle, source.data_ptr())

    def __del__(self) -> None:
        if self.handle:
            self._library.sonant_linear_free(self.handle)


class NativeLinear(nn.Module):
    """The quantised linear layer in C: x [..., K] -> [..., N], float32 in and out."""

    def __init__(
        self, library: ctypes.CDLL, weight: Tensor, bias: Tensor | None, precision: Precision
    ) -> None:
        super().__init__()
        self._library = library
        self._packed = _Packed(library, weight, precision)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        packed = self._packed
        flat = x.reshape(-1, packed.inputs).float().contiguous()
        count, groups = flat.shape[0], packed.inputs // packed.precision.group
        out = torch.empty(count, packed.rows)
        codes = torch.empty(count, packed.inputs, dtype=torch.int8)
        scales = torch.empty(count, groups)
        sums = torch.empty(count, groups, dtype=torch.int32)
        self._library.sonant_linear_run(
            packed.handle,
            count,
            flat.data_ptr(),
            out.data_ptr(),
            codes.data_ptr(),
            scales.data_ptr(),
            sums.data_ptr(),
            torch.get_num_threads(),
        )
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], packed.rows)


class NativeDecoder(nn.Module):
    """`nn.transformer.Decoder` with quantised weights in C; called alike, with cache rows only.

    forward: x [B, T, D], rows -> [B, T, D] float32 after the final norm. The cache stays the caller's.
    """

    def __init__(self, library: ctypes.CDLL, decoder: Decoder, name: str, precision: Precision) -> None:
        super().__init__()
        config = decoder.config
        assert fits(decoder, precision), "sizes were checked by quantize_decoder"
        self.config = config
        self._library = library
        self._norm_tap = f"{name}.norm"
        self._kept: list[Any] = []  # weights and norms that C points to
        self._stack = library.sonant_stack_new(
            config.layers,
            config.width,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.intermediate,
            config.norm_eps,
            config.rope_theta,
            BLOCK,
        )
        for index, layer in enumerate(decoder.layers):
            self._add(index, layer, precision)
        library.sonant_stack_norm(self._stack, self._pointer(decoder.norm.weight))

    def _add(self, index: int, layer: Any, precision: Precision) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        qkv = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        middle, width = mlp.gate_proj.weight.shape
        gate_up = torch.stack(
            [
                mlp.gate_proj.weight.view(middle // TILE, TILE, width),
                mlp.up_proj.weight.view(middle // TILE, TILE, width),
            ],
            dim=1,
        ).reshape(2 * middle, width)
        bias = None
        if self.config.qkv_bias:
            bias = self._pointer(
                torch.cat([attention.q_proj.bias, attention.k_proj.bias, attention.v_proj.bias])
            )
        matrices = [
            _Packed(self._library, weight, precision)
            for weight in (qkv, attention.o_proj.weight, gate_up, mlp.down_proj.weight)
        ]
        self._kept.extend(matrices)
        has_norm = self.config.qk_norm
        self._library.sonant_stack_layer(
            self._stack,
            index,
            *(matrix.handle for matrix in matrices),
            self._pointer(layer.input_layernorm.weight),
            self._pointer(layer.post_attention_layernorm.weight),
            self._pointer(attention.q_norm.weight) if has_norm else None,
            self._pointer(attention.k_norm.weight) if has_norm else None,
            bias,
        )

    def _pointer(self, tensor: Tensor) -> int:
        kept = tensor.detach().float().clone().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()

    def __del__(self) -> None:
        if getattr(self, "_stack", None):
            self._library.sonant_stack_free(self._stack)

    def forward(
        self, x: Tensor, *, rows: CacheRows, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        assert positions is None, "positions follow the cache"
        assert mask is None, "so does the mask"
        batch, length, width = x.shape
        slots = torch.tensor(rows.slots, dtype=torch.int32).repeat_interleave(length)
        positions = rows.positions.reshape(-1).to(torch.int32)
        cos, sin = rope_table(positions, self.config.head_dim, self.config.rope_theta)
        keys = (ctypes.c_void_p * self.config.layers)(*(k.data_ptr() for k in rows.cache.keys))
        values = (ctypes.c_void_p * self.config.layers)(*(v.data_ptr() for v in rows.cache.values))
        flat = x.reshape(-1, width).float().contiguous()
        hidden = torch.empty_like(flat)
        for start in range(0, flat.shape[0], BLOCK):
            part = slice(start, min(start + BLOCK, flat.shape[0]))
            self._library.sonant_stack_run(
                self._stack,
                part.stop - part.start,
                flat[part].data_ptr(),
                slots[part].data_ptr(),
                positions[part].data_ptr(),
                keys,
                values,
                rows.cache.capacity,
                cos[part].data_ptr(),
                sin[part].data_ptr(),
                hidden[part].data_ptr(),
                torch.get_num_threads(),
            )
        rows.commit()
        return tap(self._norm_tap, hidden.view(batch, length, width))


def fits(decoder: Decoder, precision: Precision) -> bool:
    """True when the sizes of a stack suit the kernel's tiles and groups."""
    c = decoder.config
    inner, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    return (
        not c.layer_scale
        and c.window is None
        and all(rows % TILE == 0 for rows in (inner + 2 * kv, c.width, c.intermediate))
        and all(inputs % precision.group == 0 for inputs in (c.width, inner, c.intermediate))
        and c.head_dim % 2 == 0
    )


def quantize_linear(linear: nn.Module, precision: Precision) -> nn.Module:
    """The layer with quantised weights: in C where its sizes allow it, else in torch."""
    from sonant.native import library

    assert isinstance(linear, nn.Linear)
    rows, inputs = linear.weight.shape
    loaded = library()
    if loaded is None or rows % TILE or inputs % precision.group:
        return PlainLinear(linear.weight, linear.bias, precision)
    return NativeLinear(loaded, linear.weight, linear.bias, precision)


def quantize_decoder(decoder: nn.Module, name: str, precision: Precision) -> nn.Module:
    """The stack with quantised weights: in C where its sizes allow it, else layer by layer in torch.

    The torch form changes `decoder` in place and returns it.
    """
    from sonant.native import library

    assert isinstance(decoder, Decoder)
    loaded = library()
    if loaded is not None and fits(decoder, precision):
        return NativeDecoder(loaded, decoder, name, precision)
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        for owner in (layer.self_attn, layer.mlp):
            for child, module in list(owner.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(owner, child, PlainLinear(module.weight, module.bias, precision))
    return decoder
