"""The leveller of passing sound: in pieces as on the whole, near the target, never clipping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyloudnorm import IIRfilter, Meter
from scipy.signal import butter, sosfilt

from sonant.audio.loudness import HIGHEST_PEAK, KNEE, Leveller, _k_weighting, measure_loudness, rounded
from sonant.audio.response import Response, low_pass
from sonant.audio.rumble import MEMORY, RUMBLE_HZ

RATE = 24_000


def speech(seconds, level, seed=0):
    """Noise in syllables and pauses, coloured like a voice, at so many LUFS."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    time = np.arange(count) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * n * time + rng.uniform(0, 6)) / n for n in range(1, 25))
    said = voice * np.clip(np.sin(2 * np.pi * 3.1 * time), 0, 1) * (np.sin(2 * np.pi * 0.21 * time) > -0.8)
    said = (said + rng.normal(0, 1e-4, count)).astype(np.float32)
    said *= np.float32(0.3 / np.abs(said).max())
    return (said * 10 ** ((level - measure_loudness(said, RATE)) / 20)).astype(np.float32)


@pytest.mark.parametrize("level", [-38, -27, -23, -16, -12])
def test_speech_of_any_level_comes_near_the_target(level):
    levelled = Leveller(-19.0, RATE).push(speech(12, level))
    assert measure_loudness(levelled[4 * RATE :], RATE) == pytest.approx(-19.0, abs=1.5)
    assert np.abs(levelled).max() < HIGHEST_PEAK


def test_the_level_of_long_speech_comes_to_rest():
    given = speech(40, -30)
    gains = Leveller(-19.0, RATE).push(given)[30 * RATE :] / np.where(given == 0, 1, given)[30 * RATE :]
    sounding = gains[np.abs(given[30 * RATE :]) > 1e-3]
    assert 20 * np.log10(sounding.max() / sounding.min()) < 0.3


def test_a_long_silence_before_and_between_words_changes_no_gain():
    quiet = np.zeros(3 * RATE, np.float32)
    said = speech(3, -23)
    alone = Leveller(-19.0, RATE).push(said)
    after = Leveller(-19.0, RATE).push(np.concatenate([quiet, said, quiet, quiet, said]))
    np.testing.assert_array_equal(after[3 * RATE : 6 * RATE], alone)
    assert np.abs(after[6 * RATE : 12 * RATE]).max() == 0.0
    assert np.abs(after[12 * RATE :]).max() == pytest.approx(np.abs(alone).max(), rel=0.05)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * RATE), max_size=12))
def test_pieces_equal_the_whole_bit_for_bit(cuts):
    said = speech(3, -35)
    leveller = Leveller(-14.0, RATE)
    joined = np.concatenate([leveller.push(part) for part in np.split(said, sorted(cuts))])
    np.testing.assert_array_equal(joined, Leveller(-14.0, RATE).push(said))


def test_the_measure_is_that_of_the_whole_recording():
    said = speech(20, -23)
    leveller = Leveller(-19.0, RATE)
    leveller.push(said)
    assert leveller.heard()[0] == pytest.approx(measure_loudness(said, RATE), abs=0.2)


def test_only_peaks_are_rounded_and_none_reaches_the_limit():
    ramp = np.linspace(-30, 30, 10_001)
    bent = rounded(ramp)
    below = np.abs(ramp) <= KNEE
    np.testing.assert_array_equal(bent[below], ramp[below].astype(np.float32))
    assert np.all(np.diff(bent) >= 0)
    assert np.abs(bent).max() < HIGHEST_PEAK


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.7, 3.21, 12.0])
def test_loudness_is_what_pyloudnorm_measures(rate, seconds):
    said = speech(seconds, -27)[: int(seconds * rate)]
    said = np.concatenate([said, np.zeros(rate, np.float32), said * 0.01, said])
    theirs = Meter(rate).integrated_loudness(said.astype(np.float64))
    assert measure_loudness(said, rate) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
def test_the_weighting_is_pyloudnorms_to_the_bit(rate):
    shelf = IIRfilter(4.0, 1 / np.sqrt(2), 1500.0, rate, "high_shelf")
    high_pass = IIRfilter(0.0, 0.5, 38.0, rate, "high_pass")
    np.testing.assert_array_equal(_k_weighting(rate), [[*one.b, *one.a] for one in (shelf, high_pass)])


def test_what_is_all_but_silent_has_no_loudness():
    assert measure_loudness(np.full(RATE, 1e-6, np.float32), RATE) == float("-inf")


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_a_filter_by_its_response_equals_the_recursive_one_in_pieces_too(rate):
    samples = np.random.default_rng(0).normal(0.01, 0.1, 3 * rate)
    exact = sosfilt(butter(4, RUMBLE_HZ, "lowpass", fs=rate, output="sos"), samples)
    filtered = Response(low_pass(RUMBLE_HZ, 4, rate), rate, MEMORY)
    pieces = [filtered.push(part) for part in np.split(samples, [1, 700, 701, rate, 2 * rate])]
    np.testing.assert_allclose(np.concatenate(pieces), exact, rtol=0, atol=1e-12)
