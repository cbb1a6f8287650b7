"""Everything at once: many streams from many threads, of which many are cancelled, paused, late or faulty.

Every stream must end, with its own samples or as it may: by its own fault, by what its caller did, or by what
befell the whole engine. SONANT_STRESS_STREAMS asks for more of them, SONANT_STRESS_SEED for others: `make
stress` does both and prints the figures.
"""

import contextlib
import logging
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.engine.model import Prompt, Step
from sonant.engine.stream import SpeechStream
from sonant.errors import BusyError, CancelledError, DeadlineError, GenerationError, SonantError
from sonant.request.speech import ChunkPolicy, SpeechRequest, TextFeed
from tests.engine.faulty import FaultyToy, GrowingToy, LazyToy
from tests.toy import ToyInputs, ToyModel

STREAMS = int(os.environ.get("SONANT_STRESS_STREAMS", "100"))
SEED = int(os.environ.get("SONANT_STRESS_SEED", "0"))
CALLERS = 6
PATIENCE = 300
"""Seconds after which a stream counts as one that never ends."""
POLICY = ChunkPolicy(first=2, growth=1.0, largest=2)
FED_LETTERS = 60
"""Letters that a feed of these may have."""
BREAK, FALL = "the planted break of the loop", "the planted fall of a thread"


@dataclass(frozen=True)
class Case:
    """A text, or the pieces of a feed; `fault` is what its error must say, None where it has no fault."""

    text: str = ""
    pieces: tuple[str, ...] = ()
    fault: str | None = None
    breaks_off: bool = False
    """True where the feed's source fails after the last piece."""


CASES = (
    *map(Case, ("one", "two. three", "a somewhat longer line", "four [pause:5ms] five. six", "x", ".")),
    *map(Case, ("unreadable. good", "good. explode. never")),
    *(Case(text, fault="the toy's step broke") for text in ("a stepfault here", "good. then stepfault")),
    *(Case(text, fault="the toy's prefill broke") for text in ("startfault", "good. startfault")),
    Case("a decodefault", fault="the toy's decoder broke"),
    Case("catfault", fault="Sizes of tensors"),
    Case("nan", fault="non-finite samples"),
    Case(pieces=("The lake is ", "quiet to", "day", ".")),
    Case(pieces=("One ", "small boat crosses it, and nobody looks.")),
    Case(pieces=("The end ", "half \ud800 a character"), fault="half of a surrogate pair"),
    Case(pieces=("The words ",), fault="the toy's source broke", breaks_off=True),
)


INNOCENT = tuple(number for number, case in enumerate(CASES) if case.fault is None)
TOTAL: Counter[str] = Counter()
"""Endings by kind, of all engines on which nothing was planted that is to be found."""


def listed(ended):
    return ", ".join(f"{count} {kind}" for kind, count in ended.most_common())


class StressToy(LazyToy, GrowingToy):
    """Everything that the others do wrong; and it is fed. A fed letter is one step, which says one token or
    nothing; while none is there, its steps give nothing and change nothing."""

    least_positions = 32

    def __init__(self):
        super().__init__(sharpness=20)
        capabilities = self.spec.capabilities | {"text_stream"}
        self.spec = replace(self.spec, capabilities=capabilities)
        self.taken, self.moments = 0, {}
        """Steps so far, and what is to be done after which of them."""

    def each_prompt(self, request):
        feed = request.text_feed
        if feed is None:
            yield from super().each_prompt(request)
            return
        inputs = FedInputs(torch.tensor(list(b"fed")), feed)
        yield Prompt(
            text="", sampling=request.sampling.over(self.spec.sampling), seed=request.seed, ceiling=1 << 20,
            inputs=inputs, positions=len(inputs.ids) + FED_LETTERS + 1,
        )  # fmt: skip

    def start(self, prompt, slots):
        utterance = super().start(prompt, slots)
        utterance.letters = 0  # that wait to be said
        return utterance

    def step(self, utterances):
        self.taken += 1
        if self.taken in self.moments:
            self.moments.pop(self.taken)()
        steps = {}
        for utterance in utterances:
            if isinstance(utterance.prompt.inputs, FedInputs):
                text, is_over = utterance.prompt.inputs.feed.take()
                utterance.letters += len(text)
                if not utterance.letters:
                    steps[utterance] = Step(torch.zeros(0, 1, dtype=torch.int64), is_over)
        speaking = [utterance for utterance in utterances if utterance not in steps]
        if speaking:
            for utterance, step in zip(speaking, super().step(speaking), strict=True):
                if isinstance(utterance.prompt.inputs, FedInputs):
                    utterance.letters -= 1
                    step = Step(step.tokens, False)
                steps[utterance] = step
        elif len(utterances) == 1:
            utterances[0].prompt.inputs.feed.wait(1e-3)
        return [steps[utterance] for utterance in utterances]


@dataclass(frozen=True, eq=False)
class FedInputs(ToyInputs):
    feed: TextFeed


def request_of(number, feed, **given):
    return SpeechRequest(CASES[number].text, text_feed=feed, seed=number, chunk_policy=POLICY, **given)


def feed_on(case, feed, first=0, last=None):
    """Put some pieces of the case into its feed; with the last one comes its end. A feed may have ended."""
    with contextlib.suppress(SonantError):
        for piece in case.pieces[first:last]:
            feed.put(piece)
    if last is None and case.breaks_off:
        feed.fail(GenerationError("the toy's source broke"))
    elif last is None:
        feed.close()


@pytest.fixture(scope="module")
def expected():
    """What each case says alone, by its place and whether it is streamed; those with a fault say nothing."""
    found, failed = {}, {}
    with Engine(StressToy(), slots=1) as engine:
        for number, case in enumerate(CASES):
            for streaming in (False, True):
                feed = TextFeed() if case.pieces else None
                if feed is not None:
                    feed_on(case, feed)
                try:
                    stream = engine.submit(request_of(number, feed), streaming=streaming, chunk_limit=10_000)
                    found[number, streaming] = np.concatenate([chunk.samples for chunk in stream])
                except SonantError as error:
                    failed[case] = str(error)
    assert all(case.fault in words for case, words in failed.items())
    assert {number for number, _ in found} == set(INNOCENT)
    yield found
    print(f"\n\nall together {TOTAL.total()} streams: {listed(TOTAL)}")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A stream, and what its caller means to do with it."""

    stream: SpeechStream
    number: int
    streaming: bool
    what: str
    feed: TextFeed | None
    fed: int
    """Pieces that it was fed already."""
    is_left: bool
    """True where nobody feeds it any more."""


class Caller(threading.Thread):
    """One user of the engine, who does what a seeded coin says; `wrong` tells what should not have been, and
    `ended` counts the endings by kind. `planted` are words of what befalls every request of this engine,
    `numbers` those of the cases that are spoken."""

    def __init__(self, engine, seed, streams, expected, planted, numbers):
        super().__init__(daemon=True)
        self.engine, self.coin, self.streams, self.expected = engine, random.Random(seed), streams, expected
        self.planted, self.numbers = planted, numbers
        self.open_ones, self.wrong, self.ended = [], [], Counter()

    def run(self):
        try:
            for _ in range(self.streams):
                asked = self.begin()
                if asked is not None:
                    self.open_ones.append(asked)
                if self.open_ones and (asked is None or self.coin.random() < 0.6):
                    self.end(self.coin.choice(self.open_ones))
            while self.open_ones:
                self.end(self.open_ones[0])
        except BaseException as error:
            self.wrong.append(f"a caller met {error!r}")

    def begin(self):
        coin = self.coin
        number = coin.choice(self.numbers)
        case = CASES[number]
        what = coin.choice(["read", "read", "read", "cancel", "deadline", "notify"])
        calls = []

        def notify():
            calls.append(1)
            if what == "notify" and len(calls) == 2:
                raise RuntimeError("nobody listens any more")

        streaming = coin.random() < 0.7
        deadline = coin.choice([1e-3, 0.05]) if what == "deadline" else None
        limit, client, priority = (
            coin.choice([1, 2, 10_000]), coin.choice([None, "crowd"]), coin.choice([0, 0, 1])
        )  # fmt: skip
        feed, fed = (TextFeed(), coin.randrange(len(case.pieces) + 1)) if case.pieces else (None, 0)
        if feed is not None:
            feed_on(case, feed, last=fed)
        try:
            stream = self.engine.submit(
                request_of(number, feed, deadline=deadline),
                streaming=streaming,
                chunk_limit=limit,
                notify=notify,
                client=client,
                priority=priority,
            )
        except SonantError as error:
            self.judge(case, what, error, is_refused=True)
            return None
        if what == "cancel" and coin.random() < 0.5:
            stream.cancel()
        is_left = what in ("cancel", "deadline") and coin.random() < 0.5
        return Asked(
            stream=stream, number=number, streaming=streaming, what=what, feed=feed, fed=fed, is_left=is_left
        )

    def write_on(self):
        """Who waits for one stream must not owe another its text: that holds its row until then."""
        for one in self.open_ones:
            if one.feed is not None and not one.is_left:
                feed_on(CASES[one.number], one.feed, first=one.fed)
            elif one.feed is not None and one.what == "cancel":
                one.stream.cancel()

    def end(self, one):
        self.write_on()
        self.open_ones.remove(one)
        case, parts = CASES[one.number], []
        try:
            while True:
                chunk = one.stream.get(timeout=PATIENCE)
                parts.append(chunk.samples)
                if chunk.is_final:
                    break
                if one.what == "cancel":
                    one.stream.cancel()
        except SonantError as error:
            self.judge(case, one.what, error)
        except BaseException as error:
            self.wrong.append(f"{case} to {one.what} never ended: {error!r}")
        else:
            self.ended["own samples"] += 1
            right = self.expected.get((one.number, one.streaming))
            if right is None or not np.array_equal(np.concatenate(parts), right):
                self.wrong.append(f"{case} to {one.what} said something else")

    def judge(self, case, what, error, *, is_refused=False):
        """Whether this stream may end so: an innocent one only by its caller, or with the whole engine."""
        words = str(error)
        is_closed = self.engine._loop.is_stopping
        endings = {
            "own fault": case.fault is not None and case.fault in words,
            "cancelled": what == "cancel" and isinstance(error, CancelledError),
            "late": what == "deadline" and isinstance(error, DeadlineError),
            "its notify": what == "notify" and "nobody listens any more" in words,
            "busy": is_refused and isinstance(error, BusyError),
            "closed": is_closed and (isinstance(error, CancelledError) or "engine was closed" in words),
            "with the engine": self.planted is not None and self.planted in words,
        }
        kind = next((kind for kind, is_so in endings.items() if is_so), None)
        if kind is None:
            self.wrong.append(f"{case} to {what}: {error!r}")
        self.ended[kind or "wrong"] += 1


@dataclass(frozen=True)
class Outcome:
    """What callers met that should not have been, and how many streams ended how."""

    wrong: tuple[str, ...]
    ended: Counter[str]
    how: str


def stress(
    expected,
    *,
    seed,
    slots,
    pipelined,
    streams=STREAMS,
    closes_at=None,
    planted=None,
    plant=None,
    numbers=None,
):
    """Speak with an engine from many threads; it is closed at its so-manieth step, and `plant` harms it."""
    numbers = range(len(CASES)) if numbers is None else numbers
    model = StressToy()
    engine = Engine(model, slots=slots, pipelined=pipelined, queue_limit=40)
    moment = threading.Event()
    if closes_at is not None:
        model.moments[closes_at] = moment.set
    mend = plant(engine) if plant is not None else None
    seeds = random.Random(seed)
    callers = [
        Caller(engine, seeds.random(), max(1, streams // CALLERS), expected, planted, numbers)
        for _ in range(CALLERS)
    ]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    if closes_at is not None:
        if closes_at:
            while not moment.wait(0.01) and any(caller.is_alive() for caller in callers):
                pass
        engine.close()
    for caller in callers:
        caller.join(PATIENCE)
        assert not caller.is_alive()
    seconds = time.monotonic() - began
    if mend is not None:
        mend()
    if closes_at is None and planted != FALL:
        later = next(number for number, case in enumerate(CASES) if case.text == "one")
        assert np.array_equal(engine.synthesize(request_of(later, None)).samples, expected[later, False])
        assert engine.load == (0, 0)
    engine.close()
    assert not any(thread.is_alive() for thread in engine._loop._own_threads())
    ended = sum((caller.ended for caller in callers), Counter())
    how = f"{slots} slots, {'two threads' if pipelined else 'one thread'}, seed {seed}, {seconds:.1f} s"
    return Outcome(tuple(wrong for caller in callers for wrong in caller.wrong), ended, how)


def breaking(seed):
    """A plant that breaks the loop itself now and then, at one of its stations, but never twice running. What
    it gives ends that."""

    def plant(engine):
        loop, coin, planned = engine._loop, random.Random(seed), []
        tick, stations = loop._tick, ("_read_inbox", "_drop_closed", "_finish_settled", "_admit", "_step")

        def ticking():
            was_planned = bool(planned)
            planned.clear()
            if not was_planned and coin.random() < 0.008:
                planned.append(coin.choice(stations))
            return tick()

        def station(name):
            usual = getattr(loop, name)

            def passed():
                if name in planned:
                    raise RuntimeError(BREAK)
                return usual()

            return passed

        def mend():
            is_mended = threading.Event()

            def plainly():
                is_mended.set()  # whatever broke before is over: both are in the same thread
                return tick()

            loop._tick = plainly
            planned.clear()
            loop.wake()
            assert is_mended.wait(PATIENCE)

        loop._tick = ticking
        for name in stations:
            setattr(loop, name, station(name))
        return mend

    return plant


def falling(name, after):
    """A plant of which one of the helper threads dies when it posts for the so-manieth time."""

    def plant(engine):
        usual, left = getattr(engine._loop, name), [after]

        def post(*given):
            left[0] -= 1
            if left[0] == 0:
                raise RuntimeError(FALL)
            usual(*given)

        setattr(engine._loop, name, post)

    return plant


def check(found):
    """Nothing was wrong; its endings count."""
    print(f"\n{found.ended.total()} streams, {found.how}: {listed(found.ended)}", end="")
    assert found.wrong == ()
    TOTAL.update(found.ended)


@pytest.fixture(autouse=True)
def quiet():
    """Faults are logged with their tracebacks, by the hundred here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("slots", [1, 4])
def test_every_stream_ends_with_its_own_bytes_or_its_own_error(expected, pipelined, slots):
    found = stress(expected, seed=SEED + slots + 10 * pipelined, pipelined=pipelined, slots=slots)
    check(found)
    assert {"own samples", "own fault", "cancelled", "late", "its notify"} <= found.ended.keys()
    assert "closed" not in found.ended


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("number", range(6))
def test_a_close_at_any_moment_ends_every_stream(expected, pipelined, number):
    seed = SEED + 100 + number
    closes_at = random.Random(seed).randrange(STREAMS * 5) if number else 0
    found = stress(expected, seed=seed, pipelined=pipelined, slots=3, closes_at=closes_at)
    check(found)
    assert found.ended["closed"] or closes_at


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("number", range(2))
def test_a_loop_that_breaks_now_and_then_ends_what_is_open_and_goes_on(expected, pipelined, number):
    seed = SEED + 200 + number
    found = stress(expected, seed=seed, pipelined=pipelined, slots=4, planted=BREAK, plant=breaking(seed))
    check(found)
    assert found.ended["with the engine"]
    assert found.ended["own samples"]


@pytest.mark.parametrize("name", ["_post_prepared", "_post_decoded"])
@pytest.mark.parametrize("number", range(2))
def test_a_helper_thread_that_dies_at_any_moment_ends_every_stream(expected, name, number):
    seed = SEED + 300 + number
    after = random.Random(seed).randrange(1, STREAMS // 2)
    found = stress(expected, seed=seed, pipelined=True, slots=4, planted=FALL, plant=falling(name, after))
    check(found)
    assert found.ended["with the engine"]


def test_a_faulty_batch_costs_its_neighbours_no_byte_however_often(expected):
    model, number = FaultyToy(sharpness=20), 2
    with Engine(model, slots=4) as engine:
        for seed in range(6):
            good = engine.submit(SpeechRequest(CASES[number].text, seed=number), streaming=False)
            bad = [engine.submit(SpeechRequest("stepfault " * 2, seed=seed + n)) for n in range(3)]
            assert np.array_equal(good.get(timeout=PATIENCE).samples, expected[number, False])
            for stream in bad:
                with pytest.raises(GenerationError, match="the toy's step broke"):
                    for _ in stream:
                        pass


# -- what watches over all this is watched itself ------------------------------------------------


def spreading(words, monkeypatch):
    """A plant: an error with these words ends the neighbours too."""

    def plant(engine):
        fail = SpeechStream._fail

        def spread(stream, error):
            fail(stream, error)
            if words in str(error):
                for progress in list(engine._loop._open):
                    if progress.stream is not stream:
                        fail(progress.stream, error)

        monkeypatch.setattr(SpeechStream, "_fail", spread)

    return plant


def mixing(monkeypatch):
    """A plant: who is stepped with a neighbour says what the neighbour says."""

    def plant(engine):
        step = ToyModel.step

        def mixed(model, utterances):
            steps = step(model, utterances)
            if len(steps) > 1 and not steps[1].is_final and not steps[0].is_final:
                steps[0] = Step(steps[1].tokens, False)
            return steps

        monkeypatch.setattr(ToyModel, "step", mixed)

    return plant


def sharing(monkeypatch):
    """A plant: everybody begins in the first row, whoever is in it."""

    def plant(engine):
        start = StressToy.start
        monkeypatch.setattr(StressToy, "start", lambda model, prompt, slots: start(model, prompt, [0]))

    return plant


FAULTS = sorted({case.fault for case in CASES if case.fault is not None})


@pytest.mark.parametrize("words", [*FAULTS, "nobody listens", "was cancelled", "within its"])
def test_an_error_that_spreads_to_neighbours_is_seen(expected, words, monkeypatch):
    guilty = (number for number, case in enumerate(CASES) if case.fault == words)
    plant = spreading(words, monkeypatch)
    found = stress(
        expected, seed=1, slots=4, pipelined=True, streams=60, plant=plant, numbers=(*INNOCENT, *guilty)
    )
    assert any(words in wrong for wrong in found.wrong)


@pytest.mark.parametrize("planted", [mixing, sharing])
def test_a_neighbours_sound_is_seen(expected, planted, monkeypatch):
    found = stress(expected, seed=1, slots=4, pipelined=True, streams=60, plant=planted(monkeypatch))
    assert any("said something else" in wrong for wrong in found.wrong)
