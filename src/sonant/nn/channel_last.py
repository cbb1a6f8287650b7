"""Causal convolutions on [B, T, C] as matrix products, fed in pieces: x and the past -> y and the past.

The same mathematics as `conv.py`. Matrix products of a few frames run several times faster on a CPU than
torch's convolutions, which arrange their weights anew in every call. Weights keep the checkpoint's shape;
`arrange` only changes how they lie in memory, so that the product reads them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.mapped import give_back


class Pasts:
    """The pasts of a chain of streaming layers, in the order in which the layers run.

    Start from None; after a pass `new` holds what the next pass starts from.
    """

    def __init__(self, old: Sequence[Tensor] | None) -> None:
        self._old: Iterator[Tensor] | None = None if old is None else iter(old)
        self.new: list[Tensor] = []

    def run(self, layer: nn.Module, x: Tensor, **options: Any) -> Tensor:
        """The layer's output; its past is taken and the new one is kept."""
        y, past = layer(x, None if self._old is None else next(self._old), **options)
        self.new.append(past)
        return y


class TimeConv(nn.Module):
    """Causal convolution of stride 1.

    forward: x [B, T, C_in], past [B, (k - 1) * dilation, C_in] or None -> y [B, T, C_out], past.
    Pieces concatenated equal one call on the whole input. `before` is applied to x first (the past is kept
    after it), `residual` [B, T, C_out] is added to y: `nn/native_conv.py` does all of it in one call.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        kernel: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        assert groups in (1, inner), "either dense or depthwise"
        self.weight = nn.Parameter(torch.zeros(outer, inner // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(outer)) if bias else None
        self.kernel, self.dilation, self.is_depthwise = kernel, dilation, groups > 1
        self.context = (kernel - 1) * dilation

    def arrange(self) -> None:
        """Put the weight in memory as [out, k, in]."""
        packed = self.weight.data.transpose(1, 2).contiguous()
        self.weight = nn.Parameter(packed.transpose(1, 2), requires_grad=False)

    def forward(
        self,
        x: Tensor,
        past: Tensor | None = None,
        *,
        before: nn.Module | None = None,
        residual: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        x = _after(before, x)
        y, past = self._convolve(x, past)
        return y if residual is None else residual + y, past

    def _convolve(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, length, width = x.shape
        if past is None:
            past = x.new_zeros(batch, self.context, width)
        if not self.context:
            return F.linear(x, self.weight[..., 0], self.bias), past
        x = torch.cat((past, x), dim=1)
        past = x[:, x.shape[1] - self.context :].clone()  # a copy, so that the rest can be freed
        if self.is_depthwise:
            y = x.new_zeros(()) if self.bias is None else self.bias
            for tap in range(self.kernel):
                start = tap * self.dilation
                y = torch.addcmul(y, x[:, start : start + length], self.weight[:, 0, tap])
            return y, past
        # [B, T, k, C_in]: window t holds the inputs t, t + dilation, ...
        row = x.stride(1)
        windows = x.as_strided(
            (batch, length, self.kernel, width), (x.stride(0), row, row * self.dilation, x.stride(2))
        )
        flat = self.weight.transpose(1, 2).reshape(self.weight.shape[0], -1)  # a view when arranged
        return F.linear(windows.reshape(batch, length, -1), flat, self.bias), past


class TimeConvTranspose(nn.Module):
    """Transposed convolution whose surplus is trimmed on the right only.

    forward: x [B, T, C_in], past [B, 1, C_in] (empty when kernel = stride) or None
    -> y [B, T * stride, C_out], past. T inputs always give exactly T * stride outputs. `before` is applied
    to x first.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int) -> None:
        super().__init__()
        assert kernel in (stride, 2 * stride), "an output overlaps at most two inputs"
        self.weight = nn.Parameter(torch.zeros(inner, outer, kernel))
        self.bias = nn.Parameter(torch.zeros(outer))
        self.stride, self.overlaps = stride, kernel > stride

    def arrange(self) -> None:
        """Put the weight in memory as [k, out, in]."""
        packed = self.weight.data.permute(2, 1, 0).contiguous()
        self.weight = nn.Parameter(packed.permute(2, 1, 0), requires_grad=False)

    def forward(
        self, x: Tensor, past: Tensor | None = None, *, before: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        x = _after(before, x)
        batch, length, width = x.shape
        outer = self.weight.shape[1]
        taps = self.weight.permute(2, 1, 0)  # [k, out, in], contiguous when arranged
        new = taps[: self.stride].reshape(-1, width)
        y = torch.addmm(self.bias.repeat(self.stride), x.reshape(-1, width), new.t())
        if self.overlaps:
            if past is None:
                past = x.new_zeros(batch, 1, width)
            earlier = torch.cat((past, x[:, :-1]), dim=1).reshape(-1, width)
            y = torch.addmm(y, earlier, taps[self.stride :].reshape(-1, width).t())
            past = x[:, -1:].clone()
        else:
            past = x[:, :0]
        return y.view(batch, length * self.stride, outer), past


def _after(before: nn.Module | None, x: Tensor) -> Tensor:
    if before is None:
        return x
    activated: Tensor = before(x)
    return activated


class ConvNeXt(nn.Module):
    """Depthwise causal convolution, norm, two linear layers, scale, plus the input. arXiv 2201.03545.

    forward: x [B, T, C], past or None -> y [B, T, C], past.
    """

    def __init__(self, width: int, *, kernel: int = 7, expansion: int = 4, eps: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = TimeConv(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pwconv1 = nn.Linear(width, expansion * width)
        self.pwconv2 = nn.Linear(expansion * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, past = self.dwconv(x, past)
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        return torch.addcmul(x, self.gamma, y), past


def arrange(module: nn.Module) -> Any:
    """`module`, with every weight of this file laid out for matrix products."""
    for part in module.modules():
        if isinstance(part, TimeConv | TimeConvTranspose):
            stored = part.weight.data
            part.arrange()
            give_back(stored)
    return module
