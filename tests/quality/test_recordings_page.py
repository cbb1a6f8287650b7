"""The page of measured recordings: everything inside, and a pitch that is where it should be."""

import re

import numpy as np
import pytest

from sonant.audio.measure import FRAME_SECONDS, measure, pitch_track
from sonant.quality.recordings_page import PITCH_HEIGHT, page, pitch_picture
from sonant.request.audio import Audio

RATE = 16_000


def buzz(hertz, seconds=1.0):
    """A voice-like sound: harmonics that fall off."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * n * hertz * time) / n for n in range(1, 12))
    return (0.1 * sound).astype(np.float32)


@pytest.fixture
def rising():
    gap = np.zeros(RATE // 2, np.float32)
    return Audio(np.concatenate([buzz(100.0), gap, buzz(200.0)]), RATE)


def test_the_track_follows_the_pitch_and_is_silent_in_silence(rising):
    track = pitch_track(rising.samples, RATE)
    at = [round(second / FRAME_SECONDS) for second in (0.5, 1.25, 2.0)]
    assert track[at[0]] == pytest.approx(100, rel=0.03)
    assert np.isnan(track[at[1]])
    assert track[at[2]] == pytest.approx(200, rel=0.03)
    assert measure(rising.samples, RATE).pitch == np.nanmedian(track)


def test_the_picture_shows_it_higher_and_later(rising):
    dots = [
        (float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', pitch_picture(rising))
    ]
    first, last = dots[5], dots[-5]
    assert first[0] < last[0]
    assert 0 <= last[1] < first[1] <= PITCH_HEIGHT


def test_the_page_needs_nothing_else_and_escapes_what_it_quotes(rising):
    result = {"file": "<a>.wav", **measure(rising.samples, RATE).as_dict(), "problems": ("a & b",)}
    judged = {"heard": "<i>hello</i>", "wer": 0.5, "runs": ["missing: '<b>'"]}
    text = page([(rising, result), (rising, result | judged)])
    assert text.count("<audio") == text.count("<img") == 2
    assert text.count("<svg") == 4
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "<i>hello" not in text
    assert "<b>" not in text
    assert "word errors" in text
    assert "likeness" not in text
