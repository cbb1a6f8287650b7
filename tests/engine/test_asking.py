"""What newcomers type first: texts with settings, lists, loops in asyncio, and scripts that just end."""

import asyncio
import os
import time

import numpy as np
import pytest

from benchmarks.endings import WAYS, end
from sonant import Sampling, SpeechRequest, Style
from sonant.engine.asking import request_of
from sonant.engine.engine import Engine
from sonant.errors import RequestError
from tests.toy import ToyModel


@pytest.fixture
def engine():
    with Engine(ToyModel(), slots=2) as engine:
        yield engine


def is_idle(engine):
    """Whether nothing is left once the engine has seen what was cancelled."""
    return any(engine.load == (0, 0) or time.sleep(0.01) for _ in range(3000))


def test_a_text_with_settings_is_the_request_of_them(engine):
    typed = engine.synthesize("Hello there.", seed=3, temperature=0.7)
    asked = engine.synthesize(SpeechRequest("Hello there.", seed=3, sampling=Sampling(temperature=0.7)))
    assert np.array_equal(typed.samples, asked.samples)


@pytest.mark.parametrize("what", [5, None, b"bytes", ["Hello.", 5]], ids=str)
def test_what_is_no_text_is_told_as_such(engine, what):
    with pytest.raises(RequestError, match=r"was given to say; expected text or a SpeechRequest"):
        engine.synthesize(what)


def test_a_list_gives_a_list_with_the_samples_of_each_alone(engine):
    texts = ["One.", SpeechRequest("Two is longer.", seed=9), "Three."]
    together = engine.synthesize([texts[0], texts[2]], seed=4)
    assert len(together) == 2
    for text, speech in zip((texts[0], texts[2]), together, strict=True):
        assert np.array_equal(speech.samples, engine.synthesize(text, seed=4).samples)
    assert engine.synthesize([texts[1]])[0].seed == 9
    assert engine.synthesize([]) == []


def test_a_list_may_be_longer_than_the_queue():
    with Engine(ToyModel(), slots=1, queue_limit=2) as engine:
        assert len(engine.synthesize([f"Number {n}." for n in range(7)], seed=1)) == 7


def test_pieces_are_handed_on_as_they_are_made(engine):
    seen = []
    speech = engine.synthesize("Hello there.", seed=3, on_chunk=seen.append)
    assert sum(len(chunk.samples) for chunk in seen) == len(speech.samples)
    with engine.stream("Hello there.", seed=3) as stream:
        streamed = np.concatenate([chunk.samples for chunk in stream])
    assert np.allclose(streamed, speech.samples, atol=1e-6)  # float32, decoded in other pieces


def test_asyncio_reads_the_same_and_leaving_cancels(engine):
    async def read():
        return [chunk.samples async for chunk in engine.astream("Hello there.", seed=3)]

    async def leave():
        pieces = engine.astream("Hello there, and a good deal more than that. " * 40, seed=3)
        async for _ in pieces:
            break
        await pieces.aclose()

    whole = engine.synthesize("Hello there.", seed=3).samples
    assert np.allclose(np.concatenate(asyncio.run(read())), whole, atol=1e-6)
    asyncio.run(leave())
    assert engine.synthesize("Still here.", seed=1).seconds > 0
    assert is_idle(engine)


def test_a_failing_list_leaves_nothing_running(engine):
    with pytest.raises(RequestError, match="empty"):
        engine.synthesize(["One.", ""], seed=1)
    assert is_idle(engine)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"speeed": 1.1}, "did you mean speed"),
        ({"voice": 7}, "the voice is a int"),
        ({"style": Style(), "instruction": "x"}, "beside style"),
        ({"speed": "fast"}, "speed"),
        ({"qqqqq": 1}, "there are: "),
    ],
)
def test_what_is_no_setting_is_refused_with_words(given, words):
    with pytest.raises(RequestError, match=words):
        request_of("Hello.", given)


def test_other_things_to_say_are_refused():
    with pytest.raises(RequestError, match="a int was given"):
        request_of(7, {})
    with pytest.raises(RequestError, match="beside a SpeechRequest"):
        request_of(SpeechRequest("x"), {"seed": 1})


def test_things_say_what_they_are(engine):
    assert repr(engine) == "<Engine: toy (toy), 2 slots, 0 running, 0 waiting>"
    assert repr(SpeechRequest("Hello.", seed=3, speed=1.5)) == "SpeechRequest('Hello.', speed=1.5, seed=3)"


@pytest.mark.slow
@pytest.mark.parametrize("run", range(int(os.environ.get("SONANT_ENDINGS", "3"))))
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_end_is_quiet(way, run):
    is_quiet, said = end(way, "nano")
    assert is_quiet, said
