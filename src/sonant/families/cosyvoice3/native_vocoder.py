"""Layers of the vocoder in C, equal to the plain ones but for the order of sums.

They take and give [B, C, T] like those they stand in for, laid out in rows of channels. Repeated steps are
never made: a convolution behind them becomes one that gives `rate` outputs of each step, with the taps
that meet the same step added up.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from sonant.families.cosyvoice3.vocoder import ResidualBlock, Upsample, Vocoder
from sonant.nn.conv import CausalConv1d
from sonant.nn.native_conv import NativeTimeConv, native_rows, of_rows, rows_of


class NativeCausalConv(nn.Module):
    """`CausalConv1d` or `Upsample` from its start: x [B, C_in, T] -> [B, C_out, T * rate], and no past."""

    def __init__(self, conv: NativeTimeConv) -> None:
        super().__init__()
        self.conv = conv

    @property
    def bias(self) -> Tensor | None:
        """[C_out], repeated for each output of a step."""
        return self.conv.bias

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        y, _ = self.conv(rows_of(x))
        return of_rows(y), None


class NativeResidualBlock(nn.Module):
    """`ResidualBlock` whose Snakes and sums are part of the products: x [B, C, T] -> the same."""

    def __init__(self, library: ctypes.CDLL, block: ResidualBlock) -> None:
        super().__init__()
        self.convs1, self.convs2 = (
            nn.ModuleList(native_rows(library, conv) for conv in convs if isinstance(conv, CausalConv1d))
            for convs in (block.convs1, block.convs2)
        )
        self.activations1, self.activations2 = block.activations1, block.activations2

    def forward(self, x: Tensor) -> Tensor:
        x = rows_of(x)
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for first, dilated, second, conv in layers:
            x = conv(dilated(x, before=first)[0], before=second, residual=x)[0]
        return of_rows(x)


def upsample_rows(library: ctypes.CDLL, layer: Upsample) -> NativeTimeConv:
    """Repetition and convolution as one convolution of the steps before the repetition."""
    kernel, rate = layer.kernel_size[0], layer.rate
    outer, inner, _ = layer.weight.shape
    back = -(-(kernel - 1) // rate)  # steps of the past that an output sees
    rows = layer.weight.new_zeros(rate, outer, back + 1, inner, dtype=torch.float64)
    for phase in range(rate):
        for tap in range(kernel):
            step = (phase - (kernel - 1) + tap) // rate + back
            rows[phase, :, step] += layer.weight[:, :, tap]
    bias = None if layer.bias is None else layer.bias.repeat(rate)
    return NativeTimeConv(library, rows.view(rate * outer, back + 1, inner), bias, stride=rate)


def use_native(vocoder: Vocoder, library: ctypes.CDLL) -> None:
    """Put layers in C in the place of the plain ones, which are let go."""
    for index, up in enumerate(vocoder.ups):
        assert isinstance(up, Upsample)
        vocoder.ups[index] = NativeCausalConv(upsample_rows(library, up))
    for blocks in (vocoder.source_resblocks, vocoder.resblocks):
        for index, block in enumerate(blocks):
            assert isinstance(block, ResidualBlock)
            blocks[index] = NativeResidualBlock(library, block)
    assert isinstance(vocoder.conv_post, CausalConv1d)
    vocoder.conv_post = NativeCausalConv(native_rows(library, vocoder.conv_post))
