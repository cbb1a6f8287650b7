"""Speaker encoder: log-mel [B, T, M] of a 24 kHz clip -> speaker vector [B, D] of the talker's width.

    mel -> conv -> 3 x SE-Res2Net -> concatenate -> attentive statistics over time -> linear
Source: ECAPA-TDNN, arXiv 2005.07143.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.audio.mel import MelConfig, log_mel
from sonant.families.qwen3_tts.config import SpeakerConfig
from sonant.nn.tap import tap


def speaker_mel(samples: Tensor, config: SpeakerConfig) -> Tensor:
    """Log-mel [B, T, M] of samples [B, S] at the encoder's rate."""
    mel = MelConfig(
        sample_rate=config.sample_rate,
        n_fft=1024,
        hop=256,
        bins=config.mel_dim,
        padding=(1024 - 256) // 2,
        high=12_000.0,
        energy_floor=1e-9,
    )
    return tap("speaker.mel", log_mel(samples, mel).transpose(1, 2))


class SameConv(nn.Conv1d):
    """Convolution that keeps the length, the ends reflected. forward: [B, C_in, T] -> [B, C_out, T]."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(inner, outer, kernel, dilation=dilation)
        self.reach = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        if self.reach:
            left = self.reach // 2
            x = F.pad(x, (left, self.reach - left), mode="reflect")
        return super().forward(x)


class TimeDelay(nn.Module):
    """relu(conv(x))."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = SameConv(inner, outer, kernel, dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Res2Net(nn.Module):
    """Channels in `scale` parts: the first untouched, each later one convolved with the one before added.

    Source: arXiv 1904.01169.
    """

    def __init__(self, width: int, kernel: int, dilation: int, scale: int) -> None:
        super().__init__()
        part = width // scale
        self.scale = scale
        self.blocks = nn.ModuleList(TimeDelay(part, part, kernel, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        first, *parts = x.chunk(self.scale, dim=1)
        outputs = [first]
        for index, (part, block) in enumerate(zip(parts, self.blocks, strict=True)):
            outputs.append(block(part if index == 0 else part + outputs[-1]))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Channels weighted by what the whole clip looks like. Source: arXiv 1709.01507."""

    def __init__(self, inner: int, squeezed: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inner, squeezed, 1)
        self.conv2 = nn.Conv1d(squeezed, inner, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = x.mean(dim=2, keepdim=True)
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(weight))))


class SpeakerBlock(nn.Module):
    """x + squeeze(tdnn(res2net(tdnn(x))))."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int, config: SpeakerConfig) -> None:
        super().__init__()
        self.tdnn1 = TimeDelay(inner, outer, 1)
        self.res2net_block = Res2Net(outer, kernel, dilation, config.enc_res2net_scale)
        self.tdnn2 = TimeDelay(outer, outer, 1)
        self.se_block = SqueezeExcitation(outer, config.enc_se_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))))


class AttentiveStatistics(nn.Module):
    """Weighted mean and deviation over time, [B, C, T] -> [B, 2 C, 1]. Source: arXiv 1803.10963."""

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn = TimeDelay(3 * channels, attention, 1)
        self.conv = SameConv(attention, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        even = torch.full_like(x[:, :1], 1.0 / x.shape[2])
        mean, deviation = _statistics(x, even)
        context = torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), dim=1)
        weight = torch.softmax(self.conv(torch.tanh(self.tdnn(context))), dim=2)
        return torch.cat(_statistics(x, weight), dim=1)


def _statistics(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation [B, C, 1] of x [B, C, T] under weights that sum to 1 over T."""
    mean = (weight * x).sum(dim=2, keepdim=True)
    variance = (weight * (x - mean).square()).sum(dim=2, keepdim=True)
    return mean, variance.clamp(min=1e-12).sqrt()


class SpeakerEncoder(nn.Module):
    """The whole encoder. forward: mel [B, T, M] -> [B, D], not normalised. Names are the checkpoint's."""

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.enc_channels
        self.blocks = nn.ModuleList(
            [TimeDelay(config.mel_dim, sizes[0], config.enc_kernel_sizes[0], config.enc_dilations[0])]
        )
        for index in range(1, len(sizes) - 1):
            self.blocks.append(
                SpeakerBlock(
                    sizes[index - 1],
                    sizes[index],
                    config.enc_kernel_sizes[index],
                    config.enc_dilations[index],
                    config,
                )
            )
        gathered = sum(sizes[1:-1])
        self.mfa = TimeDelay(gathered, sizes[-1], config.enc_kernel_sizes[-1], config.enc_dilations[-1])
        self.asp = AttentiveStatistics(sizes[-1], config.enc_attention_channels)
        self.fc = nn.Conv1d(2 * sizes[-1], config.enc_dim, 1)

    def forward(self, mel: Tensor) -> Tensor:
        x = mel.transpose(1, 2)
        outputs = []
        for index, block in enumerate(self.blocks):
            x = tap(f"speaker.block.{index}", block(x))
            if index:
                outputs.append(x)
        x = tap("speaker.mfa", self.mfa(torch.cat(outputs, dim=1)))
        x = tap("speaker.statistics", self.asp(x))
        return tap("speaker.vector", self.fc(x)[..., 0])
