"""Short-time Fourier transform and its inverse: waveform [.., S] <-> spectrum [.., n_fft/2+1, T]."""

from __future__ import annotations

import torch
from torch import Tensor


def hann_window(length: int, *, like: Tensor) -> Tensor:
    """Periodic Hann window [length] with the dtype and device of `like`."""
    return torch.hann_window(length, dtype=like.dtype, device=like.device)


def stft(waveform: Tensor, *, n_fft: int, hop: int, window: Tensor, center: bool) -> Tensor:
    """Complex spectrum [.., n_fft // 2 + 1, T] of waveform [.., S].

    `center` reflects n_fft / 2 samples at both ends, so frame t is centred on sample t * hop; without it
    frame t starts at sample t * hop. A window shorter than n_fft is centred in zeros.
    """
    batch = waveform.shape[:-1]
    spectrum = torch.stft(
        waveform.reshape(-1, waveform.shape[-1]),
        n_fft,
        hop_length=hop,
        win_length=window.shape[0],
        window=window,
        center=center,
        pad_mode="reflect",
        normalized=False,
        onesided=True,
        return_complex=True,
    )
    return spectrum.reshape(*batch, *spectrum.shape[-2:])


def inverse_stft(spectrum: Tensor, *, n_fft: int, hop: int, window: Tensor) -> Tensor:
    """Waveform [.., (T - 1) * hop] of a centred spectrum [.., n_fft // 2 + 1, T].

    Overlap-add of the windowed frames, divided by the summed squared window; n_fft / 2 samples are cut
    from both ends.
    """
    batch = spectrum.shape[:-2]
    waveform = torch.istft(
        spectrum.reshape(-1, *spectrum.shape[-2:]),
        n_fft,
        hop_length=hop,
        win_length=window.shape[0],
        window=window,
    )
    return waveform.reshape(*batch, waveform.shape[-1])
