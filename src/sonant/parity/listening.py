"""How far two waveforms are apart for a listener: magnitudes of their spectra, not samples.

A phase that turned a little further is not heard; a magnitude that changed is. Source of both figures:
arXiv 1910.11480, the multi-resolution transform loss of Parallel WaveGAN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
"""Transform, step and window, in samples."""
FLOOR = 1e-4
"""Magnitudes below this share of the largest are not heard beside it (-80 dB)."""


@dataclass(frozen=True)
class Heard:
    """Two figures, each the worst of three resolutions."""

    convergence: float
    """Length of the difference of the magnitudes over the reference's length."""
    decibels: float
    """Mean difference of the levels of all bins, in dB."""


def heard(reference: Tensor, found: Tensor) -> Heard:
    """The difference of two waveforms [S] of equal length to an ear."""
    a, b = reference.flatten().double(), found.flatten().double()
    convergence = decibels = 0.0
    for size, step, length in RESOLUTIONS:
        window = torch.hann_window(length, dtype=torch.float64)
        left, right = (
            torch.stft(x, size, step, length, window, center=True, return_complex=True).abs() for x in (a, b)
        )
        floor = FLOOR * float(left.max().clamp(min=1e-12))
        convergence = max(convergence, float((left - right).norm() / left.norm().clamp(min=1e-12)))
        levels = (left.clamp(min=floor) / right.clamp(min=floor)).log10().abs() * 20
        decibels = max(decibels, float(levels.mean()))
    return Heard(convergence, decibels)
