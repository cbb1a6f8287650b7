"""Waveforms judged as a listener would, and by what the stages before them allow."""

import math

import pytest
import torch

from sonant.nn.tap import tapped
from sonant.parity.kit import LISTENER_DB, LISTENER_SHARE, KitReport
from sonant.parity.listening import heard
from tests.parity import cases

RATE = 24_000


@pytest.fixture
def voice():
    """A second of 20 harmonics of 120 Hz, [S]."""
    time = torch.arange(RATE) / RATE
    return sum(torch.sin(2 * math.pi * 120 * n * time) / n for n in range(1, 21)) * 0.2


def turned(voice, angle):
    """Every phase a little further: other samples, the same sound."""
    spectrum = torch.fft.rfft(voice)
    return torch.fft.irfft(spectrum * torch.exp(torch.tensor(1j * angle)), n=len(voice))


def test_a_turned_phase_moves_samples_and_is_not_heard(voice):
    other = turned(voice, 0.02)
    assert (other - voice).abs().max() > 2e-3
    found = heard(voice, other)
    assert found.decibels < LISTENER_DB
    assert found.convergence < LISTENER_SHARE


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 1.02,
        lambda x: x + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)),
        lambda x: torch.nn.functional.avg_pool1d(x[None, None], 3, 1, 1)[0, 0],
        lambda x: x.clamp(-0.3, 0.3),
    ],
)
def test_what_changes_the_spectrum_is_heard(voice, change):
    found = heard(voice, change(voice))
    assert found.decibels > LISTENER_DB or found.convergence > LISTENER_SHARE


def report():
    lines = []
    return KitReport(lines.append), lines


def test_samples_in_their_tolerance_need_nothing_else(voice):
    kit, _ = report()
    assert kit.sound("case", "wav", voice[None] + 1e-4, voice[None], 2e-3, lambda: pytest.fail("was asked"))
    assert (kit.passed, kit.failed) == (1, 0)


def test_others_must_come_from_a_right_vocoder_and_sound_the_same(voice):
    far, kit = turned(voice, 0.02)[None], report()[0]
    assert kit.sound("case", "wav", far, voice[None], 2e-3, lambda: (voice[None] + 1e-4, 1e-3))
    assert not kit.sound("case", "wav", far, voice[None], 2e-3, lambda: (voice[None] + 2e-3, 1e-3))
    assert not kit.sound("case", "wav", voice[None] * 1.05, voice[None], 2e-3, lambda: (voice[None], 1e-3))
    assert not kit.sound("case", "wav", far, voice[None], 2e-3, lambda: None)
    assert not kit.sound("case", "wav", far[:, 1:], voice[None], 2e-3, lambda: (voice[None], 1e-3))
    assert (kit.passed, kit.failed) == (1, 4)


def test_the_integrated_source_phase_is_what_amplifies_rounding():
    """A mel that is off by rounding gives samples far more off, unless the pitch is held."""
    trace = cases.reference("cosyvoice3")
    vocoder = cases.load("cosyvoice3").vocoder
    mel, noise = trace.by_key["vocoder.mel"].stored, trace.by_key["vocoder.noise"].stored
    near = mel + 3e-6 * (2 * torch.rand(mel.shape, generator=torch.Generator().manual_seed(4)) - 1)

    def spoken(mel, held=None):
        seen = {}

        def sink(name, tensor):
            seen[name] = held if held is not None and name == "vocoder.f0" else tensor
            return seen[name]

        with torch.inference_mode(), tapped(sink):
            return vocoder(mel, noise, is_final=True), seen

    right, stages = spoken(mel)
    free, moved = spoken(near)
    held, _ = spoken(near, stages["vocoder.f0"])
    size = {name: float((moved[name] - stages[name]).abs().max()) for name in ("vocoder.sines", "vocoder.f0")}
    assert size["vocoder.sines"] > 30 * size["vocoder.f0"] / float(stages["vocoder.f0"].max())
    assert (free - right).abs().max() > 10 * (held - right).abs().max()
