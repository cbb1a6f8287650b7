"""The four laws of the family contract as one suite. A family's tests subclass `FamilyLaws`.

Give `model` (a fixture, fresh for each test) and `requests` (a fixture: at least three requests of
different lengths with fixed seeds). Nothing else is needed.
"""

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.engine.model import joined
from sonant.request.speech import ChunkPolicy
from tests.toy import held


def run_alone(model, prompt):
    """Tokens [n, K] of one prompt spoken alone, and its decoder's samples from one whole push."""
    with torch.inference_mode():
        model.allocate(max(1, prompt.rows), max(prompt.positions, 1))
        utterance = model.start(prompt, list(range(prompt.rows)))
        tokens = []
        for _ in range(prompt.ceiling + 2):
            (step,) = model.step([utterance])
            utterance.steps += 1  # as the engine does
            tokens.append(step.tokens)
            if step.is_final:
                break
        else:
            raise AssertionError("the utterance went past its ceiling")
        return joined(tokens)


def run_together(model, prompts):
    """Tokens of several prompts stepped as one batch, each leaving when it ends."""
    with torch.inference_mode():
        rows = sum(prompt.rows for prompt in prompts)
        model.allocate(rows, max(max(prompt.positions for prompt in prompts), 1))
        running, taken = [], 0
        for index, prompt in enumerate(prompts):
            slots = list(range(taken, taken + prompt.rows))
            taken += prompt.rows
            running.append((index, model.start(prompt, slots)))
        tokens = [[] for _ in prompts]
        while running:
            steps = model.step([utterance for _, utterance in running])
            for (index, utterance), step in zip(list(running), steps, strict=True):
                utterance.steps += 1
                tokens[index].append(step.tokens)
            running = [pair for pair, step in zip(running, steps, strict=True) if not step.is_final]
        return [joined(parts) for parts in tokens]


def decode(model, prompt, tokens, split, *, streaming):
    """Samples of the tokens pushed in pieces of the sizes in `split` (repeated), then finish."""
    with torch.inference_mode():
        decoder = model.decoder(prompt, streaming=streaming)
        pieces, at, turn = [], 0, 0
        while at < len(tokens):
            size = split[turn % len(split)]
            pieces.append(decoder.push(tokens[at : at + size]))
            at += size
            turn += 1
        pieces.append(decoder.finish())
        return torch.as_tensor(joined(pieces))


def are_equal(one, other):
    """Whether two arrays, torch's or numpy's, hold the same."""
    return torch.equal(torch.as_tensor(one), torch.as_tensor(other))


class FamilyLaws:
    """Subclass with fixtures `model` and `requests`."""

    tolerance = 1e-5
    """Largest sample difference of law 1, from what was measured in float32."""

    @pytest.fixture
    def prompts(self, model, requests):
        made = []
        with torch.inference_mode():
            for request in requests:
                made.extend(model.prepare(request)[:1])
        return made

    @pytest.mark.parametrize("streaming", [False, True])
    def test_pieces_equal_whole(self, model, prompts, streaming):
        for prompt in prompts[:2]:
            tokens = run_alone(model, prompt)
            whole = decode(model, prompt, tokens, [len(tokens) or 1], streaming=streaming)
            assert len(whole)
            for split in ([1], [2, 3], [1, 5, 2], [7]):
                pieces = decode(model, prompt, tokens, split, streaming=streaming)
                assert pieces.shape == whole.shape
                assert (pieces - whole).abs().max() <= self.tolerance

    def test_batch_of_n_equals_n_singles(self, model, prompts):
        alone = [run_alone(model, prompt) for prompt in prompts]
        together = run_together(model, prompts)
        for one, other in zip(alone, together, strict=True):
            assert are_equal(one, other)

    def test_an_utterance_changes_neither_another_nor_the_model(self, model, prompts):
        before = run_alone(model, prompts[0])
        for prompt in prompts[1:]:
            run_alone(model, prompt)
        assert are_equal(run_alone(model, prompts[0]), before)

    can_grow = True
    """False away from the CPU, where rows stay where they are."""

    def test_rows_that_grow_while_they_are_in_use_change_nothing(self, model, prompts):
        if not hasattr(model, "grow"):
            pytest.skip("this model keeps no rows, or none that could grow")
        expected = run_together(model, prompts[:2])
        steps = model.step
        count, has_grown = 0, False

        def step(utterances):
            nonlocal count, has_grown
            count += 1
            if count == 3:
                has_grown = model.grow(4 * max(prompt.positions for prompt in prompts))
            return steps(utterances)

        model.step = step
        try:
            found = run_together(model, prompts[:2])
        finally:
            del model.step
        assert count >= 3
        assert has_grown == self.can_grow
        for one, other in zip(expected, found, strict=True):
            assert are_equal(one, other)

    def test_same_seed_gives_same_samples(self, model, requests):
        with Engine(model, slots=2) as engine:
            first = engine.synthesize(requests[0])
            second = engine.synthesize(requests[0])
        assert np.array_equal(first.samples, second.samples)
        assert len(first.samples) > 0

    def test_requests_together_equal_requests_alone(self, model, requests):
        with Engine(model, slots=4) as engine:
            alone = [engine.synthesize(request).samples for request in requests]
            streams = [engine.submit(request, streaming=False) for request in requests]
            for expected, stream in zip(alone, streams, strict=True):
                found = np.concatenate([chunk.samples for chunk in stream])
                assert found.shape == expected.shape
                assert np.abs(found - expected).max() <= self.tolerance

    def test_chunk_policy_moves_no_sample(self, model, requests):
        from dataclasses import replace

        with Engine(model, slots=2) as engine:
            results = []
            for policy in (ChunkPolicy(), ChunkPolicy(first=3, growth=1, largest=3)):
                stream = engine.stream(replace(requests[0], chunk_policy=policy))
                results.append(np.concatenate([chunk.samples for chunk in stream]))
        assert results[0].shape == results[1].shape
        assert np.abs(results[0] - results[1]).max() <= self.tolerance

    def test_cancel_frees_the_rows_at_the_next_step(self, model, requests):
        go = held(model)
        try:
            with Engine(model, slots=max(2, model.spec.rows), chunk_limit=1) as engine:
                stream = engine.stream(requests[0])
                stream.cancel()
                go.set()
                with pytest.raises(Exception, match="cancelled"):
                    for _ in stream:
                        pass
                assert len(engine.synthesize(requests[1]).samples) > 0
                assert engine.load == (0, 0)
        finally:
            del model.step
