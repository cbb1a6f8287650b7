"""The convolutions of `channel_last.py` and linear layers in C, on float32 or bfloat16 inputs.

The arithmetic is that of the torch layers but for the order of the sums, which depends on the weight
alone: any split of the input and any number of threads give the same samples to the bit. With `narrow`,
weights and inputs of a product are rounded to bfloat16, everything else stays float32.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from sonant.nn.channel_last import TimeConv, TimeConvTranspose
from sonant.nn.snake import SnakeBeta


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
        if self._snake is None and isinstance(before, SnakeBeta):
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
            done = self._library.sonant_conv_run(
                self.handle,
                length,
                x[row].data_ptr(),
                None if speed is None else speed.data_ptr(),
                None if size is None else size.data_ptr(),
                past[row].data_ptr(),
                following[row].data_ptr(),
                None if self.bias is None else self.bias.data_ptr(),
                None if residual is None else residual[row].data_ptr(),
                y[row].data_ptr(),
                torch.get_num_threads(),
            )
            if not done:
                raise MemoryError(f"no memory for {length} rows of {width} values")
        return y.view(batch, length * self.stride, self.outer // self.stride), following


class NativeRows(nn.Module):
    """nn.Linear in C: x [..., C_in] -> [..., C_out]."""

    def __init__(self, library: ctypes.CDLL, linear: nn.Linear, *, narrow: bool = False) -> None:
        super().__init__()
        self.product = NativeTimeConv(library, linear.weight[:, None], linear.bias, narrow=narrow)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.product(x.reshape(1, -1, x.shape[-1]))
        return y.view(*x.shape[:-1], -1)


def native_products(module: nn.Module, library: ctypes.CDLL, *, narrow: bool = False) -> None:
    """Replace every dense convolution and linear layer inside `module`; its float32 weights are let go."""
    for name, child in module.named_children():
        replaced = _native(child, library, narrow=narrow)
        if replaced is None:
            native_products(child, library, narrow=narrow)
        else:
            setattr(module, name, replaced)


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
