"""CAM++, a speaker encoder: Kaldi filter banks [B, T, 80] -> style vector [B, 192].

    2-D residual head (frequency / 8) -> TDNN (time / 2) -> three dense blocks with context gates
    -> mean and deviation over time -> Linear

Source: arXiv 2303.00332. Tap names: campplus.head, .tdnn, .block{i}, .transit{i}, .stats, .out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.nn.tap import tap

SEGMENT = 100  # frames of one context segment
BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers and dilation of each dense block. Source: the original class


@dataclass(frozen=True, kw_only=True)
class CampPlusConfig:
    """Widths, read from the tensors: the original keeps them in code."""

    bins: int
    head_channels: int
    initial: int
    growth: int
    bottleneck: int
    out: int

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> CampPlusConfig:
        """Sizes of a checkpoint."""
        head = tensors["head.conv1.weight"].shape[0]
        tdnn = tensors["xvector.tdnn.linear.weight"].shape
        local = tensors["xvector.block1.tdnnd1.cam_layer.linear_local.weight"].shape
        return CampPlusConfig(
            bins=tdnn[1] // head * 8,
            head_channels=head,
            initial=tdnn[0],
            growth=local[0],
            bottleneck=local[1],
            out=tensors["xvector.dense.linear.weight"].shape[0],
        )


class Residual2d(nn.Module):
    """Two 3x3 convolutions with a shortcut; the stride is on the frequency axis only."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Head(nn.Module):
    """x [B, bins, T] -> [B, channels * bins / 8, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.Sequential(Residual2d(channels, 2), Residual2d(channels, 1))
        self.layer2 = nn.Sequential(Residual2d(channels, 2), Residual2d(channels, 1))
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x[:, None])))
        x = F.relu(self.bn2(self.conv2(self.layer2(self.layer1(x)))))
        return x.flatten(1, 2)  # channels outside, frequency inside


class NormRelu(nn.Module):
    """Batch norm and ReLU, under the key the checkpoint uses."""

    def __init__(self, channels: int, *, affine: bool = True, relu: bool = True) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm1d(channels, affine=affine)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.batchnorm(x)
        return F.relu(x) if self.relu else x


class ContextGate(nn.Module):
    """A dilated convolution gated by the mean of the clip plus the mean of the 100-frame segment."""

    def __init__(self, inner: int, outer: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(inner, outer, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(inner, inner // 2, 1)
        self.linear2 = nn.Conv1d(inner // 2, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        # ceil_mode averages the last segment over the frames it has
        segments = F.avg_pool1d(x, SEGMENT, SEGMENT, ceil_mode=True)
        context = x.mean(-1, keepdim=True) + segments.repeat_interleave(SEGMENT, dim=-1)[..., :length]
        gate = torch.sigmoid(self.linear2(F.relu(self.linear1(context))))
        return self.linear_local(x) * gate


class DenseLayer(nn.Module):
    """x [B, C, T] -> growth new channels [B, G, T]."""

    def __init__(self, inner: int, config: CampPlusConfig, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = NormRelu(inner)
        self.linear1 = nn.Conv1d(inner, config.bottleneck, 1, bias=False)
        self.nonlinear2 = NormRelu(config.bottleneck)
        self.cam_layer = ContextGate(config.bottleneck, config.growth, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))


class DenseBlock(nn.Module):
    """Layers whose outputs are appended to their inputs."""

    def __init__(self, inner: int, layers: int, config: CampPlusConfig, dilation: int) -> None:
        super().__init__()
        for index in range(layers):
            layer = DenseLayer(inner + index * config.growth, config, dilation)
            self.add_module(f"tdnnd{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.cat((x, layer(x)), dim=1)
        return x


class Transit(nn.Module):
    """Norm, ReLU, and half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear = NormRelu(channels)
        self.linear = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.nonlinear(x))


class Tdnn(nn.Module):
    """Convolution of 5 frames at half the rate, norm, ReLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inner, outer, 5, stride=2, padding=2, bias=False)
        self.nonlinear = NormRelu(outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x))


class StyleLinear(nn.Module):
    """Linear and a norm without parameters of its own: x [B, C] -> [B, out]."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.linear = nn.Conv1d(inner, outer, 1, bias=False)
        self.nonlinear = NormRelu(outer, affine=False, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.linear(x[..., None])[..., 0])


class CampPlus(nn.Module):
    """forward: mean-free filter banks [B, T, bins] -> style [B, out]."""

    def __init__(self, config: CampPlusConfig) -> None:
        super().__init__()
        self.width = config.out
        self.head = Head(config.head_channels)
        channels = config.initial
        self.xvector = nn.ModuleDict({"tdnn": Tdnn(config.head_channels * config.bins // 8, channels)})
        for index, (layers, dilation) in enumerate(BLOCKS, 1):
            self.xvector[f"block{index}"] = DenseBlock(channels, layers, config, dilation)
            channels += layers * config.growth
            self.xvector[f"transit{index}"] = Transit(channels)
            channels //= 2
        self.xvector["out_nonlinear"] = NormRelu(channels)
        self.xvector["dense"] = StyleLinear(2 * channels, config.out)

    def forward(self, x: Tensor) -> Tensor:
        x = tap("campplus.head", self.head(x.transpose(1, 2)))
        x = tap("campplus.tdnn", self.xvector["tdnn"](x))
        for index in range(1, len(BLOCKS) + 1):
            x = tap(f"campplus.block{index}", self.xvector[f"block{index}"](x))
            x = tap(f"campplus.transit{index}", self.xvector[f"transit{index}"](x))
        x = self.xvector["out_nonlinear"](x)
        stats = tap("campplus.stats", torch.cat((x.mean(-1), x.std(-1, correction=1)), dim=-1))
        return tap("campplus.out", self.xvector["dense"](stats))
