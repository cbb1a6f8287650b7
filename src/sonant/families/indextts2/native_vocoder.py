"""Layers of BigVGAN in C, equal to the plain ones but for the order of sums.

They take and give [B, C, T] like those they stand in for, laid out in rows of channels. The oversampled
activations are what torch is slow at: in C each takes a span of rows through both filters and the Snake
without leaving the nearest cache. While a trace is recorded they run in torch, which can show their inside.
"""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.families.indextts2.vocoder import AmpBlock, BigVgan, OversampledSnake
from sonant.native import DONE, check_done
from sonant.nn.native_conv import NativeConv1d, NativeTimeConv, native_rows, of_rows, rows_of
from sonant.nn.tap import is_tapped


class NativeOversampledSnake(nn.Module):
    """`OversampledSnake`: x [B, C, T] -> the same."""

    def __init__(self, library: ctypes.CDLL, layer: OversampledSnake) -> None:
        super().__init__()
        self._library = library
        self.plain = layer
        filters = (layer.up_filter, layer.down_filter)
        self._filters = [taps.detach().float().reshape(-1).contiguous() for taps in filters]
        self._terms = [term.detach().float().contiguous() for term in layer.act.terms()]

    def padded(self, x: Tensor, *, before: int, after: int) -> Tensor:
        """Rows [B, before + T + after, C] of rows x [B, T, C], with zeros around them."""
        batch, length, channels = x.shape
        x = x.contiguous()
        around = x.new_empty(batch, before + length + after, channels)
        around[:, :before] = 0
        around[:, before + length :] = 0
        y = around[:, before : before + length]
        if is_tapped() or not length:
            y.copy_(rows_of(self.plain(of_rows(x))))
            return around
        for row in range(batch):
            addresses = (tensor.data_ptr() for tensor in (x[row], *self._filters, *self._terms, y[row]))
            done = self._library.sonant_oversampled_snake(
                length, channels, *addresses, torch.get_num_threads()
            )
            if done != DONE:
                check_done(done, f"{length} rows of {channels} channels")
        return around

    def forward(self, x: Tensor) -> Tensor:
        return of_rows(self.padded(rows_of(x), before=0, after=0))


class NativeAmpBlock(nn.Module):
    """`AmpBlock`: x [B, C, T] -> the same."""

    def __init__(self, library: ctypes.CDLL, block: AmpBlock) -> None:
        super().__init__()
        convs = [conv for pair in zip(block.convs1, block.convs2, strict=True) for conv in pair]
        self.convs = nn.ModuleList(
            native_rows(library, conv) for conv in convs if isinstance(conv, nn.Conv1d)
        )
        self.activations = nn.ModuleList(
            NativeOversampledSnake(library, activation)
            for activation in block.activations
            if isinstance(activation, OversampledSnake)
        )

    def _convolved(self, index: int, x: Tensor, residual: Tensor | None = None) -> Tensor:
        conv, activation = self.convs[index], self.activations[index]
        assert isinstance(conv, NativeTimeConv)
        assert isinstance(activation, NativeOversampledSnake)
        before = conv.context // 2
        return conv.over(activation.padded(x, before=before, after=conv.context - before), residual)

    def forward(self, x: Tensor) -> Tensor:
        x = rows_of(x)
        for index in range(0, len(self.convs), 2):
            x = self._convolved(index + 1, self._convolved(index, x), residual=x)
        return of_rows(x)


class NativeUpsample(nn.Module):
    """A transposed convolution: x [B, C_in, T] -> [B, C_out, (T - 1) * stride + kernel - 2 * padding]."""

    def __init__(self, library: ctypes.CDLL, layer: nn.ConvTranspose1d) -> None:
        super().__init__()
        inner, outer, self.kernel = layer.weight.shape
        self.stride = layer.stride[0]
        self.padding = int(layer.padding[0])
        overlap = -(-self.kernel // self.stride)  # inputs that meet in one output
        taps = layer.weight.new_zeros(overlap * self.stride, outer, inner)
        taps[: self.kernel] = layer.weight.permute(2, 1, 0)
        rows = taps.view(overlap, self.stride * outer, inner).flip(0).transpose(0, 1)
        bias = None if layer.bias is None else layer.bias.repeat(self.stride)
        self.conv = NativeTimeConv(library, rows, bias, stride=self.stride)

    def forward(self, x: Tensor) -> Tensor:
        context = self.conv.context
        length = (x.shape[-1] - 1) * self.stride + self.kernel - 2 * self.padding
        y = self.conv.over(F.pad(rows_of(x), (0, 0, context, context)))
        return of_rows(y[:, self.padding : self.padding + length])


def use_native(network: BigVgan, library: ctypes.CDLL) -> None:
    """Put layers in C in the place of the plain ones, which are let go."""
    for name in ("conv_pre", "conv_post"):
        conv = getattr(network, name)
        assert isinstance(conv, nn.Conv1d)
        setattr(network, name, NativeConv1d(library, conv))
    for index, up in enumerate(network.ups):
        assert isinstance(up, nn.ConvTranspose1d)
        network.ups[index] = NativeUpsample(library, up)
    for index, block in enumerate(network.resblocks):
        assert isinstance(block, AmpBlock)
        network.resblocks[index] = NativeAmpBlock(library, block)
    assert isinstance(network.activation_post, OversampledSnake)
    network.activation_post = NativeOversampledSnake(library, network.activation_post)
