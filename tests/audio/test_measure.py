"""Figures of a recording against signals whose figures are known, and a verdict on clips."""

import json

import numpy as np
import pytest

from sonant.audio.loudness import HIGHEST_PEAK, at_loudness, measure_loudness
from sonant.audio.measure import clipping_share, measure, spectral_distance
from sonant.audio.rumble import HighPass, RumbleMeter
from sonant.errors import RequestError

RATE = 24_000


def tone(frequency, seconds=2.0, level=0.3, rate=RATE):
    return (level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def speechlike(seconds=4.0, pitch=120.0):
    """Harmonics of one pitch in syllables, four a second, with half a second of silence at both ends."""
    times = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * pitch * n * times) / n for n in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 4 * times - np.pi / 2), -0.9, 1) * 0.5 + 0.5
    sound = 0.15 * voice * syllables * ((times > 0.5) & (times < seconds - 0.5))
    return sound.astype(np.float32)


@pytest.fixture(scope="module")
def clip():
    return measure(speechlike(), RATE)


def test_levels_of_a_sine(clip):
    found = measure(tone(440), RATE)
    assert found.seconds == 2.0
    assert found.peak == pytest.approx(0.3, abs=1e-3)
    assert found.rms_db == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.05)
    assert found.silence_share == 0.0


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_loudness_of_the_standards_reference_tone(rate):
    # BS.1770: a full-scale 997 Hz sine in one channel is at -3.01 LUFS
    assert measure_loudness(tone(997, 5.0, 1.0, rate), rate) == pytest.approx(-3.01, abs=0.15)


@pytest.mark.parametrize("pitch", [80, 120, 200, 300])
def test_pitch_is_found_within_three_percent(pitch):
    assert measure(speechlike(pitch=float(pitch)), RATE).pitch == pytest.approx(pitch, rel=0.03)


def test_noise_has_no_pitch():
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert measure(noise, RATE).pitch is None


def test_silence_and_pace(clip):
    assert clip.leading_silence == pytest.approx(0.5, abs=0.1)
    assert clip.trailing_silence == pytest.approx(0.5, abs=0.1)
    assert 0.2 < clip.silence_share < 0.5
    assert clip.syllable_rate == pytest.approx(4.5, abs=1.5)
    assert clip.problems() == ()


def test_clipping_is_found_at_full_scale_and_after_turning_down():
    loud = np.clip(10 * speechlike(), -1, 1)
    assert clipping_share(speechlike()) == 0.0
    assert clipping_share(loud) > 0.02
    assert clipping_share(0.4 * loud) > 0.02
    assert clipping_share(tone(60)) < 1e-3


def test_verdicts_name_what_is_wrong():
    rng = np.random.default_rng(1)
    speech = speechlike()
    for samples, word in (
        (np.zeros(RATE, np.float32), "silent"),
        (0.02 * speech, "quiet"),
        (np.clip(20 * speech, -1, 1), "clipped"),
        (speech + np.float32(0.05), "DC offset"),
        (speech + tone(25, 4.0, 0.3), "below any voice"),
        (np.concatenate([speech, np.zeros(8 * RATE, np.float32)]), "silence"),
        (speech[: RATE // 2 + 8000], "not silent"),
        (rng.normal(0, 0.1, 2 * RATE).astype(np.float32), "speech?"),
    ):
        problems = measure(samples.astype(np.float32), RATE).problems()
        assert any(word in problem for problem in problems), (word, problems)


def test_figures_are_plain_json():
    for samples in (
        speechlike(1.5),
        np.zeros(100, np.float32),
        np.ones(3, np.float32),
        tone(100, 0.01, rate=RATE),
    ):
        json.dumps(measure(samples, RATE).as_dict(), allow_nan=False)


def test_what_cannot_be_measured_is_refused():
    for samples in (np.zeros(0), np.zeros((2, 2)), np.array([np.nan])):
        with pytest.raises(RequestError, match="measured"):
            measure(samples.astype(np.float32), RATE)
    with pytest.raises(RequestError, match="compare"):
        spectral_distance(tone(100, 0.01), tone(100), RATE)


def test_distance_is_zero_for_equal_sound_and_grows_with_change():
    speech = speechlike()
    assert spectral_distance(speech, speech, RATE) == 0.0
    noisy = speech + np.random.default_rng(0).normal(0, 1e-3, len(speech)).astype(np.float32)
    assert (
        0
        < spectral_distance(speech, speech * np.float32(0.99), RATE)
        < spectral_distance(speech, noisy, RATE)
    )


def test_gain_reaches_the_loudness_or_stops_below_clipping(caplog):
    quiet = at_loudness(speechlike(), RATE, -30.0)
    assert measure_loudness(quiet, RATE) == pytest.approx(-30.0, abs=0.1)
    loud = at_loudness(speechlike(), RATE, 0.0)
    assert np.abs(loud).max() <= HIGHEST_PEAK + 1e-4
    assert "would clip" in caplog.text
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(at_loudness(silence, RATE, -20.0), silence)


def test_high_pass_removes_rumble_and_offset_in_pieces_as_in_one():
    dirty = speechlike() + tone(25, 4.0, 0.3) + np.float32(0.1)
    whole = HighPass(60.0, RATE).push(dirty)
    filter_in_pieces = HighPass(60.0, RATE)
    pieces = np.concatenate([filter_in_pieces.push(dirty[i : i + 999]) for i in range(0, len(dirty), 999)])
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    before, after = RumbleMeter(RATE), RumbleMeter(RATE)
    before.push(dirty)
    after.push(whole[RATE // 2 :])
    assert before.result().is_excessive
    assert not after.result().is_excessive
    kept = HighPass(60.0, RATE).push(tone(200, 2.0))[RATE // 2 :]
    assert np.abs(kept).max() == pytest.approx(0.3, rel=0.02)
    with pytest.raises(RequestError, match="high-pass"):
        HighPass(5.0, RATE)
