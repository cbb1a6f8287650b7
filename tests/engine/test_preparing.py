"""Text is prepared while what came before it is spoken, and one bad sentence is left out and told."""

import threading
import time

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.engine.model import Prompt, attempt
from sonant.engine.preparing import Deadline, Source, first_items
from sonant.errors import CancelledError, DeadlineError, GenerationError, RequestError
from sonant.families.builtin.model import BuiltinModel
from sonant.request.speech import SpeechRequest
from tests.engine.faulty import FaultyToy, LazyToy
from tests.engine.test_faults import PATIENCE, read

LONG = ". ".join(f"line {number}" for number in range(40))


def say(text, seed=1, **given):
    return SpeechRequest(text, seed=seed, **given)


def test_only_the_first_sentence_is_prepared_before_it_is_spoken():
    model = LazyToy()
    with Engine(model, chunk_limit=1) as engine:
        stream = engine.submit(say(f"one. hold two. {LONG}"))
        assert len(model.prepared) <= 2
        assert len(stream.get(timeout=PATIENCE).samples)
        model.gate.set()
        stream.cancel()
    assert len(model.prepared) <= 8


def test_a_paused_reader_pauses_the_preparation():
    model = LazyToy()
    with Engine(model, chunk_limit=1) as engine:
        stream = engine.submit(say(LONG))
        stream.get(timeout=PATIENCE)
        other = engine.submit(say(LONG, 2), streaming=False)
        read(other)
        assert len(model.prepared) <= 40 + 8
        assert len(other.segments) == 40


def test_lazily_or_at_once_the_bytes_segments_and_pauses_are_the_same():
    text = "one. two [pause:100ms] three. four. [pause:50ms] five"
    found = []
    for model in (FaultyToy(), LazyToy()):
        with Engine(model, slots=2) as engine:
            stream = engine.submit(say(text))
            found.append((read(stream), stream.segments, list(stream.guards)))
            assert engine.segments(say(text)) == stream.segments
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == ("one", " two ", " three", " four", " five")


@pytest.mark.parametrize("end", ["cancel", "deadline", "close"])
def test_cancel_deadline_and_close_are_looked_at_while_text_is_prepared(end):
    model = LazyToy()
    engine = Engine(model)
    closing = threading.Thread(target=engine.close)  # it waits for what is being prepared

    def speak():
        stream = engine.submit(say("one. hold", deadline=0.2 if end == "deadline" else None))
        if end != "deadline":  # which may pass sooner, on a slow machine
            assert model.holds.wait(PATIENCE)
        if end == "cancel":
            stream.cancel()
        if end == "close":
            closing.start()
        read(stream)

    with pytest.raises(DeadlineError if end == "deadline" else CancelledError):
        speak()
    model.gate.set()
    engine.close()
    if end == "close":
        closing.join(PATIENCE)


def test_a_deadline_is_looked_at_before_the_first_sentence_and_by_segments():
    model = LazyToy()
    whole = model.each_prompt

    def slowly(request):
        for _ in range(1000):
            time.sleep(0.001)
            yield None
        yield from whole(request)

    model.each_prompt = slowly
    with Engine(model) as engine:
        for ask in (engine.submit, engine.segments):
            with pytest.raises(DeadlineError):
                ask(say("one. two", deadline=0.05))
    assert not model.prepared


@pytest.mark.parametrize("word", ["unreadable", "explode"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sentence_that_cannot_be_spoken_is_left_out_and_told(word, place, caplog):
    texts = ["one", "two"]
    texts.insert(place, word)
    # A front end that breaks ends its part of the text: what stands between two pause tags.
    with Engine(LazyToy()) as engine:
        stream = engine.submit(say("[pause:1ms]".join(texts)))
        samples = read(stream)
        assert len(samples)
        (guard,) = [guard for guard in stream.guards if guard.kind == "unspeakable"]
        assert word in guard.message
        assert guard.segment == place
        assert stream.segments == ("one", "two")


def test_a_text_of_which_nothing_can_be_spoken_is_refused_at_once(caplog):
    with Engine(LazyToy()) as engine:
        with pytest.raises(RequestError, match="no such letters"):
            engine.submit(say("unreadable"))
        with pytest.raises(RequestError, match=r"was left out.*and 2 more"):
            engine.submit(say("unreadable. unreadable. unreadable"))
        assert engine.load == (0, 0)


def interrupted():
    """Ctrl-C falls into an extension that is being loaded: pybind11 makes an ImportError of it."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def misread():
    """And who loads it takes that for a package that is missing."""
    try:
        interrupted()
    except ImportError:
        raise RequestError("this language needs a package; install the extra") from None


@pytest.mark.parametrize("fails", [interrupted, misread])
def test_ctrl_c_in_a_preparation_is_no_fault_of_the_text(fails):
    model = FaultyToy()
    model.prepare = lambda request: fails()
    with Engine(model) as engine, pytest.raises(KeyboardInterrupt):
        engine.submit(say("one"))
    with pytest.raises(KeyboardInterrupt):
        attempt("one", fails)


def test_what_cannot_be_said_after_ctrl_c_is_no_further_ctrl_c():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert "division" in attempt("farewell", lambda: 1 / 0).message


def test_a_later_part_that_fails_ends_the_request_after_what_came_before(caplog):
    model = LazyToy()
    whole = model.each_prompt

    def failing(request):
        yield from whole(request)
        raise GenerationError("the model lost its memory")

    with Engine(model) as engine:
        expected = engine.synthesize(say("one. two")).samples
        model.each_prompt = failing
        stream = engine.submit(say("one. two"))
        heard = []
        with pytest.raises(GenerationError, match="lost its memory"):
            heard += [chunk.samples for chunk in iter(lambda: stream.get(timeout=PATIENCE), None)]
        assert engine.load == (0, 0)
    assert len(expected)


@pytest.mark.parametrize("text", [".", "...", "— …", "[pause:100ms]", "[pause:1s]", "😀"])
def test_a_text_without_a_letter_is_a_short_silence_and_told(text):
    with Engine(FaultyToy()) as engine:
        speech = engine.synthesize(say(text))
        assert engine.segments(say(text)) == ()
        assert engine.load == (0, 0)
    assert not speech.samples.any()
    assert speech.seconds == (1.0 if "1s" in text else 0.2)
    assert [guard.kind for guard in speech.guards] == ["silence"]


def test_a_pause_before_the_first_word_is_spoken():
    with Engine(FaultyToy()) as engine:
        plain = engine.synthesize(say("one. two")).samples
        paused = engine.synthesize(say("[pause:100ms]... [pause:25ms]one. two")).samples
    assert np.array_equal(paused, np.concatenate([np.zeros(1000, np.float32), plain]))


def test_a_text_that_does_not_fit_the_memory_limit_is_refused_or_ends_the_request():
    with Engine(FaultyToy(), cache_positions=100) as engine:
        with pytest.raises(RequestError, match="memory limit"):
            engine.submit(say("a" * 60))
        stream = engine.submit(say("short. " + "a" * 60))
        with pytest.raises(RequestError, match="memory limit"):
            read(stream)


def test_the_built_in_voice_prepares_sentence_by_sentence():
    model = BuiltinModel()
    text = "This is a first sentence. " * 3 + "And this is another one. " * 400
    said = []
    voice = model._voice
    model.__dict__["_voice"] = type(
        "Counting",
        (),
        {
            "split_sentences": staticmethod(voice.split_sentences),
            "g2p": staticmethod(lambda sentence: (said.append(sentence), voice.g2p(sentence))[1]),
            "ids": staticmethod(voice.ids),
        },
    )()
    source = Source(model, say(text), most=None)
    items = first_items(source, Deadline(say(text), time.monotonic()))
    assert sum(isinstance(item, Prompt) for item in items) == 1
    assert len(said) == 1
