"""Parts of the nano recipe's training that have a right answer."""

from __future__ import annotations

import math

import pytest
import torch

SAMPLE_RATE = 24_000

# The recipe compiles, and importing torch's compiler takes seconds and warns about its own parts.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")]


def voice(pitch: float, late: float = 0.0, unsteady: float = 0.0) -> torch.Tensor:
    """Four harmonics of `pitch`, `late` seconds late, the phase of each wandering by `unsteady` cycles."""
    seconds = torch.arange(12_000) / SAMPLE_RATE
    chance = torch.Generator().manual_seed(3)
    total = torch.zeros(1, 12_000)
    for harmonic in range(1, 5):
        steps = torch.randn(1, 1, 60, generator=chance)
        wander = unsteady * torch.nn.functional.interpolate(steps, size=12_000, mode="linear")[0]
        total += 0.05 * torch.cos(2 * math.pi * (harmonic * pitch * (seconds - late) + wander))
    return total


def test_the_low_band_loss_ignores_when_the_pulses_come_but_not_an_unsteady_phase():
    from recipes.nano.decoder import LowBand

    loss, target = LowBand(), voice(200.0)
    assert loss(target, target) < 1e-4
    late, unsteady = loss(voice(200.0, late=0.002), target), loss(voice(200.0, unsteady=0.15), target)
    assert late < 0.02
    assert unsteady > 10 * late
