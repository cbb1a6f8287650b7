"""Narrow weights in plain torch: what int8, int4 and 12 bits mean, and which matrix of a stack has which.

Weights are quantised symmetrically by groups along the input axis, activations by the same groups on the
fly: to int8, or to 16 bits in two planes of int8, which cost a step next to nothing, because its time goes
into reading weights. `PlainLinear` states the arithmetic; the kernel in C is held to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.errors import RequestError
from sonant.nn.packed import PackedLinear
from sonant.nn.transformer import Decoder, DecoderLayer


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How weights are stored: 12, 8 or 4 bits by groups of `group` inputs with a scale each; 16 is bfloat16.

    Activations that meet 12, 8 or 4 bits have `planes` times 8 bits.
    """

    bits: int
    group: int = 1
    planes: int = 1

    @property
    def is_lossless(self) -> bool:
        """True when weights keep the value they have in the checkpoint."""
        return self.bits == 16


LOSSLESS = Precision(bits=16)
INT8 = Precision(bits=8, group=64, planes=2)
INT12 = Precision(bits=12, group=64, planes=2)
INT4 = Precision(bits=4, group=32)
PRECISIONS: Mapping[str, Precision] = {"lossless": LOSSLESS, "int8": INT8, "int4": INT4}


@dataclass(frozen=True, kw_only=True)
class StackPlan:
    """Which precision each matrix of a decoder stack has.

    A loss near the input is a large part of what the stream holds there, and goes through everything that
    follows: the first layers may be kept with more care than the rest.
    """

    rest: Precision
    careful: Precision | None = None
    layers: int = 0
    """Whole layers at the beginning that are kept with care."""
    attentions: int = 0
    """Layers at the beginning whose attention is kept with care."""

    def of(self, layer: int, *, is_attention: bool) -> Precision:
        """The precision of a layer's matrices, those of its attention or the others."""
        first = max(self.layers, self.attentions) if is_attention else self.layers
        return self.careful if self.careful is not None and layer < first else self.rest

    def named(self, name: str) -> Precision:
        """The precision of a weight by its name, such as `layers.3.self_attn.q_proj` or `h.3.attn.c_attn`."""
        found = re.search(r"\b(?:layers|h)\.(\d+)\.((?:self_)?attn\.)?", name)
        return self.of(int(found[1]), is_attention=bool(found[2])) if found else self.rest

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Every precision in it."""
        return (self.rest,) if self.careful is None else (self.careful, self.rest)

    @property
    def is_lossless(self) -> bool:
        """True when every weight keeps the value it has in the checkpoint."""
        return all(precision.is_lossless for precision in self.precisions)


def stack_plan(precision: str, layers: int) -> StackPlan:
    """What "lossless", "int8" or "int4" is in a language model's stack of so many layers.

    int8 has 12 bits in the first quarter of the layers. Measured on random weights of the released shapes, 28
    and 24 layers (docs/benchmarks.md): of what 8 bits pile up in the logits (squared) the first layer makes a
    quarter to a half, the first quarter of the layers half to five sixths. Raises RequestError for any other
    name.
    """
    if precision not in PRECISIONS:
        offered = ", ".join(PRECISIONS)
        raise RequestError(f"this family has no precision {precision!r}; expected one of {offered}.")
    if precision == "int8":
        return StackPlan(rest=INT8, careful=INT12, layers=max(1, layers // 4))
    return StackPlan(rest=PRECISIONS[precision])


def quantize_weight(weight: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """Codes [N, K] int16 and scales [N, G] of a weight [N, K]; the last group may be shorter.

    int8: scale = largest magnitude / 127. int4: scale = the entry of largest magnitude / -8, so that
    all sixteen levels are used. Scales are bfloat16 numbers, rounded away from zero. 12 bits: the code of
    int8 times 16, plus what is left of the weight in -8 .. 7 sixteenths of that scale.
    """
    grouped = _grouped(weight.float(), precision.group)
    least, most = grouped.amin(dim=-1, keepdim=True), grouped.amax(dim=-1, keepdim=True)
    peak = torch.where(-least > most, least, most)
    scale = peak / -8 if precision.bits == 4 else peak.abs() / 127
    scale = torch.where(scale == 0, torch.full_like(scale, 1e-12), scale)
    scale = ((scale.contiguous().view(torch.int32) + 0xFFFF) & -0x10000).view(torch.float32)
    low, high = (-8, 7) if precision.bits == 4 else (-127, 127)
    codes = (grouped / scale).round().clamp(low, high)
    if precision.bits == 12:
        rest = ((grouped - codes * scale) / scale * 16).round().clamp(-8, 7)
        codes, scale = 16 * codes + rest, scale / 16
    return codes.flatten(1)[:, : weight.shape[1]].to(torch.int16), scale[..., 0]


def quantize_activation(x: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """x [..., K] rounded to codes by groups and back to float: what the kernel multiplies with.

    Codes reach 127 in one plane of int8, 127 * 256 in two. The second tensor is the first plane alone.
    """
    grouped = _grouped(x.float(), precision.group)
    scale = grouped.abs().amax(dim=-1, keepdim=True) / (127 if precision.planes == 1 else 127 * 256)
    scale = scale.clamp_min(1e-30)
    codes = (grouped / scale).round()
    first = codes if precision.planes == 1 else ((codes + 128) / 256).floor() * 256
    whole, part = ((c * scale).flatten(-2)[..., : x.shape[-1]] for c in (codes, first))
    return whole, part


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
        self.precision = precision
        fine = (codes + 8) % 16 - 8 if precision.bits == 12 else None
        self.weight = nn.Parameter((codes if fine is None else codes - fine) * wide, requires_grad=False)
        self.fine = None if fine is None else nn.Parameter(fine * wide, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        whole, first = quantize_activation(x, self.precision)
        y = F.linear(whole, self.weight, self.bias)
        return y if self.fine is None else y + F.linear(first, self.fine)


def plain_bytes(weight: Tensor, precision: Precision) -> int:
    """Bytes that a weight [N, K] takes in torch, as `PlainLinear` keeps it or, lossless, in float32."""
    return weight.numel() * 4 * (2 if precision.bits == 12 else 1)


def plain_linear(layer: nn.Module, precision: Precision) -> nn.Module:
    """A linear layer, packed or not, with the arithmetic of a precision in torch; lossless, it stays."""
    if precision.is_lossless:
        return layer
    wide = layer.plain() if isinstance(layer, PackedLinear) else layer
    assert isinstance(wide, nn.Linear)
    return PlainLinear(wide.weight, wide.bias, precision)


def plain_stack(decoder: Decoder, plan: StackPlan) -> Decoder:
    """The stack with the arithmetic of its plan in torch, changed in place."""
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        for owner in (layer.self_attn, layer.mlp):
            precision = plan.of(index, is_attention=owner is layer.self_attn)
            for child, module in list(owner.named_children()):
                if isinstance(module, nn.Linear | PackedLinear):
                    setattr(owner, child, plain_linear(module, precision))
    return decoder
