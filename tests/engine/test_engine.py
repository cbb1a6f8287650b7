"""The engine on a toy model and the built-in voice: laws, guards, queues, deadlines, errors."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.errors import (
    BusyError,
    CancelledError,
    DeadlineError,
    GenerationError,
    RequestError,
    UnsupportedError,
    VoiceError,
)
from sonant.families.builtin.model import BuiltinModel
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from sonant.request.voice import Voice
from sonant.voices.design import DESIGNED_SECONDS
from tests.laws import FamilyLaws, run_alone, run_together
from tests.toy import ToyModel, held


class TestToyLaws(FamilyLaws):
    @pytest.fixture
    def model(self):
        return ToyModel()

    @pytest.fixture
    def requests(self):
        texts = ["A first thing to say", "Short", "Something quite a bit longer than the others", "Four"]
        return [SpeechRequest(text, seed=number) for number, text in enumerate(texts)]

    def test_batch_equals_singles_exactly_in_float64(self, requests):
        model = ToyModel(dtype=torch.float64)
        prompts = [model.prepare(request)[0] for request in requests]
        alone = [run_alone(model, prompt) for prompt in prompts]
        for one, other in zip(alone, run_together(model, prompts), strict=True):
            assert torch.equal(one, other)


@pytest.fixture(scope="module")
def builtin():
    return BuiltinModel()


class TestBuiltinLaws(FamilyLaws):
    @pytest.fixture
    def model(self, builtin):
        return builtin

    @pytest.fixture
    def requests(self):
        texts = ["Good morning.", "The weather is fine today, is it not?", "Three sentences. Here. Now."]
        return [SpeechRequest(text, seed=number) for number, text in enumerate(texts)]


@pytest.fixture
def endless():
    return ToyModel(end_bias=float("-inf"))


def test_a_missed_end_token_is_stopped_at_the_ceiling_and_reported(endless):
    with Engine(endless) as engine:
        speech = engine.synthesize(SpeechRequest("hello", seed=1))
    assert [guard.kind for guard in speech.guards] == ["length_ceiling"]
    assert len(speech.samples) == (2 * 5 + 8) * 40


def test_segments_come_in_order_and_name_their_text():
    with Engine(ToyModel()) as engine:
        stream = engine.stream(SpeechRequest("one. two. three", seed=3))
        texts = [chunk.text for chunk in stream if chunk.text is not None]
    assert stream.segments == ("one", " two", " three")
    assert texts == ["one", " two", " three"]


def test_a_pause_tag_adds_its_silence():
    with Engine(ToyModel()) as engine:
        plain = engine.synthesize(SpeechRequest("one", seed=3))
        paused = engine.synthesize(SpeechRequest("one[pause:250ms]", seed=3))
    assert len(paused.samples) - len(plain.samples) == 2000
    assert not paused.samples[len(plain.samples) :].any()


def test_a_slow_reader_pauses_only_itself(endless):
    with Engine(endless, slots=2, chunk_limit=2) as engine:
        slow = engine.stream(SpeechRequest("a" * 200, seed=1))
        fast = engine.stream(SpeechRequest("b" * 30, seed=2))
        assert sum(len(chunk.samples) for chunk in fast) == 68 * 40
        assert not slow.is_finished
        assert sum(len(chunk.samples) for chunk in slow) == 408 * 40


def test_cancel_in_the_middle_frees_the_row_within_one_step(endless):
    with Engine(endless, slots=1, chunk_limit=1000) as engine:
        stream = engine.stream(SpeechRequest("a" * 2_000, seed=1))
        stream.get()
        before = engine.steps
        stream.cancel()
        follower = engine.synthesize(SpeechRequest("b", seed=2))
        assert len(follower.samples)
        assert stream.is_finished
        assert engine.steps - before <= 10 + 3  # the follower's own ten steps, and those under way


def test_a_deadline_ends_a_request_that_waits(endless):
    step = endless.step
    endless.step = lambda utterances: (time.sleep(0.001), step(utterances))[1]  # a thousand take a second
    with Engine(endless, slots=1, chunk_limit=1) as engine:
        stuck = engine.stream(SpeechRequest("a" * 500, seed=1))
        with pytest.raises(DeadlineError, match=r"0\.05"):  # where the machine is slow, before it waits
            engine.stream(SpeechRequest("b", seed=2, deadline=0.05)).get(timeout=60)
        stuck.cancel()


def test_a_full_queue_is_busy_not_stuck(endless):
    go = held(endless)
    with Engine(endless, slots=1, queue_limit=2, chunk_limit=1) as engine:
        streams = [engine.stream(SpeechRequest("a" * 500, seed=1)) for _ in range(2)]
        with pytest.raises(BusyError) as caught:
            engine.stream(SpeechRequest("c", seed=1))
        assert caught.value.retry_after > 0
        for stream in streams:
            stream.cancel()
        go.set()


def test_close_ends_running_requests(endless):
    engine = Engine(endless, chunk_limit=1)
    stream = engine.stream(SpeechRequest("a" * 500, seed=1))
    engine.close()
    with pytest.raises(CancelledError):
        for _ in stream:
            pass
    with pytest.raises(GenerationError, match="closed"):
        engine.stream(SpeechRequest("b"))


def test_a_broken_step_becomes_an_error_of_the_request_and_the_engine_lives_on(caplog):
    model = ToyModel(end_bias=float("-inf"), fail_at=3)
    with Engine(model) as engine:
        with pytest.raises(GenerationError, match="the toy broke"):
            engine.synthesize(SpeechRequest("abc", seed=1))
        model.fail_at = None
        assert len(engine.synthesize(SpeechRequest("abc", seed=1)).samples)


def test_a_lack_of_room_is_the_requests_error_and_the_engine_lives_on(caplog):
    model = ToyModel()
    allocate, asked = model.allocate, []

    def sometimes(slots, positions):
        asked.append(positions)
        if len(asked) in (1, 3):
            model.cache = None
            raise torch.OutOfMemoryError("CUDA out of memory")
        allocate(slots, positions)

    model.allocate = sometimes
    with Engine(model, slots=1) as engine:
        for text in ("Hello.", "x" * 200):  # no rows at first, and then longer ones than there are
            with pytest.raises(GenerationError, match="memory ran out"):
                engine.synthesize(SpeechRequest(text, seed=1))
            assert len(engine.synthesize(SpeechRequest(text, seed=1)).samples)
        assert engine.load == (0, 0)
    assert len(asked) == 4
    assert "making room failed" in caplog.text


def test_pipelined_decoding_gives_the_same_samples():
    request = SpeechRequest("one. two longer. three", seed=5)
    with Engine(ToyModel()) as plain, Engine(ToyModel(), pipelined=True) as pipelined:
        whole, in_pieces = plain.synthesize(request).samples, pipelined.synthesize(request).samples
        # The toy decodes a piece with other matrix sizes than the whole, so the last bit may differ.
        assert np.allclose(in_pieces, whole, atol=1e-6)
        assert np.array_equal(in_pieces, pipelined.synthesize(request).samples)
        streamed = np.concatenate([chunk.samples for chunk in pipelined.stream(request)])
        assert np.allclose(streamed, whole, atol=1e-6)


def test_many_threads_may_submit_at_once():
    results = {}
    with Engine(ToyModel(), slots=3, queue_limit=100) as engine:
        expected = [engine.synthesize(SpeechRequest(f"text {n}", seed=n)).samples for n in range(12)]

        def speak(number):
            results[number] = engine.synthesize(SpeechRequest(f"text {number}", seed=number)).samples

        threads = [threading.Thread(target=speak, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    for number, samples in enumerate(expected):
        assert samples.shape == results[number].shape
        assert np.abs(samples - results[number]).max() < 1e-6


def test_first_audio_comes_before_the_end(endless):
    with Engine(endless, chunk_limit=10_000) as engine:
        stream = engine.stream(SpeechRequest("a" * 400, seed=1))
        first = stream.get(timeout=30)
        assert not first.is_final
        assert len(first.samples) == 40
        for _ in stream:
            pass
    assert 0 < stream.timings["first_audio"] < stream.timings["total"]


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (SpeechRequest(""), RequestError, "empty"),
        (SpeechRequest(" \n"), RequestError, "empty"),
        (SpeechRequest("x" * 100_001), RequestError, "100,001"),
        (SpeechRequest("bad \ud800 half"), RequestError, "surrogate"),
        (SpeechRequest("ab " * 20_000, glossary={"ab": "abcd" * 1000}), RequestError, "glossary"),
        (SpeechRequest("x", voice="bob"), VoiceError, "ann"),
        (SpeechRequest("x", language="klingon"), RequestError, "english"),
        (SpeechRequest("x", speed=2.0, exact=True), UnsupportedError, "speed"),
        (SpeechRequest("x", style=Style(instruction="sad")), UnsupportedError, "instruction"),
        (SpeechRequest("x", sampling=Sampling(top_k=3)), UnsupportedError, "top_k"),
        (SpeechRequest("x", options={"temprature": 1}), UnsupportedError, "temprature"),
        (SpeechRequest("x", text_layout="full"), UnsupportedError, "text_layout"),
        (SpeechRequest("a [gif](/dʒɪf/)"), UnsupportedError, "text"),
    ],
)
def test_a_wrong_request_is_refused_before_any_work(request_, error, words):
    with Engine(ToyModel()) as engine, pytest.raises(error, match=words):
        engine.submit(request_)


@pytest.mark.parametrize(
    ("style", "words"),
    [
        (Style(emotion_strength=0.5), "emotion_strength is 0.5 and no emotion"),
        (Style(emotion_random=True), "emotion_random was given without"),
    ],
)
def test_a_part_of_an_emotion_without_an_emotion_is_refused(style, words):
    model = ToyModel()
    model.spec = replace(model.spec, capabilities=model.spec.capabilities | {"emotion_vector"})
    with Engine(model) as engine:
        with pytest.raises(RequestError, match=words):
            engine.submit(SpeechRequest("x", style=style))
        whole = replace(style, emotion_vector=(0.5,) * 8)
        engine.synthesize(SpeechRequest("x", style=whole, seed=1))


@pytest.mark.parametrize("build", [
    lambda: Sampling(temperature=0.0), lambda: Sampling(top_p=1.5), lambda: Sampling(beams=0),
    lambda: Style(emotion_vector=(1.0,)), lambda: Style(emotion_vector=(2.0,) * 8),
    lambda: Style(emotion_text="sad", emotion_vector=(0.1,) * 8), lambda: Style(emotion_strength=-1),
    lambda: Sampling(greedy="no"), lambda: Sampling(top_k=2.5), lambda: Sampling(temperature="warm"),
    lambda: SpeechRequest("x", speed=9), lambda: SpeechRequest("x", seed=-1),
    lambda: SpeechRequest("x", deadline=0), lambda: Audio(np.zeros((2, 2), np.float32), 8000),
])  # fmt: skip
def test_impossible_values_are_refused_where_they_are_made(build):
    with pytest.raises(RequestError):
        build()


@pytest.mark.slow
def test_a_designed_voice_that_came_to_no_end_is_short_enough_to_clone_and_told(endless, caplog):
    text = "Quite a long text. " * 80
    with Engine(endless) as engine:
        whole = engine.synthesize(SpeechRequest(text, seed=1))
        voice = engine.design(SpeechRequest(text, seed=1))
    assert whole.seconds > voice.clip.seconds == DESIGNED_SECONDS
    assert "without an end" in caplog.text


def test_cloning_is_refused_by_a_model_that_cannot(builtin):
    with Engine(builtin) as engine, pytest.raises(UnsupportedError, match="cannot clone"):
        engine.clone(Audio(np.ones(8000, np.float32), 8000))


def test_an_idle_engine_waits_without_turning(endless):
    with Engine(endless) as engine:
        turns, tick = [], engine._loop._tick
        engine._loop._tick = lambda: (turns.append(1), tick())[1]
        engine.synthesize(SpeechRequest("a", seed=1))
        until, before = time.monotonic() + 60, 0
        while before != len(turns):  # what is left to do is done in its own time, and then there is rest
            assert time.monotonic() < until, "it turns and turns"
            before = len(turns)
            time.sleep(0.2)


def test_builtin_voice_speaks_the_phonemes_it_is_given(builtin):
    def ids(text):
        return builtin.prepare(SpeechRequest(text, seed=0))[0].inputs.ids.tolist()

    assert ids("Say [gif](/dʒˈɪf/) now.") != ids("Say gif now.")
    assert "pronunciation" in builtin.spec.capabilities


def test_a_voice_of_nothing_but_a_name_is_one_of_the_models_own(builtin):
    own = builtin.spec.voices[0]
    with Engine(builtin) as engine:
        assert len(engine.synthesize(SpeechRequest("Hi.", voice=Voice(name=own.upper()), seed=1)).samples)
        with pytest.raises(VoiceError, match="own voices are"):
            engine.submit(SpeechRequest("Hi.", voice=Voice(name="nobody")))


def test_models_that_ignore_threads_share_the_cores_between_stepping_and_decoding(monkeypatch):
    from sonant import native

    limits = []
    monkeypatch.setattr(native, "limit_threads", limits.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    request = SpeechRequest("A longer sentence, so that there are many frames to decode.", seed=3)
    with Engine(ToyModel()) as plain:
        expected = plain.synthesize(request).samples
    assert not limits
    model = ToyModel()
    model.ignores_threads = True
    with Engine(model) as engine:
        assert np.allclose(engine.synthesize(request).samples, expected, atol=1e-6)
    assert limits.count(2)
    assert 4 in limits
    assert set(limits) <= {2, 4}


@pytest.mark.parametrize("ahead", [False, True])
def test_steps_are_recorded_ahead_whenever_there_is_new_room(ahead):
    model = ToyModel()
    model.least_positions = 32
    told = []
    allocate = model.allocate
    model.allocate = lambda slots, positions: (told.append(positions), allocate(slots, positions))
    model.warm_up = lambda: told.append("recorded")
    with Engine(model, slots=2, records_ahead=ahead) as engine:
        engine.synthesize(SpeechRequest("Two.", seed=1))
        engine.synthesize(SpeechRequest("Now a much longer sentence than that.", seed=1))
        engine.synthesize(SpeechRequest("Two.", seed=1))
    assert told == ([32, "recorded", 128, "recorded"] if ahead else [32, 128])
