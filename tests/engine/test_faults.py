"""What goes wrong belongs to the request that caused it; nobody waits for ever; a closed engine is silent."""

import contextlib
import threading
import time
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.errors import CancelledError, GenerationError, RequestError
from sonant.request.checks import check_fed_text
from sonant.request.speech import SpeechRequest, TextFeed
from tests.engine.faulty import PATIENCE, FaultyToy, GrowingToy, read
from tests.toy import held

ENDLESS = float("-inf")


def engine_threads():
    """Threads that an engine made, of this test or another; other programs' are not counted."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("sonant-")}


def say(text, seed=1, **given):
    return SpeechRequest(text, seed=seed, **given)


def alone(text, seed=1, **given):
    with Engine(FaultyToy(end_bias=ENDLESS), slots=1) as engine:
        return read(engine.submit(say(text, seed), **given))


@pytest.mark.parametrize("pipelined", [False, True])
@pytest.mark.parametrize("moves_first", [False, True])
def test_a_step_that_fails_ends_the_guilty_and_its_neighbours_say_the_same(pipelined, moves_first, caplog):
    texts = ["the first neighbour", "a stepfault in here", "and the second one", "stepfault again"]
    expected = [alone(text, number) for number, text in enumerate(texts) if "fault" not in text]
    model = FaultyToy(end_bias=ENDLESS, moves_first=moves_first)
    go = held(model)
    with Engine(model, slots=4, pipelined=pipelined, chunk_limit=1000) as engine:
        streams = [engine.submit(say(text, number)) for number, text in enumerate(texts)]
        go.set()  # together, however slowly they were submitted
        found = []
        for text, stream in zip(texts, streams, strict=True):
            if "fault" in text:
                with pytest.raises(GenerationError, match="the toy's step broke"):
                    read(stream)
            else:
                found.append(read(stream))
        assert len(engine.synthesize(say("later")).samples)
        assert engine.load == (0, 0)
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)
    assert max(len(batch) for batch in model.batches) > 1


@pytest.mark.parametrize("kind", ["startfault", "decodefault", "nan", "catfault"])
@pytest.mark.parametrize("pipelined", [False, True])
def test_whatever_else_fails_is_the_error_of_its_request_alone(kind, pipelined, caplog):
    expected = alone("a good neighbour", 5)
    with Engine(FaultyToy(end_bias=ENDLESS), slots=3, pipelined=pipelined, chunk_limit=1000) as engine:
        good = engine.submit(say("a good neighbour", 5))
        bad = engine.submit(say(f"here is a {kind}"), streaming=False)
        with pytest.raises(GenerationError):
            read(bad)
        assert np.array_equal(read(good), expected)
        assert engine.load == (0, 0)


def test_a_step_with_too_few_results_is_a_failed_step(caplog):
    model = FaultyToy(end_bias=ENDLESS)
    whole = model.step
    model.step = lambda utterances: whole(utterances)[: 1 if len(utterances) > 1 else None]
    expected = [alone(text, 3) for text in ("one of two", "two of two")]
    with Engine(model, slots=2, chunk_limit=1000) as engine:
        streams = [engine.submit(say(text, 3)) for text in ("one of two", "two of two")]
        for stream, samples in zip(streams, expected, strict=True):
            assert np.array_equal(read(stream), samples)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_notify_that_raises_ends_its_own_stream_and_nothing_else(pipelined, caplog):
    def notify():
        raise RuntimeError("Event loop is closed")

    expected = alone("a good neighbour", 5)
    with Engine(FaultyToy(end_bias=ENDLESS), slots=2, pipelined=pipelined, chunk_limit=1000) as engine:
        bad = engine.submit(say("nobody hears this"), notify=notify)
        good = engine.submit(say("a good neighbour", 5))
        with pytest.raises(GenerationError, match="Event loop is closed"):
            read(bad)
        assert np.array_equal(read(good), expected)
        assert len(engine.synthesize(say("and later")).samples)
        assert engine.load == (0, 0)
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_request_cancelled_while_its_end_is_decoded_leaves_the_engine_speaking(pipelined):
    model = FaultyToy(end_bias=ENDLESS)
    entered, gate = threading.Event(), threading.Event()
    make = model.decoder

    def decoder(prompt, *, streaming):
        made = make(prompt, streaming=streaming)
        if "slow" in prompt.text:

            def finish():
                entered.set()
                assert gate.wait(PATIENCE)
                return torch.zeros(3)

            made.finish = finish
        return made

    model.decoder = decoder
    with Engine(model, slots=1, pipelined=pipelined, chunk_limit=1000) as engine:
        stream = engine.submit(say("slow"))
        assert entered.wait(PATIENCE)
        stream.cancel()
        other = engine.submit(say("next"))
        gate.set()
        assert len(read(other))
        with contextlib.suppress(CancelledError):  # which of the two was first is a matter of luck
            read(stream)
        assert engine.load == (0, 0)


def watching(kind, threads):
    """A list or a deque that notes the name of every thread that looks into it or changes it."""

    def noting(method):
        def noted(self, *given):
            threads.add(threading.current_thread().name)
            return method(self, *given)

        return noted

    names = ("append", "remove", "clear", "pop", "popleft", "__contains__", "__iter__", "__getitem__")
    return type(
        "Watched", (kind,), {name: noting(getattr(kind, name)) for name in names if hasattr(kind, name)}
    )


def test_only_the_stepping_thread_touches_what_is_running(caplog):
    """The decoding thread once found its segment in a list, the stepping thread emptied the list, and the
    removal that followed ended the decoding thread: ever after, nothing was heard."""
    model, threads = FaultyToy(end_bias=ENDLESS), set()
    with Engine(model, slots=3, pipelined=True, chunk_limit=1000) as engine:
        enter = engine._loop.enter

        def entering(progress):
            progress.running = watching(list, threads)(progress.running)
            progress.waiting = watching(deque, threads)(progress.waiting)
            enter(progress)

        engine._loop.enter = entering
        streams = [engine.submit(say(f"one. two. three {number}", number)) for number in range(6)]
        streams[0].get(timeout=PATIENCE)
        streams[0].cancel()
        failing = engine.submit(say("first. decodefault"))
        for stream in streams[1:]:
            assert len(read(stream))
        with pytest.raises(GenerationError):
            read(failing)
        assert len(read(engine.submit(say("and later"))))
    assert threads == {"sonant-engine"}


def test_what_escapes_the_loop_ends_every_request_and_the_engine_goes_on(caplog):
    model, breaks = FaultyToy(end_bias=ENDLESS), threading.Event()
    step = model.step

    def to_the_break(utterances):
        assert utterances[0].steps < 20 or breaks.wait(PATIENCE)
        return step(utterances)

    model.step = to_the_break
    go = held(model)
    with Engine(model, slots=2, chunk_limit=2) as engine:
        streams = [engine.submit(say("a" * 99, number)) for number in range(3)]
        go.set()
        for stream in streams[:2]:
            stream.get(timeout=PATIENCE)
        drop = engine._loop._drop_closed

        def break_once():
            engine._loop._drop_closed = drop  # a loop that breaks again and again is the next test's
            return 1 / 0

        engine._loop._drop_closed = break_once
        breaks.set()
        for stream in streams:
            with pytest.raises(GenerationError, match="ZeroDivisionError"):
                read(stream)
        assert engine.load == (0, 0)
        assert len(engine.synthesize(say("again")).samples)
    assert "stumbled" in caplog.text


def test_what_was_under_way_when_the_loop_broke_gives_no_row_back_later(caplog):
    """A segment's sound that was found silent ends its steps; that came from before the break, when its row
    was another's already, and a third began in the same row."""
    with Engine(FaultyToy(end_bias=ENDLESS, sharpness=20), slots=1) as engine:
        expected = read(engine.submit(say("a later one", 2)))
    model = FaultyToy(end_bias=ENDLESS, sharpness=20)
    begun, late, go, make, step = *(threading.Event() for _ in range(3)), model.decoder, model.step

    def decoder(prompt, *, streaming):
        made = make(prompt, streaming=streaming)
        if "mute" in prompt.text:
            made.push = lambda tokens: torch.zeros(8_000 * len(tokens))
        return made

    def to_the_third(utterances):
        if utterances[0].prompt.text == "a later one" and utterances[0].steps == 3:
            begun.set()
            assert go.wait(PATIENCE)
        return step(utterances)

    model.decoder, model.step = decoder, to_the_third
    with Engine(model, slots=2, pipelined=True, chunk_limit=1000) as engine:
        loop = engine._loop
        post, read_inbox = loop._post_decoded, loop._read_inbox

        def post_late(progress, segment, piece):
            if piece.sound.is_stopped and not late.is_set():

                def break_once():
                    loop._read_inbox = read_inbox
                    return 1 / 0

                loop._read_inbox = break_once
                loop.wake()
                assert begun.wait(PATIENCE)
                post(progress, segment, piece)
                late.set()
            else:
                post(progress, segment, piece)

        loop._post_decoded = post_late
        with pytest.raises(GenerationError, match="ZeroDivisionError"):
            read(engine.submit(say("mute " * 20)))
        later = engine.submit(say("a later one", 2))
        assert late.wait(PATIENCE)
        third = engine.submit(say("a third", 3))
        go.set()
        assert np.array_equal(read(later), expected)
        assert len(read(third))
        assert engine.load == (0, 0)


def test_an_engine_whose_loop_keeps_failing_refuses_at_once(caplog, monkeypatch):
    with Engine(FaultyToy(), slots=2) as engine:
        monkeypatch.setattr(engine._loop, "_admit", lambda: 1 / 0)
        for _ in range(3):
            with pytest.raises(GenerationError, match="ZeroDivisionError"):
                engine.synthesize(say("x"))
        with pytest.raises(GenerationError, match="broken"):
            engine.submit(say("x"))


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_submit_that_races_with_close_is_refused_and_starts_nothing(pipelined):
    model = FaultyToy()
    prepare, entered, gate = model.prepare, threading.Event(), threading.Event()

    def slowly(request):
        entered.set()
        assert gate.wait(PATIENCE)
        return prepare(request)

    model.prepare = slowly
    engine = Engine(model, pipelined=pipelined)
    errors, before = [], engine_threads()

    def submit():
        try:
            engine.submit(say("too late"))
        except GenerationError as error:
            errors.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    assert entered.wait(PATIENCE)
    engine.close()
    gate.set()
    thread.join(PATIENCE)
    assert len(errors) == 1
    assert "closed" in errors[0]
    assert engine_threads() <= before
    assert not model.batches
    engine.close()


def test_close_cancels_what_waits_and_may_be_called_from_a_notify():
    engine = Engine(FaultyToy(end_bias=ENDLESS), slots=1, chunk_limit=1)
    submitted, closed = threading.Event(), threading.Event()

    def notify():
        assert submitted.wait(PATIENCE)
        if not closed.is_set():
            closed.set()
            engine.close()

    first = engine.submit(say("a" * 100), notify=notify)
    others = [engine.submit(say("b" * 50, number)) for number in range(3)]
    submitted.set()
    assert closed.wait(PATIENCE)
    for stream in (first, *others):
        with pytest.raises(CancelledError):
            read(stream)
    engine.close()
    with pytest.raises(GenerationError, match="closed"):
        engine.submit(say("x"))


@pytest.mark.parametrize("model", [FaultyToy, GrowingToy])
@pytest.mark.parametrize("slots", [1, 4])
def test_a_reader_that_pauses_keeps_neither_a_longer_nor_a_shorter_text_waiting(model, slots):
    model = model(end_bias=ENDLESS)
    model.least_positions = 200
    slow_text, long_text = "s" * 50, "l" * 100
    with Engine(model, slots=slots, chunk_limit=1) as engine:
        slow = engine.submit(say(slow_text))
        first = slow.get(timeout=PATIENCE)
        longer = engine.submit(say(long_text, 2))
        shorter = engine.submit(say("x", 3))
        short_samples, long_samples = read(shorter), read(longer)
        rest = read(slow)
    assert np.array_equal(short_samples, alone("x", 3))
    assert np.array_equal(long_samples, alone(long_text, 2))
    assert np.array_equal(np.concatenate([first.samples, rest]), alone(slow_text))
    if isinstance(model, GrowingToy) and slots == 4:
        assert model.grown == [400]


def test_a_text_that_does_not_fit_is_overtaken_but_not_for_ever():
    """Short texts go by while rows are let go for a longer one; its turn comes all the same."""
    model = FaultyToy(end_bias=ENDLESS)
    model.least_positions = 64
    begun = []
    start = model.start
    model.start = lambda prompt, slots: (begun.append(prompt.text), start(prompt, slots))[1]
    with Engine(model, slots=2, chunk_limit=10_000) as engine:
        streams = [engine.submit(say("first" * 2))]
        streams[0].get(timeout=PATIENCE)
        streams.append(engine.submit(say("long" * 20)))
        streams += [engine.submit(say(f"short {n:02}"), client="crowd") for n in range(12)]
        for stream in streams:
            read(stream)
    place = begun.index("long" * 20)
    assert 1 <= place <= 4, begun


@pytest.mark.parametrize("name", ["slots", "queue_limit", "chunk_limit", "cache_positions"])
@pytest.mark.parametrize("value", [0, -1, True, 2.5])
def test_limits_that_nobody_could_live_with_are_refused(name, value):
    with pytest.raises(RequestError, match=f"{name} is {value}"):
        Engine(FaultyToy(), **{name: value})
    if name == "chunk_limit":
        with Engine(FaultyToy()) as engine, pytest.raises(RequestError, match="chunk_limit"):
            engine.submit(say("x"), chunk_limit=value)


class TestFeeds:
    def test_a_source_that_breaks_off_is_told(self):
        def words():
            yield "The lake is"
            raise ConnectionError("the language model went away")

        feed = TextFeed.reading(words())
        deadline = time.monotonic() + PATIENCE
        while feed.failure is None and time.monotonic() < deadline:
            feed.wait(0.1)
        assert isinstance(feed.failure, GenerationError)
        assert "the language model went away" in str(feed.failure)
        with pytest.raises(GenerationError, match="went away"):
            feed.put("more")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("half \ud800 a character", "half of a surrogate pair"),
            ("\udc00", "half of a surrogate pair"),
            ("x" * 100_001, "100,001 characters"),
            ("a [gif](/dʒɪf/)", "takes no phonemes"),
            (7, "a int; expected a string"),
            (b"bytes", "a bytes; expected a string"),
        ],
    )
    @pytest.mark.parametrize("is_early", [False, True])
    def test_what_given_text_is_refused_for_is_refused_where_it_is_put(self, text, words, is_early):
        feed, check = TextFeed(), partial(check_fed_text, spec=FaultyToy().spec)
        if is_early and isinstance(text, str):
            feed.put(text)
            with pytest.raises(RequestError, match=words):
                feed.watch(check, lambda: None)
            return
        feed.watch(check, lambda: None)
        with pytest.raises(RequestError, match=words):
            feed.put(text)
        assert isinstance(feed.failure, RequestError)
        assert feed.take() == ("", False)
        assert feed.is_ready

    def test_a_text_that_ends_in_half_a_character_is_no_text(self):
        feed = TextFeed()
        feed.watch(partial(check_fed_text, spec=FaultyToy().spec), lambda: None)
        feed.put("cut \ud83d")
        assert feed.failure is None
        feed.close()
        assert "surrogate" in str(feed.failure)

    def test_a_character_cut_in_two_pieces_is_whole_again(self):
        feed = TextFeed()
        for piece in ("smile \ud83d", "\ude00 and", " more"):
            feed.put(piece)
        feed.close()
        assert feed.take() == ("smile \U0001f600 and more", True)

    def test_a_feed_gives_everything_again_after_rewinding(self):
        feed = TextFeed()
        feed.put("one ")
        assert feed.take() == ("one ", False)
        feed.put("two")
        feed.close()
        assert feed.take() == ("two", True)
        feed.rewind()
        assert feed.take() == ("one two", True)
