"""The checkpoint inside the package: found by name, speaks, and is understood."""

from __future__ import annotations

import numpy as np
import pytest

import sonant
from sonant.catalogue.registry import BUNDLED, describe

SENTENCES = (
    "The old lighthouse keeper climbed the spiral stairs just before midnight.",
    "Please turn left at the second traffic light and park behind the library.",
    "I cannot believe that you walked all the way home in the rain!",
    "His grandfather taught him how to repair watches and play the violin.",
    "Thank you for calling, your order will arrive within five working days.",
)


@pytest.fixture(scope="module")
def engine():
    with sonant.load("nano", device="cpu", slots=1) as engine:
        yield engine


def test_it_speaks_for_about_as_long_as_the_sentence_takes(engine):
    speech = engine.synthesize(sonant.SpeechRequest("Good morning, my friend.", seed=1))
    assert speech.sample_rate == 24_000
    assert 1.0 < speech.seconds < 4.0
    assert 0.02 < float(np.sqrt(np.mean(speech.samples**2))) < 0.5


def test_it_says_the_same_again_and_slower_takes_longer(engine):
    request = sonant.SpeechRequest("One two three.", seed=1)
    once, again = engine.synthesize(request), engine.synthesize(request)
    assert np.array_equal(once.samples, again.samples)
    slow = engine.synthesize(sonant.SpeechRequest("One two three.", seed=1, speed=0.7))
    assert slow.seconds > 1.2 * once.seconds


def test_it_claims_no_more_than_it_learned():
    spec = describe("nano")
    assert spec.family == "qwen3_tts"
    assert "preset_voice" in spec.capabilities
    assert not {"instruction", "clone"} & set(spec.capabilities)


def test_it_stays_small():
    size = sum(path.stat().st_size for path in (BUNDLED / "nano").rglob("*") if path.is_file())
    assert size <= 25_000_000


@pytest.mark.slow
def test_a_recogniser_understands_most_words(engine):
    pytest.importorskip("faster_whisper")
    from recipes.nano.hearing import Ear, Score

    ear, score = Ear(), Score()
    for text in SENTENCES:
        speech = engine.synthesize(sonant.SpeechRequest(text, seed=20))
        score += ear.score(speech.samples, speech.sample_rate, text)[0]
    assert score.wer <= 0.2
