"""Time-stretching keeps the pitch, gives the length asked for, and does not care how its input is cut."""

import numpy as np
import pytest

from sonant.audio.stretch import Stretcher

RATE = 24_000


def tone(seconds=2.0, pitch=220.0):
    times = np.arange(round(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * pitch * times) * (1 + np.sin(2 * np.pi * 3 * times)) / 2).astype(
        np.float32
    )


def stretched(samples, rate, cuts=()):
    stretcher = Stretcher(rate, RATE)
    pieces = [stretcher.push(piece) for piece in np.split(samples, cuts)]
    return np.concatenate([*pieces, stretcher.finish()])


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.8, 1.25, 2.0, 4.0])
def test_length_pitch_and_level(rate):
    samples = tone()
    made = stretched(samples, rate)
    assert len(made) == pytest.approx(len(samples) / rate, rel=0.02)
    spectrum = np.abs(np.fft.rfft(made))
    assert np.argmax(spectrum) * RATE / len(made) == pytest.approx(220.0, abs=2.0)
    assert np.abs(made).max() <= 0.41


@pytest.mark.parametrize("rate", [0.25, 0.7, 1.5, 4.0])
def test_pieces_joined_are_the_whole(rate):
    samples = tone()
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, len(samples)), size=40, replace=False))
    assert np.array_equal(stretched(samples, rate, cuts), stretched(samples, rate))


def test_sound_comes_before_the_end():
    assert len(Stretcher(1.5, RATE).push(tone())) > RATE // 2


def test_nothing_is_nothing():
    assert len(stretched(np.zeros(0, np.float32), 2.0)) == 0
