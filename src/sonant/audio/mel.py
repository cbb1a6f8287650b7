"""Log-mel features from one `MelConfig`: waveform [.., S] -> mel [.., M, T].

The filters are Slaney's: triangles that are linear below 1 kHz and logarithmic above, each scaled to unit
area in Hz. Built in float64 and rounded to float32, as librosa does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sonant.audio.stft import hann_window, stft
from sonant.errors import ConfigError, RequestError

HZ_PER_MEL = 200.0 / 3  # below 1 kHz. Source: Slaney's Auditory Toolbox
BREAK_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0  # above 1 kHz: 27 mels for each factor of 6.4


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """How a log-mel spectrogram is made.

    `padding` is the reflection at both ends in samples: `n_fft // 2` makes centred frames, the
    `(n_fft - hop) // 2` of vocoder training gives S // hop frames.
    """

    sample_rate: int
    n_fft: int
    hop: int
    bins: int
    padding: int
    window: int | None = None
    """Length of the Hann window in samples; None is n_fft."""
    low: float = 0.0
    high: float | None = None
    """Upper edge of the last filter in Hz; None is the Nyquist frequency."""
    power: Literal[1, 2] = 1
    """1 filters magnitudes, 2 filters energies."""
    energy_floor: float = 0.0
    """Added to re^2 + im^2 before the root (power 1 only)."""
    floor: float = 1e-5
    """Smallest value that enters the logarithm."""
    compression: Literal["natural", "whisper"] = "natural"
    """"natural" is ln; "whisper" is log10, at most 8 below the maximum, then (x + 4) / 4."""
    drop_last_frame: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.n_fft or not self.padding >= 0:
            raise ConfigError(
                f"mel settings n_fft {self.n_fft}, hop {self.hop}, padding {self.padding} do not fit; "
                "expected 0 < hop <= n_fft and padding >= 0. Check the model's audio settings."
            )
        top = self.sample_rate / 2 if self.high is None else self.high
        if not 0 <= self.low < top <= self.sample_rate / 2:
            raise ConfigError(
                f"mel filters from {self.low} to {top} Hz do not fit a sample rate of {self.sample_rate} Hz; "
                "expected 0 <= low < high <= half the sample rate. Check the model's audio settings."
            )


WHISPER_128 = MelConfig(  # Whisper large-v3's features, without its padding to 30 s
    sample_rate=16_000,
    n_fft=400,
    hop=160,
    bins=128,
    padding=200,
    power=2,
    floor=1e-10,
    compression="whisper",
    drop_last_frame=True,
)


def mel_to_hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Frequencies in Hz of Slaney mels."""
    break_mel = BREAK_HZ / HZ_PER_MEL
    return np.where(mel < break_mel, mel * HZ_PER_MEL, BREAK_HZ * np.exp(LOG_STEP * (mel - break_mel)))


def hz_to_mel(hz: float) -> float:
    """Slaney mel of a frequency in Hz."""
    if hz < BREAK_HZ:
        return hz / HZ_PER_MEL
    return BREAK_HZ / HZ_PER_MEL + float(np.log(hz / BREAK_HZ)) / float(LOG_STEP)


@lru_cache(maxsize=32)
def mel_filters(
    sample_rate: int, n_fft: int, bins: int, low: float, high: float | None
) -> npt.NDArray[np.float32]:
    """Filter bank [M, n_fft // 2 + 1] that maps a spectrum to mel bands."""
    top = sample_rate / 2 if high is None else high
    edges = mel_to_hz(np.linspace(hz_to_mel(low), hz_to_mel(top), bins + 2))  # [M + 2] Hz
    last = n_fft // 2 * sample_rate / n_fft  # Hz of the last bin: an odd frame has none at half the rate
    frequencies = np.linspace(0, last, n_fft // 2 + 1)
    widths = np.diff(edges)
    distance = edges[:, None] - frequencies[None, :]
    rising = -distance[:-2] / widths[:-1, None]
    falling = distance[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    area = 2.0 / (edges[2:] - edges[:-2])  # in Hz, not in FFT bins
    return (triangles * area[:, None]).astype(np.float32)


def log_mel(waveform: Tensor, config: MelConfig) -> Tensor:
    """Log-mel [.., M, T] of waveform [.., S] at `config.sample_rate`, in the waveform's dtype."""
    if waveform.shape[-1] <= max(config.padding, config.n_fft - 2 * config.padding - 1):
        raise RequestError(
            f"audio of {waveform.shape[-1]} samples at {config.sample_rate} Hz is too short for a frame of "
            f"{config.n_fft} samples. Give a longer clip."
        )
    batch = waveform.shape[:-1]
    rows = waveform.reshape(-1, 1, waveform.shape[-1])
    padded = torch.nn.functional.pad(rows, (config.padding, config.padding), mode="reflect")[:, 0]
    window = hann_window(config.window or config.n_fft, like=waveform)
    spectrum = stft(padded, n_fft=config.n_fft, hop=config.hop, window=window, center=False)
    if config.drop_last_frame:
        spectrum = spectrum[..., :-1]
    if config.power == 2:
        strength = spectrum.abs() ** 2
    else:
        strength = torch.sqrt(torch.view_as_real(spectrum).pow(2).sum(-1) + config.energy_floor)
    filters = torch.from_numpy(
        mel_filters(config.sample_rate, config.n_fft, config.bins, config.low, config.high)
    ).to(waveform)
    mel = torch.matmul(filters, strength)  # [N, M, T]
    if config.compression == "natural":
        mel = torch.log(mel.clamp(min=config.floor))
    else:
        mel = torch.log10(mel.clamp(min=config.floor))
        peak = mel.amax(dim=(-2, -1), keepdim=True)
        mel = (torch.maximum(mel, peak - 8.0) + 4.0) / 4.0
    return mel.reshape(*batch, *mel.shape[-2:])
