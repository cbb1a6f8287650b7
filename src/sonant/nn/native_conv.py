"""The convolutions of `channel_last.py` and linear layers in C, on float32 or bfloat16 inputs.

The arithmetic is that of the torch layers but for the order of the sums, which depends on the weight
alone: any split of the input and any number of threads give the same samples to the bit. With `narrow`,
weights and inputs of a product are rounded to bfloat16, everything else stays float32.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.native import DONE, check_done
from sonant.nn.channel_last import TimeConv, TimeConvTranspose
from sonant.nn.mapped import give_back
from sonant.nn.snake import Snake, SnakeBeta


class NativeTimeConv(nn.Module):
    """Stands in for TimeConv, TimeConvTranspose and nn.Linear; called as they are.

    weight: rows [C_out * stride, taps, C_in], copied into the kernel's memory. An activation `before` is
    taken to be the same in every call.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        weight: Tensor,
        bias: Tensor | None,
        *,
        dilation: int = 1,
        stride: int = 1,
        narrow: bool = False,
    ) -> None:
        super().__init__()
        rows = weight.detach().float().contiguous()
        self.outer, self.taps, self.inner = rows.shape
        self.stride = stride
        self.context = (self.taps - 1) * dilation
        self.bias = None if bias is None else nn.Parameter(bias.detach().float().clone(), requires_grad=False)
        self._snake: tuple[Tensor, Tensor] | None = None
        self._library = library
        self.handle = library.sonant_conv_new(
            self.inner, self.outer, self.taps, dilation, narrow and self.inner % 2 == 0, rows.data_ptr()
        )
        if not self.handle:
            raise MemoryError(f"no memory for a {list(rows.shape)} weight")

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.sonant_conv_free(self.handle)

    def _terms(self, before: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
        """The terms of the Snake before this layer, which is always the same one."""
        if self._snake is None and isinstance(before, Snake | SnakeBeta):
            speed, size = before.terms()
            self._snake = (speed.float().contiguous(), size.float().contiguous())
        return self._snake or (None, None)

    def forward(
        self,
        x: Tensor,
        past: Tensor | None = None,
        *,
        before: nn.Module | None = None,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As TimeConv: x [B, T, C_in] -> y [B, T * stride, C_out], past."""
        batch, length, width = x.shape
        x = x.contiguous()
        past = x.new_zeros(batch, self.context, width) if past is None else past.contiguous()
        following = torch.empty_like(past)
        y = x.new_empty(batch, length, self.outer)
        residual = None if residual is None else residual.contiguous()
        speed, size = self._terms(before)
        if before is not None and speed is None:
            x = before(x).contiguous()
        for row in range(batch):
            terms = (speed, size, past[row], following[row])
            self._run(x[row], terms, None if residual is None else residual[row], y[row])
        return y.view(batch, length * self.stride, self.outer // self.stride), following

    def over(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Of rows that begin with their past: x [B, context + T, C_in] -> y [B, T * stride, C_out].

        `residual` [B, T, C_out * stride] is added. What a layer sees ahead is then a matter of the padding.
        """
        length = x.shape[1] - self.context
        x = x.contiguous()
        y = x.new_empty(x.shape[0], length, self.outer)
        residual = None if residual is None else residual.contiguous()
        for row in range(x.shape[0]):
            self._run(x[row], (None,) * 4, None if residual is None else residual[row], y[row])
        return y.view(x.shape[0], length * self.stride, self.outer // self.stride)

    def _run(self, x: Tensor, terms: tuple[Tensor | None, ...], residual: Tensor | None, y: Tensor) -> None:
        """One call into C; the terms are speed and size of a Snake, past and following."""
        done = self._library.sonant_conv_run(
            self.handle,
            y.shape[0],
            x.data_ptr(),
            *(None if term is None else term.data_ptr() for term in terms),
            None if self.bias is None else self.bias.data_ptr(),
            None if residual is None else residual.data_ptr(),
            y.data_ptr(),
            torch.get_num_threads(),
        )
        if done != DONE:
            check_done(done, f"{x.shape[0]} rows of {x.shape[1]} values")


class NativeRows(nn.Module):
    """nn.Linear in C: x [..., C_in] -> [..., C_out]."""

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear, *, narrow: bool = False) -> None:
        super().__init__()
        self.product = NativeTimeConv(library, linear.weight[:, None], linear.bias, narrow=narrow)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.product(x.reshape(1, -1, x.shape[-1]))
        return y.view(*x.shape[:-1], -1)


def rows_of(x: Tensor) -> Tensor:
    """[B, C, T] as rows [B, T, C]; no copy where it already lies in memory like that."""
    return x.transpose(1, 2).contiguous()


def of_rows(rows: Tensor) -> Tensor:
    """Rows [B, T, C] as [B, C, T], a view that stays laid out in rows."""
    return rows.transpose(1, 2)


def native_rows(library: ctypes.CDLL, layer: nn.Conv1d, *, narrow: bool = False) -> NativeTimeConv:
    """A dense convolution of stride 1 in C, on rows; padding is the caller's."""
    assert layer.stride == (1,)
    assert layer.groups == 1
    rows = layer.weight.transpose(1, 2)
    return NativeTimeConv(library, rows, layer.bias, dilation=layer.dilation[0], narrow=narrow)


class NativeConv1d(nn.Module):
    """nn.Conv1d of stride 1 in C: x [B, C_in, T] -> [B, C_out, T'], laid out in rows."""

    def __init__(self, library: ctypes.CDLL, layer: nn.Conv1d, *, narrow: bool = False) -> None:
        super().__init__()
        self.conv: Any = self.make(library, layer, narrow=narrow)
        assert not isinstance(layer.padding, str)
        self.padding = layer.padding[0]

    def make(self, library: ctypes.CDLL, layer: nn.Conv1d, *, narrow: bool) -> nn.Module:
        """The product of rows."""
        return native_rows(library, layer, narrow=narrow)

    def forward(self, x: Tensor) -> Tensor:
        rows = rows_of(x)
        if self.padding:
            rows = F.pad(rows, (0, 0, self.padding, self.padding))
        return of_rows(self.conv.over(rows))


def native_products(module: nn.Module, library: ctypes.CDLL, *, narrow: bool = False) -> None:
    """Replace every dense convolution and linear layer inside `module`; its float32 weights are let go."""
    for name, child in module.named_children():
        replaced = _native(child, library, narrow=narrow)
        if replaced is None:
            native_products(child, library, narrow=narrow)
        else:
            setattr(module, name, replaced)
            give_back(*child.parameters())


def _native(layer: nn.Module, library: ctypes.CDLL, *, narrow: bool) -> nn.Module | None:
    if isinstance(layer, nn.Linear):
        return NativeRows(library, layer, narrow=narrow)
    if isinstance(layer, TimeConv) and not layer.is_depthwise:
        rows = layer.weight.transpose(1, 2)
        return NativeTimeConv(library, rows, layer.bias, dilation=layer.dilation, narrow=narrow)
    if isinstance(layer, TimeConvTranspose):
        # [C_in, C_out, k] -> the new input's taps and, where outputs overlap, those of the input before it
        inner, outer, kernel = layer.weight.shape
        taps = layer.weight.permute(2, 1, 0).reshape(kernel // layer.stride, layer.stride * outer, inner)
        rows = taps.flip(0).transpose(0, 1)
        bias = layer.bias.repeat(layer.stride)
        return NativeTimeConv(library, rows, bias, stride=layer.stride, narrow=narrow)
    return None
