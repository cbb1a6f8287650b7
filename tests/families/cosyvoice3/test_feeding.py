"""Text that arrives while it is spoken: the pattern the model sees, whatever the timing."""

import threading
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError, UnsupportedError
from sonant.families.builtin.model import BuiltinModel
from sonant.families.cosyvoice3.speaking import TokenState, word_end
from sonant.request.speech import Sampling, SpeechRequest, TextFeed
from tests.toy import fed

TEXT = "The lake is quiet today, and a small boat crosses it slowly under a pale morning sun."


def request(feed, voice, **fields):
    return SpeechRequest("", voice=voice, seed=9, text_feed=feed, sampling=Sampling(max_frames=200), **fields)


def watch(model, feed, voice, monkeypatch, after_each_step=lambda number: None):
    """Ids the model chose, spoken tokens, and what was fed in: ("text", ids), ("speech", ids) in order."""
    (prompt,) = model.prepare(request(feed, voice))
    model.allocate(1, prompt.positions)
    utterance = model.start(prompt, [0])
    seen = [("speech", [model.config.language.start]), ("text", prompt.inputs.prompt_text.tolist())]
    for name in ("text", "speech"):
        table = getattr(model.language, f"{name}_embedding")
        forward = type(table).forward

        def look(ids, name=name, table=table, forward=forward):
            seen.append((name, ids.flatten().tolist()))
            return forward(table, ids)

        monkeypatch.setattr(table, "forward", look)
    spoken = []
    for number in range(600):
        (step,) = model.step([utterance])
        spoken += step.tokens[:, 0].tolist()
        if step.is_final:
            return utterance.state.history, spoken, seen
        after_each_step(number)
    raise AssertionError("the utterance did not end")


def test_five_text_tokens_alternate_with_fifteen_speech_tokens(shared_model, untold, monkeypatch):
    history, spoken, seen = watch(shared_model, fed(TEXT), untold, monkeypatch)
    config = shared_model.config.language
    text = [ids for name, ids in seen[2:] if name == "text"]
    expected = shared_model.tokenizer.encode(TEXT)
    assert list(chain(*text)) == expected
    assert all(len(ids) == 5 for ids in text[:-1])
    fills = [index for index, token in enumerate(history) if token == config.fill]
    assert fills[0] <= 15
    assert all(after - before <= 16 for before, after in pairwise(fills))
    assert ("speech", [config.task]) in seen
    assert ("speech", [config.fill]) not in seen  # a wish for text is never fed back
    assert 0 < len(spoken) <= 200


def test_prompt_speech_is_paired_with_the_transcript_first(shared_model, told, monkeypatch):
    _, _, seen = watch(shared_model, fed(TEXT), told, monkeypatch)
    prompt = told.tensors["tokens"].tolist()
    known = shared_model.prepare(request(fed(), told))[0].inputs.prompt_text.tolist()
    end = known.index(shared_model.tokenizer.id("<|endofprompt|>")) + 1
    wanted = known[end:] + shared_model.tokenizer.encode(TEXT)
    turns = [ids for name, ids in seen if name == "text"][-len(prompt) // 15 :]
    assert all(len(ids) <= 5 for ids in turns)
    assert (
        list(chain.from_iterable(ids for name, ids in seen[2:] if name == "speech" and len(ids) == 15))
        == prompt
    )
    assert (
        list(chain.from_iterable(ids for name, ids in seen[2:] if name == "text"))[-len(wanted) :] == wanted
    )


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_timing_and_cuts_of_the_text_change_nothing(shared_model, untold, monkeypatch, cut):
    with monkeypatch.context() as patch:
        at_once = watch(shared_model, fed(TEXT), untold, patch)
    pieces = [TEXT[start : start + cut] for start in range(0, len(TEXT), cut)]
    feed = TextFeed()

    def later(number):
        if pieces:
            feed.put(pieces.pop(0))
        else:
            feed.close()

    with monkeypatch.context() as patch:
        slowly = watch(shared_model, feed, untold, patch, later)
    assert slowly[0] == at_once[0]
    assert slowly[1] == at_once[1]


def test_short_text_ends_in_the_usual_layout(shared_model, told, monkeypatch):
    """When the text never reaches the prompt's speech, that follows the task id as without a feed."""
    _, _, seen = watch(shared_model, fed("Hi."), told, monkeypatch)
    task = shared_model.config.language.task
    last = next(ids for name, ids in seen if name == "speech" and ids[0] == task)
    fed_before = list(
        chain.from_iterable(ids for name, ids in seen[2:] if name == "speech" and len(ids) == 15)
    )
    assert fed_before + last[1:] == told.tensors["tokens"].tolist()


def test_an_empty_feed_says_nothing_and_a_waiting_one_does_not_block_others(
    shared_model, untold, monkeypatch
):
    assert watch(shared_model, fed(), untold, monkeypatch)[1] == []
    feed = fed("Hello", close=False)
    waiting = shared_model.prepare(request(feed, untold))[0]
    talking = shared_model.prepare(SpeechRequest("Good morning.", voice=untold, seed=1))[0]
    shared_model.allocate(2, max(waiting.positions, talking.positions))
    one, other = shared_model.start(waiting, [0]), shared_model.start(talking, [1])
    steps = shared_model.step([one, other])
    assert not len(steps[0].tokens)
    assert not steps[0].is_final
    assert len(other.state.history) == 1


def test_the_engine_speaks_an_iterator_of_text(shared_model, told):
    gate = threading.Event()

    def words():
        yield "The lake is quiet"
        gate.wait(5)
        yield " today, and a small boat crosses it."

    with Engine(shared_model, slots=2) as engine:
        stream = engine.stream(request(TextFeed.reading(words()), told))
        other = engine.synthesize(SpeechRequest("Good morning.", voice=told, seed=2))
        gate.set()
        samples = np.concatenate([chunk.samples for chunk in stream])
    assert len(other.samples)
    assert len(samples)


def test_feeds_are_refused_where_they_mean_nothing(shared_model, told):
    with Engine(shared_model) as engine, pytest.raises(RequestError, match="together"):
        engine.submit(replace(request(fed("a"), told), text="And this."))
    with Engine(BuiltinModel()) as engine, pytest.raises(UnsupportedError, match="text_feed"):
        engine.submit(SpeechRequest("", text_feed=fed("a")))
    feed = fed("a")
    with pytest.raises(RequestError, match="closed"):
        feed.put("b")


def test_a_feed_that_outgrows_its_rows_ends_at_the_ceiling(shared_model, untold):
    (prompt,) = shared_model.prepare(request(fed("word " * 3000), untold))
    shared_model.allocate(1, prompt.positions)
    utterance = shared_model.start(prompt, [0])
    for _ in range(900):
        (step,) = shared_model.step([utterance])
        if step.is_final:
            break
    assert step.at_ceiling


def test_words_are_cut_only_where_their_tokens_cannot_change(shared_model):
    encode = shared_model.tokenizer.encode
    text = "Don't stop, it's 10:30 - go on... 你好，朋友。 x\u0301 \n end"
    for index in range(1, len(text)):
        end = word_end(text[:index])
        assert encode(text[:end]) + encode(text[end:]) == encode(text)
    assert word_end("unfinish") == 0
    assert word_end("a" * 100) == 100


def test_state_of_a_feed_belongs_to_the_utterance(shared_model, untold):
    (prompt,) = shared_model.prepare(request(fed(TEXT), untold))
    shared_model.allocate(1, prompt.positions)
    state = shared_model.start(prompt, [0]).state
    assert isinstance(state, TokenState)
    assert state.feeding.feed is prompt.inputs.feed
    assert torch.is_tensor(state.feeding.ready[0])


def whole(stream):
    return np.concatenate([chunk.samples for chunk in stream])


def test_half_a_character_in_a_feed_is_the_error_of_its_own_request(shared_model, told):
    good = SpeechRequest("Good morning.", voice=told, seed=2, sampling=Sampling(max_frames=40))
    with Engine(shared_model, slots=2) as engine:
        expected = engine.synthesize(good).samples
        feed = fed("The lake is quiet", close=False)
        bad, other = engine.submit(request(feed, told)), engine.submit(good, streaming=False)
        with pytest.raises(RequestError, match="half of a surrogate pair"):
            feed.put("half \ud800 a character")
        with pytest.raises(RequestError, match="half of a surrogate pair"):
            whole(bad)
        assert np.array_equal(whole(other), expected)
        with pytest.raises(RequestError, match="half of a surrogate pair"):
            engine.submit(request(fed("\ud800 x"), told))
        with pytest.raises(RequestError, match="glossary"):
            engine.submit(request(fed("x"), told, glossary={"x": "y"}))
        assert engine.load == (0, 0)


def test_a_feed_whose_source_fails_ends_with_that_error(shared_model, told):
    def words():
        yield "The lake is quiet today, and"
        raise ConnectionError("the language model went away")

    with Engine(shared_model, slots=2) as engine:
        stream = engine.submit(request(TextFeed.reading(words()), told))
        with pytest.raises(GenerationError, match="the language model went away"):
            whole(stream)
        assert engine.load == (0, 0)


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.slow
def test_a_feed_says_the_same_when_a_step_of_its_batch_fails(shared_model, told, monkeypatch, is_late):
    feed = fed(TEXT[:20], close=False) if is_late else fed(TEXT)
    with Engine(shared_model, slots=2) as engine:
        expected = whole(engine.submit(request(fed(TEXT), told), streaming=False))
        step, calls = shared_model.step, []

        def failing(utterances):
            made = step(utterances)
            calls.append(len(utterances))
            if len(utterances) == 2 and calls.count(2) == 40:
                if is_late:  # it has waited for text meanwhile, and has it at once the second time
                    feed.put(TEXT[20:])
                    feed.close()
                raise RuntimeError("a step broke")
            return made

        monkeypatch.setattr(shared_model, "step", failing)
        other = engine.submit(SpeechRequest(TEXT, voice=told, seed=1, sampling=Sampling(max_frames=60)))
        stream = engine.submit(request(feed, told), streaming=False)
        assert np.abs(whole(stream) - expected).max() < 1e-4
        assert len(whole(other))
    assert calls.count(2) == 40
