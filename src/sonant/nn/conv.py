"""Causal convolutions that can be fed in pieces: the past goes in and comes out, None is the start."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv1d(nn.Conv1d):
    """1-D convolution that sees only the past, and can be fed in pieces that are multiples of its stride.

    forward: x [B, C_in, T], past [B, C_in, (k - 1) * dilation + 1 - stride] or None
    -> y [B, C_out, ceil(T / stride)], past. Pieces concatenated equal one call on the whole input; only the
    last may be no multiple of the stride: its end is filled with zeros.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int = 1, **options: Any) -> None:
        super().__init__(inner, outer, kernel, stride=stride, **options)
        self.context = (kernel - 1) * self.dilation[0] + 1 - stride

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if past is None:
            past = x.new_zeros(x.shape[0], x.shape[1], self.context)
        x = torch.cat((past, x), dim=-1)
        past = x[..., x.shape[-1] - self.context :].clone()  # a copy, so that the rest can be freed
        if surplus := -(x.shape[-1] - self.context) % self.stride[0]:
            x = F.pad(x, (0, surplus))
        return super().forward(x), past


class CausalConvTranspose1d(nn.ConvTranspose1d):
    """Transposed convolution whose surplus is trimmed on the right only; can be fed in pieces.

    forward: x [B, C_in, T], past [B, C_out, k - stride] or None -> y [B, C_out, T * stride], past.
    `past` is the overlap that the next piece adds to its first samples. T input steps always give
    exactly T * stride samples.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, **options: Any) -> None:
        super().__init__(inner, outer, kernel, stride=stride, **options)
        self.overlap = kernel - stride
        assert 0 <= self.overlap <= stride, "an output sample overlaps at most two inputs"

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = F.conv_transpose1d(x, self.weight, None, self.stride)
        if self.overlap:
            if past is not None:
                head = y[..., : self.overlap] + past
                y = torch.cat((head, y[..., self.overlap :]), dim=-1)
            past = y[..., y.shape[-1] - self.overlap :]
            y = y[..., : y.shape[-1] - self.overlap]
        else:
            past = y[..., :0]
        if self.bias is not None:
            y = y + self.bias[:, None]
        return y, past
