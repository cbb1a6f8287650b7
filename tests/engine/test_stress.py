"""Everything at once: many streams from many threads, of which many are cancelled, paused, late or faulty.

Every stream must end, with its own samples or its own error. SONANT_STRESS_STREAMS asks for more of them.
"""

import contextlib
import logging
import os
import random
import threading
import time

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.errors import BusyError, CancelledError, DeadlineError, GenerationError, SonantError
from sonant.request.speech import ChunkPolicy, SpeechRequest
from tests.engine.faulty import FaultyToy, GrowingToy, LazyToy

STREAMS = int(os.environ.get("SONANT_STRESS_STREAMS", "120"))
CALLERS = 6
PATIENCE = 300
"""Seconds after which a stream counts as one that never ends."""
TEXTS = (
    *("one", "two. three", "a somewhat longer line", "four [pause:5ms] five. six", "x"),
    *(
        "a stepfault here",
        "good. then stepfault",
        "startfault",
        "good. startfault",
        "a decodefault",
        "catfault",
        "nan",
    ),
    *("unreadable. good", "good. explode. never", "."),
)
POLICY = ChunkPolicy(first=2, growth=1.0, largest=2)


class StressToy(LazyToy, GrowingToy):
    """Everything that the others do wrong."""

    least_positions = 32


def is_faulty(text):
    return "fault" in text or "nan" in text


@pytest.fixture(scope="module")
def expected():
    """What each text says alone, by its place and whether it is streamed; None for one that fails."""
    found = {}
    with Engine(StressToy(), slots=1) as engine:
        for number, text in enumerate(TEXTS):
            for streaming in (False, True):
                with contextlib.suppress(GenerationError):
                    request = SpeechRequest(text, seed=number, chunk_policy=POLICY)
                    stream = engine.submit(request, streaming=streaming, chunk_limit=10_000)
                    found[number, streaming] = np.concatenate([chunk.samples for chunk in stream])
    assert {number for number, _ in found} == {n for n, text in enumerate(TEXTS) if not is_faulty(text)}
    return found


class Caller(threading.Thread):
    """One user of the engine, who does what a seeded coin says; `wrong` tells what should not have been."""

    def __init__(self, engine, seed, streams, expected):
        super().__init__(daemon=True)
        self.engine, self.coin, self.streams, self.expected = engine, random.Random(seed), streams, expected
        self.wrong, self.ended = [], {}

    def run(self):
        try:
            open_ones = []
            for _ in range(self.streams):
                with contextlib.suppress(BusyError):
                    open_ones.append(self.begin())
                if open_ones and (open_ones[-1] is None or self.coin.random() < 0.6):
                    self.end(open_ones.pop(self.coin.randrange(len(open_ones))))
            for one in open_ones:
                self.end(one)
        except BaseException as error:
            self.wrong.append(f"a caller met {error!r}")

    def begin(self):
        coin = self.coin
        number = coin.randrange(len(TEXTS))
        what = coin.choice(["read", "read", "read", "cancel", "deadline", "notify"])
        calls = []

        def notify():
            calls.append(1)
            if what == "notify" and len(calls) == 2:
                raise RuntimeError("nobody listens any more")

        streaming = coin.random() < 0.7
        request = SpeechRequest(
            TEXTS[number],
            seed=number,
            chunk_policy=POLICY,
            deadline=coin.choice([1e-3, 0.05]) if what == "deadline" else None,
        )
        try:
            stream = self.engine.submit(
                request,
                streaming=streaming,
                chunk_limit=coin.choice([1, 2, 10_000]),
                notify=notify,
                client=coin.choice([None, "crowd"]),
                priority=coin.choice([0, 0, 1]),
            )
        except (GenerationError, BusyError) as error:
            self.count(error)
            return None
        if what == "cancel" and coin.random() < 0.5:
            stream.cancel()
        return stream, number, streaming, what

    def end(self, one):
        if one is None:
            return
        stream, number, streaming, what = one
        parts = []
        try:
            while True:
                chunk = stream.get(timeout=PATIENCE)
                parts.append(chunk.samples)
                if chunk.is_final:
                    break
                if what == "cancel":
                    stream.cancel()
        except SonantError as error:
            self.count(error)
            known = {"cancel": CancelledError, "deadline": DeadlineError, "notify": GenerationError}.get(
                what, ()
            )
            is_told = (is_faulty(TEXTS[number]) and "the toy" in str(error)) or "non-finite" in str(error)
            is_told = is_told or "sizes of tensors" in str(error).lower() or "closed" in str(error)
            if not (is_told or isinstance(error, known) or self.engine._loop.is_stopping):
                self.wrong.append(f"{TEXTS[number]!r} to {what}: {error!r}")
        except BaseException as error:
            self.wrong.append(f"{TEXTS[number]!r} to {what} never ended: {error!r}")
        else:
            self.count(None)
            samples = np.concatenate(parts)
            right = self.expected.get((number, streaming))
            if right is None or not np.array_equal(samples, right):
                self.wrong.append(f"{TEXTS[number]!r} to {what} said something else")

    def count(self, error):
        name = "spoken" if error is None else type(error).__name__
        self.ended[name] = self.ended.get(name, 0) + 1


def stress(expected, *, seed, pipelined, slots, closes_after=None):
    engine = Engine(StressToy(), slots=slots, pipelined=pipelined, queue_limit=40)
    callers = [Caller(engine, seed * 100 + n, STREAMS // CALLERS, expected) for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    if closes_after is not None:
        time.sleep(closes_after)
        engine.close()
    for caller in callers:
        caller.join(PATIENCE)
        assert not caller.is_alive()
    assert [wrong for caller in callers for wrong in caller.wrong] == []
    if closes_after is None:
        assert len(engine.synthesize(SpeechRequest("one", seed=0)).samples)
        assert engine.load == (0, 0)
    engine.close()
    assert not any(
        thread.name.startswith("sonant-") and thread.is_alive() for thread in engine_threads(engine)
    )
    ended = {}
    for caller in callers:
        for name, count in caller.ended.items():
            ended[name] = ended.get(name, 0) + count
    return ended


def engine_threads(engine):
    helpers = [helper.thread for helper in engine._loop._helpers()]
    return [thread for thread in (engine._loop._thread, *helpers) if thread is not None]


@pytest.fixture(autouse=True)
def quiet():
    """Faults are logged with their tracebacks, by the hundred here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("slots", [1, 4])
def test_every_stream_ends_with_its_own_bytes_or_its_own_error(expected, pipelined, slots):
    ended = stress(expected, seed=slots + 10 * pipelined, pipelined=pipelined, slots=slots)
    assert {"spoken", "GenerationError", "CancelledError", "DeadlineError"} <= ended.keys()


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("closes_after", [0.0, 0.03, 0.2])
def test_a_close_at_any_moment_ends_every_stream(expected, pipelined, closes_after):
    stress(expected, seed=7, pipelined=pipelined, slots=3, closes_after=closes_after)


def test_a_faulty_batch_costs_its_neighbours_no_byte_however_often(expected):
    model = FaultyToy()
    with Engine(model, slots=4) as engine:
        for seed in range(6):
            good = engine.submit(SpeechRequest(TEXTS[2], seed=2), streaming=False)
            bad = [engine.submit(SpeechRequest("stepfault " * 2, seed=seed + n)) for n in range(3)]
            assert np.array_equal(good.get(timeout=PATIENCE).samples, expected[2, False])
            for stream in bad:
                with pytest.raises(GenerationError, match="the toy's step broke"):
                    for _ in stream:
                        pass
