"""What newcomers type first: texts with settings, lists, loops in asyncio, and scripts that just end."""

import asyncio
import gc
import io
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.endings import WAYS, can_be_tried, end
from sonant import Sampling, SpeechRequest, Style, VoiceLibrary, say
from sonant.engine import lifetime
from sonant.engine import loop as loops
from sonant.engine.asking import request_of
from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError
from sonant.readings import saying
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
import os, signal, sys, threading, sonant
from sonant.errors import GenerationError
from sonant.readings import saying
MODEL = sys.argv[1]
HOW = {"seed": 1, "loudness": "off"}

def refused(ask):
    try:
        ask()
    except GenerationError as error:
        assert "stayed in the process that was forked" in str(error) and "load the model" in str(error), error
    else:
        sys.exit("no error")

engine, unused = sonant.load(MODEL), sonant.load(MODEL)
first = sonant.say("Hello.", model=MODEL, **HOW)
stream = engine.stream("It goes on, and on. " * 100, seed=1)
stream.get()
loads, may_end, load = threading.Event(), threading.Event(), saying.load

def slowly(model):
    if not loads.is_set():
        loads.set()
        may_end.wait()
        sys.exit()
    return load(model)

saying._engines.clear()
saying.load = slowly
other = threading.Thread(target=sonant.say, args=("Hello.",), kwargs={"model": MODEL})
other.start()
loads.wait()
if (child := os.fork()):
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    may_end.set()
    other.join()
    sys.exit(status)
signal.alarm(100)
refused(lambda: list(stream))
refused(lambda: engine.synthesize("Hello.", seed=1))
assert engine.load == (0, 0)
again = [sonant.say("Hello.", model=MODEL, **HOW), unused.synthesize("Hello.", seed=1)]
assert all((one.samples == first.samples).all() for one in again)
"""

LATE = """
import atexit, sys
def late():
    for engine in (begun, unused, Engine(begun.model)):
        try:
            engine.synthesize("Hello.", seed=1)
            print("spoken")
        except GenerationError as error:
            print(error)
atexit.register(late)  # called after what is registered by the import
import sonant
from sonant.engine.engine import Engine
from sonant.errors import GenerationError
begun = sonant.load(sys.argv[1])
unused = Engine(begun.model)
begun.synthesize("Hello.", seed=1)
"""


def child(script, *given):
    """What a script of its own process ends with: its status, what it said, and what went wrong."""
    # Python 3.12 and later warn of every fork of a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", ["builtin", "nano"])
def test_what_is_asked_for_after_the_closing_is_refused(model):
    """A thread that begins then is one that nobody ends; torch aborts the process."""
    status, said, wrong = child(LATE, model)
    assert (status, wrong) == (0, "")
    closed, *others = said.splitlines()
    assert "was closed" in closed
    assert others == ["this process ends; nothing is spoken any more"] * 2


def begun():
    engine = Engine(ToyModel())
    engine.synthesize("Hello.", seed=1)
    return engine._loop


def test_one_wait_that_is_broken_off_at_exit_leaves_no_other_loop_running(monkeypatch):
    monkeypatch.setattr(lifetime, "_begun", set())
    monkeypatch.setattr(lifetime, "_is_ending", False)
    several = [begun() for _ in range(3)]
    broken_off = several[1]._thread

    def press():
        assert all(loop.is_stopping for loop in several)  # all were told before the first wait
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(broken_off, "join", press)
        with pytest.raises(KeyboardInterrupt):
            lifetime.close_all()
    assert not several[0]._thread.is_alive()
    assert not several[2]._thread.is_alive()
    several[1].close()
    assert not lifetime._begun
    late = Engine(ToyModel())
    with pytest.raises(GenerationError, match="this process ends"):
        late.synthesize("Hello.", seed=1)
    with pytest.raises(GenerationError, match="this process ends"):
        late._loop._start_threads()  # as one that was asked for just before
    assert not lifetime._begun


@pytest.mark.parametrize("pipelined", [False, True])
def test_an_engine_that_is_closed_by_its_own_notify_is_let_go_of(pipelined):
    engine = Engine(ToyModel(), pipelined=pipelined)
    engine.submit(SpeechRequest("Hello.", seed=1), notify=engine.close)
    engine._loop._thread.join(60)
    assert engine._loop not in lifetime._begun
    assert not any(helper.thread.is_alive() for helper in engine._loop._helpers())


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_loop_whose_last_guard_fails_ends_its_streams_and_its_threads(pipelined, caplog):
    engine = Engine(ToyModel(), pipelined=pipelined)
    engine._loop._tick = engine._loop._rows.forget = lambda: 1 / 0
    stream = engine.stream("Hello.", seed=1)
    with pytest.raises(GenerationError, match="ZeroDivisionError"):
        stream.get(timeout=60)
    engine.close()  # waits for ever where a helper was left
    assert engine._loop not in lifetime._begun
    assert not any(helper.thread.is_alive() for helper in engine._loop._helpers())


def test_an_engine_that_is_given_no_thread_says_so_and_may_begin_later(engine, monkeypatch):
    class Refused(threading.Thread):
        def start(self):
            if self.name == "sonant-engine":
                raise RuntimeError("can't start new thread")
            super().start()

    with monkeypatch.context() as patch:
        patch.setattr(loops.threading, "Thread", Refused)
        with pytest.raises(GenerationError, match="can't start new thread"):
            engine.synthesize("Hello.", seed=1)
    assert engine._loop not in lifetime._begun
    assert engine.load == (0, 0)
    assert engine.synthesize("Hello.", seed=1).seconds > 0


def test_threads_of_an_engine_that_nobody_knows_any_more_are_still_ended_at_exit():
    """One that was let go of in mid-stream aborted the process, if it was inside torch at that moment."""
    stream = Engine(ToyModel()).stream("It goes on, and on, and on. " * 40, seed=1)
    stream.get()
    gc.collect()
    mine = (one for one in lifetime._begun if stream in [progress.stream for progress in [*one._open]])
    (loop,) = mine
    loop.close()
    assert loop not in lifetime._begun
    assert not loop._thread.is_alive()


def test_what_a_forked_child_inherits_waits_for_nobody(monkeypatch):
    """As it is there: the threads are away, and the locks are held."""
    engine = Engine(ToyModel())
    loop = engine._loop
    loop._preparing = SimpleNamespace(ask=lambda *asked: None)
    monkeypatch.setattr(loop, "_start_threads", lambda: None)
    stream = engine.stream("Hello.", seed=1)
    loop._preparing = None
    with loop._condition, stream._lock:
        loop.lose_threads()
        assert engine.load == (0, 0)
        with pytest.raises(GenerationError, match=r"stayed in the process.*load the model and submit"):
            stream.get(timeout=60)
        stream.cancel()
        with pytest.raises(GenerationError, match=r"stayed in the process.*load the model again"):
            engine.synthesize("Hello.", seed=1)
        assert stream._lock.acquire(timeout=60)
        assert loop._condition.acquire(timeout=60)


def test_the_one_liner_of_a_forked_child_waits_for_no_load_of_its_parent(engine, monkeypatch):
    monkeypatch.setattr(saying, "_engines", {"toy": None})
    monkeypatch.setattr(saying, "_left", [])
    monkeypatch.setattr(saying, "_lock", threading.Lock())
    monkeypatch.setattr(saying, "load", lambda model: engine)
    with saying._lock:
        saying._after_fork()
        assert saying._lock.acquire(timeout=60)
        saying._lock.release()
        assert say("Hello.", model="toy", seed=1).seconds > 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.parametrize("model", ["builtin", "nano"])
def test_a_forked_child_is_told_and_may_speak_by_itself(model):
    assert child(FORKED, model) == (0, "", "")


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
