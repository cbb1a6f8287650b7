"""Words over sound: pauses after punctuation, shares by length, nothing where there is nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonant.audio.word_times import speech, word_times

RATE = 16_000


def tones(*parts):
    """Seconds of noise (positive) and of silence (negative)."""
    rng = np.random.default_rng(0)
    pieces = [
        0.2 * rng.standard_normal(round(RATE * s)) if s > 0 else np.zeros(round(-RATE * s)) for s in parts
    ]
    return np.concatenate(pieces).astype(np.float32)


def test_stretches_of_speech_are_found_and_closures_are_no_pauses():
    found = speech(tones(-0.3, 1.0, -0.05, 0.5, -0.4, 0.7, -0.2), RATE)
    assert np.allclose(found, [(0.3, 1.85), (2.25, 2.95)], atol=0.02)


def test_a_pause_falls_after_punctuation():
    words = word_times(tones(-0.1, 1.0, -0.3, 2.0, -0.1), RATE, "Hello there, and this is the longer half.")
    assert [word.text for word in words][:3] == ["Hello", "there", "and"]
    assert words[1].end == pytest.approx(1.1, abs=0.02)
    assert words[2].start == pytest.approx(1.4, abs=0.02)
    assert words[-1].end == pytest.approx(3.4, abs=0.02)


def test_more_pauses_than_words_and_words_without_spaces():
    assert [w.text for w in word_times(tones(0.3, -0.2, 0.3, -0.3, 0.3), RATE, "One two")] == ["One", "two"]
    assert [w.text for w in word_times(tones(1.0), RATE, "你好 world, 3.50 it's")] == [
        "你",
        "好",
        "world",
        "3.50",
        "it's",
    ]


@pytest.mark.parametrize(
    ("samples", "text"),
    [(tones(-1.0), "Hello"), (tones(1.0), "..."), (tones(0.001), "a"), (np.zeros(0, np.float32), "a")],
)
def test_nothing_comes_of_nothing(samples, text):
    assert word_times(samples, RATE, text) == []


@given(
    st.lists(st.floats(-0.5, 0.8, allow_subnormal=False).filter(lambda s: abs(s) > 0.02), max_size=8),
    st.text(st.sampled_from("ab é,.!?你12 -'"), max_size=60),
)
def test_words_are_in_order_and_within_the_sound(parts, text):
    samples = tones(*parts) if parts else np.zeros(0, np.float32)
    words = word_times(samples, RATE, text)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0 <= time <= len(samples) / RATE + 0.001 for time in times)
    assert all(text[word.first :].startswith(word.text) for word in words)
