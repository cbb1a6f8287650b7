"""Causal HiFT vocoder: mel [80, T] at 50 Hz -> waveform [T * 480] at 24 kHz.

    mel -> F0 (float64) -> harmonics -> source -> its transform ---+
    mel -> conv_pre -> upsample x8, x5, x3, each + source branch --+-> inverse transform -> waveform

It sees 3 + 4 frames ahead and is otherwise causal. Source: the original's `CausalHiFTGenerator`; HiFTNet,
arXiv 2309.09493. Tap names, in order: vocoder.f0.layer.{n}, vocoder.f0, vocoder.sines, vocoder.voiced,
vocoder.harmonics, vocoder.source, vocoder.source_stft, vocoder.conv_pre, for each stage n
vocoder.stage.{n}.up, .source_down, .source, .out; vocoder.conv_post, .magnitude, .phase, vocoder.waveform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonant.audio.stft import hann_window, inverse_stft, stft
from sonant.families.cosyvoice3.config import VocoderConfig
from sonant.nn.conv import CausalConv1d
from sonant.nn.snake import Snake
from sonant.nn.tap import tap

MAX_MAGNITUDE = 100.0


class ResidualBlock(nn.Module):
    """For each dilation: x += conv(snake(dilated conv(snake(x)))), all causal."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(CausalConv1d(channels, channels, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(CausalConv1d(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for first, dilated, second, conv in layers:
            x = x + conv(second(dilated(first(x))[0]))[0]
        return x


class Upsample(CausalConv1d):
    """Every step repeated `rate` times, then a causal convolution."""

    def __init__(self, inner: int, outer: int, kernel: int, rate: int) -> None:
        super().__init__(inner, outer, kernel)
        self.rate = rate

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x.repeat_interleave(self.rate, dim=-1), past)


class Downsample(nn.Conv1d):
    """Strided convolution with stride - 1 zeros on the left; stride 1 is a plain one by one."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__(inner, outer, 2 * stride if stride > 1 else 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.stride[0] - 1, 0)))


class PitchPredictor(nn.Module):
    """mel [1, M, T] -> F0 in Hz [1, T], or [1, T - lookahead] when more is to come; float64 throughout.

    Parity: the original moves this network to float64 and keeps it there, because chunks only join when
    their F0 is equal.
    """

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width, self.lookahead = config.f0_channels, config.f0_lookahead
        layers: list[nn.Module] = [nn.Conv1d(config.in_channels, width, config.f0_lookahead + 1), nn.ELU()]
        for _ in range(4):
            layers += [CausalConv1d(width, width, 3), nn.ELU()]
        self.condnet = nn.ModuleList(layers)
        self.classifier = nn.Linear(width, 1)
        self.context = 4 * 2
        """Frames of the past that one value depends on."""

    def forward(self, mel: Tensor, *, is_final: bool) -> Tensor:
        x = F.pad(mel.double(), (0, self.lookahead)) if is_final else mel.double()
        for index in range(0, len(self.condnet), 2):
            conv = self.condnet[index]
            x = conv(x) if index == 0 else conv(x)[0]
            x = tap(f"vocoder.f0.layer.{index // 2}", self.condnet[index + 1](x))
        f0 = self.classifier(x.transpose(1, 2)).squeeze(-1).abs()
        return tap("vocoder.f0", f0.float())


class HarmonicSource(nn.Module):
    """Harmonics of F0 plus noise, merged into one excitation signal."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.harmonics, 1)

    def turns(self, f0: Tensor, before: Tensor | None = None) -> Tensor:
        """Turns of each harmonic up to and with each frame, [T, K] float64; f0 [T], before [K].

        Summed in float64 and rounded to float32 at use, which is what the original's cumsum does on a CPU;
        a stream continues from the last row.
        """
        ranks = torch.arange(1, self.config.harmonics + 1, device=f0.device, dtype=f0.dtype)
        step = (f0[:, None] * ranks / self.config.sampling_rate) % 1
        # On the CPU, in order: a parallel sum would round otherwise, and some devices lack float64.
        steps = step.cpu().double()
        if before is not None:
            steps = torch.cat((before[None], steps))
        total = steps.cumsum(dim=0)
        return total if before is None else total[1:]

    def forward(self, f0: Tensor, turns: Tensor, noise: Tensor) -> Tensor:
        """Source [1, 1, T * samples] from f0 [T], turns [T, K] and uniform noise [T * samples, K].

        Parity: the phase stands still inside a frame and moves by a whole frame at its border (a 50 Hz
        staircase), and the noise is uniform in 0..1, not centred. Both are the original's causal variant.
        """
        c = self.config
        phase = turns.float().to(f0.device) * 2 * math.pi * c.samples
        sines = tap("vocoder.sines", torch.sin(phase)) * c.nsf_alpha  # [T, K]
        voiced = tap("vocoder.voiced", (f0 > c.nsf_voiced_threshold).to(f0.dtype)[:, None])
        strength = voiced * c.nsf_sigma + (1 - voiced) * c.nsf_alpha / 3
        still = (sines * voiced).repeat_interleave(c.samples, dim=0)
        harmonics = still + strength.repeat_interleave(c.samples, dim=0) * noise.to(f0)
        harmonics = tap("vocoder.harmonics", harmonics)
        return tap("vocoder.source", torch.tanh(self.l_linear(harmonics))).T[None]


class Vocoder(nn.Module):
    """The whole generator; attribute names are the checkpoint's, with weight norm folded."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        spectrum = config.n_fft + 2
        widths = [config.base_channels // 2**n for n in range(len(config.upsample_rates) + 1)]
        self.m_source = HarmonicSource(config)
        self.conv_pre = nn.Conv1d(config.in_channels, widths[0], config.conv_pre_look_right + 1)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for stage, rate in enumerate(config.upsample_rates):
            width = widths[stage + 1]
            self.ups.append(Upsample(widths[stage], width, config.upsample_kernel_sizes[stage], rate))
            stride = math.prod(config.upsample_rates[stage + 1 :])
            self.source_downs.append(Downsample(spectrum, width, stride))
            self.source_resblocks.append(
                ResidualBlock(
                    width,
                    config.source_resblock_kernel_sizes[stage],
                    config.source_resblock_dilation_sizes[stage],
                )
            )
            for kernel, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            ):
                self.resblocks.append(ResidualBlock(width, kernel, dilations))
        self.conv_post: nn.Module = CausalConv1d(widths[-1], spectrum, 7)
        self.f0_predictor = PitchPredictor(config)

    @property
    def context(self) -> int:
        """Frames of the past that one frame of audio depends on, the phase apart.

        From the kernels, last layer first; two more frames cover the borders of the transforms.
        """
        c = self.config
        reach = 6  # conv_post
        blocks = zip(c.resblock_kernel_sizes, c.resblock_dilation_sizes, strict=True)
        merged = max(_reach(kernel, dilations) for kernel, dilations in blocks)
        for stage in reversed(range(len(c.upsample_rates))):
            source = _reach(c.source_resblock_kernel_sizes[stage], c.source_resblock_dilation_sizes[stage])
            reach += merged + max(c.upsample_kernel_sizes[stage] - 1, source + 2)
            reach = math.ceil(reach / c.upsample_rates[stage])
        return reach + 2

    def decode(self, mel: Tensor, source: Tensor, *, is_final: bool) -> Tensor:
        """Waveform [S] of mel [1, M, T] and source [1, 1, samples of the same frames].

        Without `is_final` the last frames of the mel are a look ahead: conv_pre_look_right of them, and one
        more frame whose end the transform cannot know yet.
        """
        c = self.config
        window = hann_window(c.n_fft, like=source)
        spectrum = stft(source[:, 0], n_fft=c.n_fft, hop=c.hop, window=window, center=True)
        ahead = c.conv_pre_look_right
        if is_final:
            mel = F.pad(mel, (0, ahead))
        else:
            spectrum = spectrum[..., : spectrum.shape[-1] - ahead * c.columns]
        parts = tap("vocoder.source_stft", torch.cat((spectrum.real, spectrum.imag), dim=1))
        x = tap("vocoder.conv_pre", self.conv_pre(mel))
        kernels = len(c.resblock_kernel_sizes)
        last = len(c.upsample_rates) - 1
        for stage in range(last + 1):
            x = self.ups[stage](F.leaky_relu(x, c.lrelu_slope))[0]
            x = tap(f"vocoder.stage.{stage}.up", x)
            if stage == last:
                # The transform has one column more than frames x columns.
                x = F.pad(x, (1, 0), mode="reflect")
            down = tap(f"vocoder.stage.{stage}.source_down", self.source_downs[stage](parts))
            x = x + tap(f"vocoder.stage.{stage}.source", self.source_resblocks[stage](down))
            blocks = [block(x) for block in self.resblocks[stage * kernels :][:kernels]]
            x = tap(f"vocoder.stage.{stage}.out", sum(blocks[1:], blocks[0]) / kernels)
        # Parity: torch's default slope here, not the configured one.
        x = tap("vocoder.conv_post", self.conv_post(F.leaky_relu(x))[0])
        bins = c.n_fft // 2 + 1
        magnitude = tap("vocoder.magnitude", torch.exp(x[:, :bins])).clip(max=MAX_MAGNITUDE)
        phase = tap("vocoder.phase", torch.sin(x[:, bins:]))
        spectrum = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
        waveform = inverse_stft(spectrum, n_fft=c.n_fft, hop=c.hop, window=window)[0]
        if not is_final:
            waveform = waveform[: waveform.shape[-1] - c.samples]
        return tap("vocoder.waveform", waveform.clamp(-c.audio_limit, c.audio_limit))

    def forward(self, mel: Tensor, noise: Tensor, *, is_final: bool = True) -> Tensor:
        """Waveform [S] of mel [M, T] with uniform noise [>= T * samples, harmonics], read from its start.

        Without `is_final`, T frames give T - lookahead frames of audio.
        """
        mel = mel[None].float()
        f0 = self.f0_predictor(mel, is_final=is_final)[0]
        source = self.m_source(f0, self.m_source.turns(f0), noise[: f0.shape[0] * self.config.samples])
        if not is_final:
            mel = mel[..., : f0.shape[0]]
        return self.decode(mel, source, is_final=is_final)


def _reach(kernel: int, dilations: Sequence[int]) -> int:
    """Steps of the past that a residual block sees."""
    return sum((kernel - 1) * (dilation + 1) for dilation in dilations)
