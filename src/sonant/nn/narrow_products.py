"""What a precision with losses multiplies a flow's many rows in, on a CPU: decided here, for every family.

Steps of a language model wait for weights to be read; a flow meets its weights with hundreds of frames at a
time and waits for products. Where the processor multiplies bfloat16, that is the quicker form. Where it has
AVX2 and no AVX512, products of int16 are twice as many as float32 ones: weights of 13 bits and inputs of 14
in groups of 64 with a scale each (src/sonant/native/fixed.c). Elsewhere products stay in float32.
"""

from __future__ import annotations

import ctypes
from enum import Enum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.native import PATHS, check_done, features, library
from sonant.nn.mapped import give_back
from sonant.nn.native_conv import NativeConv1d, native_products
from sonant.nn.packed import PackedLinear
from sonant.nn.quantized import slab_bytes

GROUP, MOST_WEIGHT, MOST_INPUT = 64, 4095, 8191
"""Numbers that share a scale, and the largest codes. Source: native/fixed.c."""


class NarrowForm(Enum):
    """What weights and inputs of a narrow product are."""

    BFLOAT16 = "bfloat16"
    FIXED = "fixed point"


def narrow_form() -> NarrowForm | None:
    """The narrow form that is quicker than float32 on this processor; None where there is none."""
    found = library()
    if found is None:
        return None
    if found.sonant_conv_has_bfloat16():
        return NarrowForm.BFLOAT16
    # Measured with AVX2 alone (docs/benchmarks.md); with any AVX512 float32 has twice the width, too.
    is_avx2 = found.sonant_best_path() == PATHS.index("AVX2") and "avx512f" not in features()
    return NarrowForm.FIXED if is_avx2 else None


def saved_bytes(numbers: int) -> int:
    """Memory that so many float32 weights give back when their products are narrow on this processor."""
    form = narrow_form()
    if form is None:
        return 0
    if form is NarrowForm.BFLOAT16:
        return 2 * numbers
    return 4 * numbers - slab_bytes(2 * numbers + 4 * numbers // GROUP)


def narrow_products(*parts: nn.Module) -> None:
    """Replace the linear layers inside each part by narrow ones; without such a form nothing changes."""
    form, found = narrow_form(), library()
    for part in parts:
        if found is not None and form is NarrowForm.BFLOAT16:
            native_products(part, found, narrow=True)
        elif found is not None and form is NarrowForm.FIXED:
            _fix(part, found)


def state_narrow_products(*parts: nn.Module) -> None:
    """What `narrow_products` makes of a part in the coarser of both forms, bfloat16, on any processor.

    In torch, where every stage can be seen. Convolutions that are in C already stay as they are.
    """
    for part in parts:
        for name, child in part.named_children():
            if isinstance(child, nn.Linear | PackedLinear):
                setattr(part, name, RoundedRows(child.plain() if isinstance(child, PackedLinear) else child))
            else:
                state_narrow_products(child)


def narrow_convolution(library: ctypes.CDLL, layer: nn.Conv1d) -> nn.Module:
    """A dense convolution of stride 1 in the narrow form, in float32 where there is none."""
    form = narrow_form()
    if form is NarrowForm.FIXED and layer.dilation == (1,):
        return FixedConv1d(library, layer)
    return NativeConv1d(library, layer, narrow=form is NarrowForm.BFLOAT16)


def _fix(module: nn.Module, library: ctypes.CDLL) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, FixedRows(library, child))
            give_back(*child.parameters())
        else:
            _fix(child, library)


class RoundedRows(nn.Module):
    """nn.Linear whose inputs and weights are rounded to bfloat16; bias and sums keep the layer's dtype."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(_rounded(linear.weight.detach()), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(_rounded(x), self.weight, self.bias)


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().to(x.dtype)


class FixedProduct(nn.Module):
    """Products in fixed point: weight [C_out, taps, C_in], of overlapping rows where there are several taps.

    A row's result is the same to the bit beside any others and for any number of threads. A number
    that is NaN or infinite makes its row NaN.
    """

    def __init__(self, library: ctypes.CDLL, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rows = weight.detach().float().contiguous()
        self.outer, self.taps, self.inner = rows.shape
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone(), requires_grad=False)
        self._library = library
        self.handle = library.sonant_fixed_new(self.outer, self.inner, self.taps, rows.data_ptr())
        if not self.handle:
            raise MemoryError(f"no memory for a {list(rows.shape)} weight")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.sonant_fixed_free(self.handle)

    def over(self, x: Tensor) -> Tensor:
        """x [B, T + taps - 1, C_in] -> [B, T, C_out], float32."""
        x = x.float().contiguous()
        y = torch.empty(x.shape[0], x.shape[1] - self.taps + 1, self.outer)
        if not y.numel():
            return y
        for rows, found in zip(x, y, strict=True):
            done = self._library.sonant_fixed_run(
                self.handle,
                found.shape[0],
                rows.data_ptr(),
                None if self.bias is None else self.bias.data_ptr(),
                found.data_ptr(),
                torch.get_num_threads(),
            )
            check_done(done, f"{rows.shape[0]} rows of {self.inner} values")
        return y


class FixedRows(nn.Module):
    """nn.Linear in fixed point: x [..., C_in] -> [..., C_out]."""

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear) -> None:
        super().__init__()
        self.product = FixedProduct(library, linear.weight[:, None], linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product.over(x.reshape(1, -1, x.shape[-1])).view(*x.shape[:-1], self.product.outer)


class FixedConv1d(NativeConv1d):
    """nn.Conv1d of stride and dilation 1 in fixed point: x [B, C_in, T] -> [B, C_out, T'], in rows."""

    def make(self, library: ctypes.CDLL, layer: nn.Conv1d, *, narrow: bool) -> nn.Module:
        """The product of rows."""
        assert layer.stride == layer.dilation == (1,)
        assert layer.groups == 1
        return FixedProduct(library, layer.weight.transpose(1, 2), layer.bias)
