"""What newcomers type first: texts with settings, lists, loops in asyncio, and scripts that just end."""

import asyncio
import gc
import io
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.endings import WAYS, can_be_tried, end
from sonant import Sampling, SpeechRequest, Style, VoiceLibrary, say
from sonant.engine import loop as loops
from sonant.engine.asking import request_of
from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError
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


class Table:
    """As a frame of pandas: two axes, and its items are the heads of its columns."""

    ndim = 2

    def __iter__(self):
        return iter(["text", "voice"])


class Column(Table):
    ndim = 1

    def __iter__(self):
        return iter(["One.", "Two."])


NO_TEXTS = [
    5,
    None,
    b"bytes",
    ["Hello.", 5],
    {"text": "Hello."},
    {"A set has no order."},
    np.array("0-d"),
    Table(),
    io.StringIO("Lines of a script.\nOne by one."),
]


def test_a_column_of_a_table_is_a_list(engine):
    assert len(engine.synthesize(Column(), seed=1)) == len(engine.synthesize(np.array(["One.", "Two."]))) == 2


@pytest.mark.parametrize("gather", [dict.keys, dict.values, iter], ids=["keys", "values", "iterator"])
def test_what_has_an_order_is_a_list(engine, gather):
    said = engine.synthesize(gather({"One.": "One.", "Two is longer.": "Two is longer."}), seed=1)
    assert [len(speech.samples) for speech in said] == [
        len(engine.synthesize(text, seed=1).samples) for text in ("One.", "Two is longer.")
    ]


@pytest.mark.parametrize("what", NO_TEXTS, ids=lambda what: type(what).__name__)
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
        ({"style": "cheerful"}, "style is a str; expected a Style"),
        ({"sampling": {"temperature": 1}}, "sampling is a dict; expected a Sampling"),
        ({"options": ["x"]}, r"options is a list; expected names with values\."),
        ({"speed": "fast"}, "speed"),
        ({"qqqqq": 1}, "there are: "),
    ],
)
def test_what_is_no_setting_is_refused_with_words(given, words):
    with pytest.raises(RequestError, match=words):
        request_of("Hello.", given)


def test_none_is_not_given():
    given = dict.fromkeys(("style", "sampling", "options", "chunk_policy", "voice"))
    assert request_of("Hello.", given) == request_of("Hello.", {})
    assert request_of("Hello.", {"style": None, "instruction": "x"}).style.instruction == "x"


def test_other_things_to_say_are_refused():
    with pytest.raises(RequestError, match="a int was given"):
        request_of(7, {})
    with pytest.raises(RequestError, match="beside a SpeechRequest"):
        request_of(SpeechRequest("x"), {"seed": 1})


def test_things_say_what_they_are(engine):
    assert repr(engine) == "<Engine: toy (toy), 2 slots, 0 running, 0 waiting>"
    assert repr(SpeechRequest("Hello.", seed=3, speed=1.5)) == "SpeechRequest('Hello.', speed=1.5, seed=3)"
    stream = engine.stream("Hello.", seed=3)
    list(stream)
    assert re.fullmatch(r"<SpeechStream: 'Hello.', [\d.]+ s made, finished>", repr(stream))
    assert repr(VoiceLibrary("nowhere")) == "<VoiceLibrary: 0 voices in nowhere>"


def test_the_name_of_a_model_is_no_engine():
    with pytest.raises(RequestError, match=r"sonant\.load\('nano'\)"):
        Engine("nano")


FORKED = """
import os, sys, sonant
from sonant.errors import GenerationError
engine = sonant.load()
unused = sonant.load()
first = sonant.say("Hello.", seed=1, loudness="off")
engine.synthesize("Hello.", seed=1)
if (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    engine.synthesize("Hello.", seed=1)
except GenerationError as error:
    assert "stayed in the process that was forked" in str(error) and "load the model again" in str(error)
else:
    sys.exit("no error")
again = [sonant.say("Hello.", seed=1, loudness="off"), unused.synthesize("Hello.", seed=1)]
assert all((one.samples == first.samples).all() for one in again)
"""


def test_an_engine_without_its_threads_is_refused():
    with Engine(ToyModel()) as engine:
        engine.synthesize("Hello.", seed=1)
        engine._loop.lose_threads()
        with pytest.raises(GenerationError, match="stayed in the process that was forked"):
            engine.synthesize("Hello.", seed=1)


def test_threads_of_an_engine_that_nobody_knows_any_more_are_still_ended_at_exit():
    """One that was let go of in mid-stream aborted the process, if it was inside torch at that moment."""
    stream = Engine(ToyModel()).stream("It goes on, and on, and on. " * 40, seed=1)
    stream.get()
    gc.collect()
    mine = (one for one in loops._BEGUN if stream in [progress.stream for progress in [*one._open]])
    (loop,) = mine
    loop.close()
    assert loop not in loops._BEGUN
    assert not loop._thread.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_forked_child_is_told_and_may_speak_by_itself():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_one_liner_takes_a_list(engine, monkeypatch):
    monkeypatch.setattr("sonant.readings.saying.load", lambda model: engine)
    assert [len(one.samples) > 0 for one in say(["One.", "Two."], model="toy", seed=1)] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("run", range(int(os.environ.get("SONANT_ENDINGS", "3"))))
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_end_is_quiet(way, run):
    if not can_be_tried(way):
        pytest.skip("needs a package that is not installed")
    is_quiet, said = end(way, "nano")
    assert is_quiet, said
