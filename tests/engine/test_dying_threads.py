"""A helper thread, preparing or decoding, that dies in whichever of its lines leaves nobody waiting."""

import itertools
import linecache
import threading
from collections import Counter

import numpy as np
import pytest

from sonant.engine import decoding, loop, preparing
from sonant.engine.engine import Engine
from sonant.errors import GenerationError
from sonant.request.speech import SpeechRequest
from tests.engine.faulty import PATIENCE, FaultyToy, read

HELPERS = ("sonant-prepare", "sonant-decode")
TEXTS = ("a. b. c", "d. e")
FUNCTIONS = (
    decoding.DecodingThread._run,
    decoding.decode,
    preparing.PreparingThread._run,
    preparing.PreparingThread._next,
    loop.Loop._post_prepared,
    loop.Loop._post_decoded,
    loop.Loop._share_with_steps,
    loop.Loop.wake,
)
CODES = {function.__code__ for function in FUNCTIONS}


class Breaker:
    """Traces the helper threads: counts how often each of their lines runs, and breaks one of them, once."""

    def __init__(self, at=None, time=1):
        self.at, self.time, self.ran = at, time, Counter()

    def __enter__(self):
        self.usual = threading.gettrace()  # of who counts the lines that run
        threading.settrace(self.call)
        return self

    def __exit__(self, *raised):
        threading.settrace(self.usual)

    def call(self, frame, event, arg):
        is_ours = frame.f_code in CODES and threading.current_thread().name in HELPERS
        return self.line if is_ours else None

    def line(self, frame, event, arg):
        source = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and source != "try:":  # which does nothing that could go wrong
            here = (threading.current_thread().name, frame.f_code.co_qualname, source)
            self.ran[here] += 1
            if here == self.at and self.ran[here] == self.time:
                raise RuntimeError("a planted fault")
        return self.line

    @property
    def has_broken(self):
        return self.ran[self.at] >= self.time


def say(text, seed=1, **given):
    return SpeechRequest(text, seed=seed, **given)


def outcome(act):
    """The samples of a stream or a speech, or the error that it ended with; it must end."""
    try:
        return read(act())
    except GenerationError as error:
        return error


def speak(breaker):
    """What became of two requests at once and of one after them, while the threads are traced."""
    with Engine(FaultyToy(), slots=2, pipelined=True, chunk_limit=1000) as engine:
        with breaker:
            begun = []
            for number, text in enumerate(TEXTS):
                try:
                    begun.append(engine.submit(say(text, number)))
                except GenerationError as error:
                    begun.append(error)
            found = [one if isinstance(one, Exception) else outcome(lambda one=one: one) for one in begun]
        later = outcome(lambda: engine.submit(say(TEXTS[0], 0)))
        assert engine.load == (0, 0)
    return found, later


def test_a_helper_that_dies_in_any_line_leaves_nobody_waiting(caplog):
    usual = Breaker()
    expected, later = speak(usual)
    assert not any(isinstance(one, Exception) for one in (*expected, later))
    assert {name for name, _, _ in usual.ran} == set(HELPERS)
    assert {function for _, function, _ in usual.ran} == {code.co_qualname for code in CODES}
    broken = 0
    for at in sorted(usual.ran):
        for time in (1, 3):
            if usual.ran[at] < time:
                continue
            caplog.clear()
            breaker = Breaker(at, time)
            found, later = speak(breaker)
            for right, one in zip(expected, found, strict=True):
                assert isinstance(one, Exception) or np.array_equal(one, right), at
            if isinstance(later, Exception):
                assert "this engine is broken" in str(later)
                broken += 1
            else:
                assert np.array_equal(later, expected[0])
            assert breaker.has_broken, at
            assert "a planted fault" in caplog.text, at
            assert "Traceback" in caplog.text, at
    assert broken


@pytest.mark.parametrize("module", [decoding, preparing])
def test_a_model_that_torch_cannot_speak_with_ends_the_request(module, monkeypatch, caplog):
    """Where the thread begins, before it looks at any request."""
    given = module.inference

    def broken(model):
        if threading.current_thread().name in HELPERS:
            raise RuntimeError("no such mode")
        return given(model)

    with Engine(FaultyToy(), pipelined=True) as engine:
        monkeypatch.setattr(module, "inference", broken)
        error = outcome(lambda: engine.submit(say("one. two")))
    assert "no such mode" in str(error)
    assert "no such mode" in caplog.text


def test_what_fails_before_a_piece_is_decoded_is_the_fault_of_that_piece(caplog):
    with Engine(FaultyToy(), slots=2, pipelined=True, chunk_limit=1000) as engine:
        expected = outcome(lambda: engine.submit(say("two", 2)))
    with Engine(FaultyToy(), slots=2, pipelined=True, chunk_limit=1000) as engine:
        faults = itertools.chain([0], itertools.repeat(1))
        engine._loop._share_with_steps = lambda: 1 / next(faults)
        assert "ZeroDivisionError" in str(outcome(lambda: engine.submit(say("one", 1))))
        assert np.array_equal(outcome(lambda: engine.submit(say("two", 2))), expected)
    assert "the decoding thread stumbled" in caplog.text


@pytest.mark.parametrize("helper", ["_preparing", "_decoding"])
def test_a_helper_that_is_away_without_a_word_is_noticed_by_who_asks_next(helper, caplog):
    with Engine(FaultyToy(), pipelined=True, chunk_limit=1) as engine:
        open_one = engine.submit(say("one two three four five"))  # its reader pauses
        away = getattr(engine._loop, helper)
        away.close()
        away.thread.join(PATIENCE)
        error = outcome(lambda: engine.submit(say("one. two")))
        assert "ended by itself" in str(error)
        assert isinstance(outcome(lambda: open_one), Exception)
        assert engine.load == (0, 0)
