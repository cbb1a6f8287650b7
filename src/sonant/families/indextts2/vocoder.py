"""BigVGAN v2: mel [B, M, T] -> waveform [B, 1, T * 256] at 22.05 kHz.

    convolution -> 6 x (transposed convolution, mean of three residual blocks) -> activation -> convolution

Every activation runs at twice the rate, so that the harmonics it makes do not fold back.
Source: arXiv 2206.04658. Tap names: bigvgan.conv_pre, .up.{i}, .stage.{i}.block.{j}, .stage.{i},
.activation_post, .conv_post, .out; inside an activation called A: A.in, A.up, A.snake, A.out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sonant.families.indextts2.config import BigVganConfig
from sonant.nn.snake import SnakeBeta
from sonant.nn.tap import tap

RATIO = 2  # oversampling of an activation
TAPS = 12
PIECE = 16
"""Samples of a channel that one row of the filters' matrix products gives; faster than 8 and 32."""


def kaiser_sinc(cutoff: float = 0.5 / RATIO, half_width: float = 0.6 / RATIO, taps: int = TAPS) -> Tensor:
    """Low-pass filter [1, 1, taps] of unit gain; the checkpoint stores the same numbers."""
    half = taps // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * half_width + 7.95  # Kaiser's formulas
    if attenuation > 50.0:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation >= 21.0:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21.0)
    else:
        beta = 0.0
    window = torch.kaiser_window(taps, beta=beta, periodic=False)
    time = torch.arange(-half, half) + 0.5 if taps % 2 == 0 else torch.arange(taps) - half
    response = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return (response / response.sum()).view(1, 1, taps)


def banded(taps: Tensor, rows: int, columns: int, *, down: int, up: int) -> Tensor:
    """A filter as a matrix [rows, columns]: entry (i, j) is tap up * i - down * j, or 0.

    Column j of the product is output j of a piece of `rows` inputs.
    """
    device = taps.device
    place = up * torch.arange(rows, device=device)[:, None] - down * torch.arange(columns, device=device)
    inside = (place >= 0) & (place < len(taps))
    return torch.where(inside, taps[place.clamp(0, len(taps) - 1)], 0.0)


def windows(rows: Tensor, left: int, right: int, step: int, size: int) -> Tensor:
    """Pieces [n * pieces, size] of rows [n, T], `step` apart; both ends are extended by their last value."""
    count, length = rows.shape
    pieces = -(-(left + length + right - size) // step) + 1
    right = (pieces - 1) * step + size - left - length
    ends = rows[:, :1].expand(-1, left), rows[:, -1:].expand(-1, right)
    padded = torch.cat((ends[0], rows, ends[1]), dim=1)
    return padded.as_strided((count, pieces, size), (padded.stride(0), step, 1)).reshape(-1, size)


class OversampledSnake(nn.Module):
    """Twice the rate, SnakeBeta, half the rate: x [B, C, T] -> [B, C, T].

    The filters come from the checkpoint where they are stored. Both are matrix products of short pieces of
    each channel: on a CPU ten times faster than convolutions of one channel.
    """

    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, channels: int, name: str) -> None:
        super().__init__()
        self.act = SnakeBeta(channels)
        self.register_buffer("up_filter", torch.zeros(1, 1, TAPS))
        self.register_buffer("down_filter", torch.zeros(1, 1, TAPS))
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        x = tap(f"{self.name}.in", x)
        batch, channels, length = x.shape
        half = TAPS // 2 // RATIO
        pieces = windows(x.reshape(-1, length), half, half, PIECE, PIECE + 2 * half)
        # A transposed convolution of stride 2; its taps are read backwards.
        matrix = banded(
            RATIO * self.up_filter[0, 0].flip(0), PIECE + 2 * half, RATIO * PIECE, down=1, up=RATIO
        )
        wide = (pieces @ matrix).view(batch * channels, -1)[:, : RATIO * length]
        wide = tap(f"{self.name}.up", wide.reshape(batch, channels, RATIO * length))
        wide = tap(f"{self.name}.snake", self.act(wide))
        size = RATIO * (PIECE - 1) + TAPS
        rows = wide.reshape(-1, RATIO * length)
        pieces = windows(rows, TAPS // 2 - 1, TAPS // 2, RATIO * PIECE, size)
        matrix = banded(self.down_filter[0, 0], size, PIECE, down=RATIO, up=1)
        narrow = (pieces @ matrix).view(batch * channels, -1)[:, :length]
        return tap(f"{self.name}.out", narrow.reshape(batch, channels, length))


class AmpBlock(nn.Module):
    """For each dilation: activation, dilated convolution, activation, convolution, residual."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...], name: str) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) * d // 2)
            for d in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations
        )
        self.activations = nn.ModuleList(
            OversampledSnake(channels, f"{name}.activation.{index}") for index in range(2 * len(dilations))
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, (first, second) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            y = first(self.activations[2 * index](x))
            x = x + second(self.activations[2 * index + 1](y))
        return x


class BigVgan(nn.Module):
    """forward: mel [B, M, T] -> waveform [B, 1, T * product of the rates] in [-1, 1]."""

    def __init__(self, config: BigVganConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre: nn.Module = nn.Conv1d(config.num_mels, channels, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        shapes = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        for index, (rate, kernel) in enumerate(shapes):
            self.ups.append(
                nn.ConvTranspose1d(channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2)
            )
            channels //= 2
            blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
            for number, (width, dilations) in enumerate(blocks):
                self.resblocks.append(
                    AmpBlock(
                        channels,
                        width,
                        dilations,
                        f"bigvgan.stage.{index}.block.{number}",
                    )
                )
        self.activation_post: nn.Module = OversampledSnake(channels, "bigvgan.activation_post")
        self.conv_post: nn.Module = nn.Conv1d(channels, 1, 7, padding=3, bias=config.use_bias_at_final)

    def forward(self, mel: Tensor) -> Tensor:
        x = tap("bigvgan.conv_pre", self.conv_pre(mel))
        count = len(self.config.resblock_kernel_sizes)
        for index, up in enumerate(self.ups):
            x = tap(f"bigvgan.up.{index}", up(x))
            total = torch.zeros_like(x)
            for number in range(count):
                block = self.resblocks[index * count + number]
                total = total + tap(f"bigvgan.stage.{index}.block.{number}", block(x))
            x = tap(f"bigvgan.stage.{index}", total / count)
        x = tap("bigvgan.conv_post", self.conv_post(self.activation_post(x)))
        x = x.tanh() if self.config.use_tanh_at_final else x.clamp(-1.0, 1.0)
        return tap("bigvgan.out", x)
