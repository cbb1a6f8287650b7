"""What the guards do in every family, as one suite: faults are put into one utterance of three.

A family's tests subclass `Misspeaking` with fixtures `model` and `asked` (text and seed -> SpeechRequest, in
a voice that is continued in context where the family has that), and `hooked`, a function that puts
`change(utterance, scores) -> scores` before every choice of a token. The neighbours must give the bytes that
they give beside an ordinary utterance.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from sonant.engine import decoding, guards
from sonant.engine.engine import Engine
from sonant.engine.guards import TRIES
from sonant.errors import GenerationError

SLOW = pytest.mark.slow
GUILTY = "The old ferry stayed in the harbour all day."
NEIGHBOURS = ("A small boat crosses the lake.", "Good morning to you.")
SEED = 5
HELD = {}
"""The methods of each family as they are."""
FRAME_RATE, CEILING = 3.0, 40
"""Of all families here, so that what takes seconds takes few frames."""


class Spoilt:
    """A model in which one text goes wrong: `tokens(step number, tokens, prompt)` and `samples(samples)` put
    others in their place. With `once`, only for its first seed."""

    def __init__(self, model, *, once=False, tokens=None, samples=None):
        self._model, self._once, self._tokens, self._samples = model, once, tokens, samples
        self.spec = replace(model.spec, frame_rate=FRAME_RATE)
        self.seeds = []

    def each_prompt(self, request):
        for prompt in self._model.prepare(request):
            known = prompt.reference
            if known is not None:  # a random codec may give one token for all sounds
                known = torch.arange(len(known))[:, None].repeat(1, known.shape[1])
            yield replace(prompt, ceiling=CEILING, reference=known)

    def __getattr__(self, name):
        return getattr(self._model, name)

    def is_guilty(self, prompt):
        return is_the_guilty(prompt.text) and not (self._once and prompt.seed != SEED)

    def start(self, prompt, slots):
        if is_the_guilty(prompt.text):
            self.seeds.append(prompt.seed)
        return self._model.start(prompt, slots)

    def step(self, utterances):
        steps = self._model.step(utterances)
        for index, utterance in enumerate(utterances):
            if self._tokens is not None and self.is_guilty(utterance.prompt):
                tokens = self._tokens(utterance.steps, steps[index].tokens, utterance.prompt)
                steps[index] = replace(steps[index], tokens=tokens)
        return steps

    def decoder(self, prompt, *, streaming):
        made = self._model.decoder(prompt, streaming=streaming)
        if self._samples is not None and self.is_guilty(prompt):
            for name in ("push", "finish"):
                setattr(made, name, self._spoilt(getattr(made, name)))
        return made

    def _spoilt(self, method):
        return lambda *given: self._samples(method(*given))


def one_code(step, tokens, prompt):
    return torch.full_like(tokens, 5)


def phrase(step, tokens, prompt):
    start = step if len(tokens) == 1 else 0  # a family may give all at its end
    places = torch.arange(start, start + len(tokens)) % 4
    return (3 + places)[:, None].expand_as(tokens).clone()


def echo(step, tokens, prompt):
    known = prompt.reference[step : step + len(tokens)]
    return known.to(tokens) if step < 6 and len(known) == len(tokens) else tokens


def broken(samples):
    raise ValueError("the decoder broke")


def silent(samples):
    return samples * 0.0


def hook_scores(monkeypatch, family, change):
    """Put `change` before every use of the scores that a family's utterances hold as `state.logits`."""
    step, ending = HELD.setdefault(family, (family.step, family.ending))

    def changed_step(self, utterances):
        for utterance in utterances:
            utterance.state.logits = change(utterance, utterance.state.logits)
        return step(self, utterances)

    def changed_ending(self, utterance):
        utterance.state.logits = change(utterance, utterance.state.logits)
        return ending(self, utterance)

    monkeypatch.setattr(family, "step", changed_step)
    monkeypatch.setattr(family, "ending", changed_ending)


def is_the_guilty(text):
    """Whether a segment is that of GUILTY; front ends change case and marks."""
    return "ferry" in text.casefold()


class Misspeaking:
    """Subclass with the fixtures `model`, `asked` and `hooked`."""

    has_reference = True
    """Whether its prompts hold the reference's tokens."""
    gives_frames = True
    """Whether its tokens come while they are made."""

    @pytest.fixture(autouse=True)
    def less_patience(self, monkeypatch):
        monkeypatch.setattr(decoding, "QUIET_SECONDS", 0.15)
        monkeypatch.setattr(guards, "END_RANK", 20)  # tiny vocabularies

    @pytest.fixture(params=[False, pytest.param(True, marks=SLOW)], ids=["at_the_end", "meanwhile"])
    def is_pipelined(self, request):
        return request.param

    @pytest.fixture
    def say(self, speak, is_pipelined):
        return partial(speak, pipelined=is_pipelined)

    @pytest.fixture
    def speak(self, model, asked, hooked):
        def run(*, pipelined, change=None, streaming=False, settings=None, **faults):
            """Samples of the neighbours; the guilty one's guards, samples and error; the seeds it had."""
            spoilt = Spoilt(model, **faults)
            hooked(lambda u, scores: change(scores) if change and spoilt.is_guilty(u.prompt) else scores)
            texts = (NEIGHBOURS[0], GUILTY, NEIGHBOURS[1])
            with Engine(spoilt, slots=3, pipelined=pipelined, chunk_limit=10_000) as engine:
                requests = [asked(text, seed) for text, seed in zip(texts, (3, SEED, 4), strict=True)]
                requests[1] = replace(requests[1], **settings or {})
                streams = [engine.submit(request, streaming=streaming) for request in requests]
                parts, errors = [], []
                for stream in streams:
                    try:
                        parts.append(np.concatenate([chunk.samples for chunk in stream]))
                    except GenerationError as error:
                        parts.append(np.zeros(0, np.float32))
                        errors.append(error)
            kinds = [guard.kind for guard in streams[1].guards]
            return (parts[0], parts[2]), kinds, parts[1], errors, spoilt.seeds

        return run

    @pytest.fixture
    def undisturbed(self, say):
        return say()[0]

    def same(self, found, expected):
        for one, other in zip(found, expected, strict=True):
            assert len(one)
            assert np.array_equal(one, other)

    def test_an_end_that_is_never_chosen_is_missed_and_spoken_again(self, say, undisturbed, endless):
        neighbours, kinds, samples, errors, seeds = say(change=endless, once=True)
        assert (kinds[:1], errors) == (["missing_end"], [])
        assert len(seeds) == 2
        assert len(samples)
        self.same(neighbours, undisturbed)

    def test_one_that_never_ends_is_stopped_after_its_tries(self, say, undisturbed, endless):
        neighbours, kinds, samples, errors, seeds = say(change=endless)
        last = [] if self.gives_frames else ["length_ceiling"]
        assert (kinds, errors) == (["missing_end"] * (TRIES + 1) + last, [])
        assert len(set(seeds)) == TRIES + 1
        assert len(samples)
        self.same(neighbours, undisturbed)

    def test_what_reaches_its_ceiling_is_spoken_again_where_that_is_asked_for(self, say, endless):
        _, kinds, _, _, seeds = say(change=endless, settings={"guards": "runaway"})
        assert kinds == ["runaway"] * TRIES + ["length_ceiling"]
        assert len(set(seeds)) == TRIES + 1

    @pytest.mark.parametrize("kind", ["repeated_code", "repeated_phrase"])
    def test_a_loop_is_spoken_again_or_stopped(self, say, undisturbed, endless, kind):
        tokens = one_code if kind == "repeated_code" else phrase
        neighbours, kinds, samples, errors, seeds = say(
            tokens=tokens, change=endless, settings={"guards": kind}
        )
        assert (kinds, errors) == ([kind] * (TRIES + 1), [])
        assert len(set(seeds)) == TRIES + 1
        assert len(samples)
        self.same(neighbours, undisturbed)

    def test_silence_for_ever_is_told(self, say, undisturbed, endless):
        settings = {"guards": "near_silence"}
        neighbours, kinds, samples, errors, _ = say(samples=silent, change=endless, settings=settings)
        assert "near_silence" in kinds
        assert not errors
        assert not samples.any()
        self.same(neighbours, undisturbed)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_scores_that_are_no_numbers_are_tried_again(self, say, undisturbed, value):
        neighbours, kinds, samples, errors, seeds = say(
            change=lambda scores: torch.full_like(scores, value), once=True
        )
        assert (kinds[:1], errors) == (["not_finite"], [])
        assert len(seeds) >= 2
        assert len(samples)
        self.same(neighbours, undisturbed)

    def test_scores_that_stay_no_numbers_end_their_own_request(self, say, undisturbed):
        neighbours, kinds, _, errors, _ = say(change=lambda scores: torch.full_like(scores, float("nan")))
        assert kinds == ["not_finite"] * TRIES
        assert len(errors) == 1
        assert "no numbers" in str(errors[0])
        self.same(neighbours, undisturbed)

    def test_an_echo_of_the_reference_is_spoken_again_then_cut(self, say, undisturbed):
        if not self.has_reference:
            pytest.skip("its prompts have no tokens of the reference")
        neighbours, kinds, samples, errors, seeds = say(tokens=echo)
        assert (kinds[: TRIES + 1], errors) == (["reference_echo"] * (TRIES + 1), [])
        assert len(set(seeds)) == TRIES + 1
        assert len(samples)
        self.same(neighbours, undisturbed)

    def test_a_decoder_that_fails_ends_its_own_request(self, say, undisturbed):
        neighbours, _, _, errors, _ = say(samples=broken)
        assert len(errors) == 1
        assert "the decoder broke" in str(errors[0])
        self.same(neighbours, undisturbed)

    @pytest.mark.parametrize(
        "fault",
        [
            "once",
            "streamed",
            *(pytest.param(name, marks=SLOW) for name in ("code", "phrase", "missing", "echo", "silence")),
        ],
    )
    def test_how_far_the_decoding_is_changes_nothing(self, speak, endless, fault):
        if fault == "echo" and not self.has_reference:
            pytest.skip("its prompts have no tokens of the reference")
        how = {
            "code": {"tokens": one_code, "change": endless, "settings": {"guards": "repeated_code"}},
            "once": {"tokens": one_code, "once": True},
            "phrase": {"tokens": phrase, "change": endless, "settings": {"guards": "repeated_phrase"}},
            "missing": {"change": endless},
            "echo": {"tokens": echo},
            "silence": {"samples": silent, "change": endless},
            "streamed": {"samples": silent, "change": endless, "streaming": True},
        }[fault]
        first, then = speak(pipelined=False, **how), speak(pipelined=True, **how)
        self.same((*first[0], first[2]), (*then[0], then[2]))
        if fault != "streamed":  # what is delivered at once is made on until its silence is known
            assert first[1:2] + first[3:] == then[1:2] + then[3:]

    def test_off_leaves_it_alone(self, say, endless):
        _, kinds, _, errors, seeds = say(change=endless, tokens=one_code, settings={"stuck_speech": "off"})
        assert (kinds, errors, len(seeds)) == (["length_ceiling"], [], 1)
