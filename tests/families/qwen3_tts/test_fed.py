"""Text that arrives while it is spoken: the codes are those of the whole text, however it comes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.families.qwen3_tts.fed import complete
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, TextFeed

TEXT = "The harbour was quiet; it's 7 o'clock, and nobody spoke. 你好，世界！ Then a bell."
SETTINGS = Sampling(max_frames=60)


def recorded(model):
    """The frames that the model's steps give, by utterance."""
    frames = {}
    step = model.step

    def watched(utterances):
        steps = step(utterances)
        for utterance, made in zip(utterances, steps, strict=True):
            frames.setdefault(id(utterance), []).extend(made.tokens.tolist())
        return steps

    return watched, frames


def request_of(model, voice=None, **fields):
    own = model.spec.voices[0] if model.spec.voices else None
    style = {}
    if model.spec.needs_instruction:
        from sonant.request.speech import Style

        style = {"style": Style(instruction="a calm voice")}
    # The text as it is: a feed is not read out.
    return SpeechRequest(
        "", voice=voice or own, seed=3, sampling=SETTINGS, normalize="original", **style, **fields
    )


def clip():
    rng = np.random.default_rng(0)
    return Audio((0.1 * rng.standard_normal(24_000 * 2)).astype(np.float32), 24_000)


def frames_of(engine, monkeypatch, request, pieces=None):
    """The codes of one request; of a feed when `pieces` are given, put one by one once asked for."""
    watched, frames = recorded(engine.model)
    monkeypatch.setattr(engine.model, "step", watched)
    if pieces is None:
        engine.synthesize(replace(request, text=TEXT, text_layout="progressive"))
    else:
        feed = TextFeed()
        stream = engine.submit(replace(request, text_feed=feed), streaming=True)
        for piece in pieces:
            threading.Event().wait(0.01)
            feed.put(piece)
        feed.close()
        for _ in stream:
            pass
    monkeypatch.undo()
    [made] = frames.values()
    return made


def cut(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("custom_voice_1p7b", ""),
        ("base_1p7b", "vector"),
        pytest.param("base_1p7b", "context", marks=pytest.mark.slow),
        pytest.param("voice_design_1p7b", "", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_codes_are_those_of_the_whole_text(loaded, monkeypatch, name, way):
    model = loaded(name)
    with Engine(model, slots=2) as engine:
        fields = {}
        if way:
            transcript = "A few words." if way == "context" else None
            fields["voice"] = engine.clone(clip(), transcript=transcript)
        for seed in range(12):  # random weights end when they like: one that goes on beyond the text
            request = replace(request_of(model, **fields), seed=seed)
            whole = frames_of(engine, monkeypatch, request)
            if len(whole) > 15:
                break
        assert len(whole) > 15
        for size in (1, 7):
            assert frames_of(engine, monkeypatch, request, cut(f"  {TEXT} ", size)) == whole


def test_speech_waits_for_text_and_neighbours_do_not(loaded):
    model = loaded("custom_voice_1p7b")
    with Engine(model, slots=2) as engine:
        feed = TextFeed()
        request = replace(request_of(model), text_feed=feed)
        stream = engine.submit(request)
        feed.put("The harbour was ")
        first = stream.get(timeout=30)
        assert len(first.samples)
        neighbour = engine.synthesize(replace(request_of(model), text="Hello there."))
        assert len(neighbour.samples)
        assert not stream.is_finished
        feed.put("quiet.")
        feed.close()
        assert sum(len(chunk.samples) for chunk in stream) > 0
        assert engine.load == (0, 0)


def test_a_cancel_is_obeyed_within_one_frame(loaded, monkeypatch):
    model = loaded("custom_voice_1p7b")
    known, begun_after = threading.Event(), []
    step = model.step

    def slow(utterances):  # as slow as a large model
        begun_after.append(known.is_set())
        threading.Event().wait(0.01)
        return step(utterances)

    with Engine(model, slots=1) as engine:
        monkeypatch.setattr(model, "step", slow)
        feed = TextFeed()
        stream = engine.submit(replace(request_of(model), text_feed=feed))
        feed.put(TEXT)
        stream.get(timeout=30)
        assert not stream.is_finished
        stream.cancel()
        known.set()
        while engine.load != (0, 0):
            threading.Event().wait(0.005)
    assert begun_after.count(True) <= 1
    assert len(begun_after) < SETTINGS.max_frames


def test_a_feed_is_cancelled_while_it_waits_and_an_empty_one_ends(loaded):
    model = loaded("custom_voice_1p7b")
    with Engine(model, slots=1) as engine:
        feed = TextFeed()
        stream = engine.submit(replace(request_of(model), text_feed=feed))
        feed.put("The harbour was ")
        stream.get(timeout=30)
        stream.cancel()
        empty = TextFeed()
        empty.put("   ")
        empty.close()
        speech = engine.synthesize(replace(request_of(model), text_feed=empty))
        assert len(speech.samples) == 0
        assert engine.load == (0, 0)


def test_the_full_layout_has_no_text_to_wait_for(loaded):
    model = loaded("custom_voice_1p7b")
    with Engine(model) as engine, pytest.raises(RequestError, match="full layout"):
        engine.submit(request_of(model, text_feed=TextFeed(), text_layout="full"))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("abé 'sS,.!\n\t12你好，。́-"), max_size=40), st.data())
def test_no_later_letter_changes_the_tokens_of_what_is_complete(loaded, text, data):
    tokenizer = loaded("base_1p7b").tokenizer
    end = complete(text)
    more = data.draw(st.text(st.sampled_from("abé 's,.\n1你，́"), max_size=10))
    whole = tokenizer.encode(text + more, markers=False)
    parts = [
        *tokenizer.encode(text[:end], markers=False),
        *tokenizer.encode(text[end:] + more, markers=False),
    ]
    assert parts == whole
