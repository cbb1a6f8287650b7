"""Faults in one utterance of three, over the toy; see tests/misspeaking.py."""

from dataclasses import replace

import pytest
import torch

from sonant.engine.model import Ending
from sonant.nn.sampling import chance_of, check_finite
from sonant.request.speech import SpeechRequest
from tests.misspeaking import Misspeaking
from tests.toy import END, ToyModel


class WatchedToy(ToyModel):
    """Tells how near its end is, and goes on from a reference."""

    def __init__(self):
        super().__init__(dtype=torch.float64)

    def prepare(self, request):
        reference = torch.arange(20)[:, None]
        return [replace(prompt, reference=reference) for prompt in super().prepare(request)]

    def step(self, utterances):
        for utterance in utterances:
            check_finite(utterance.state)
        return super().step(utterances)

    def ending(self, utterance):
        return Ending(*chance_of(END, utterance.state[0]))


class TestToy(Misspeaking):
    @pytest.fixture
    def model(self):
        return WatchedToy()

    @pytest.fixture
    def asked(self):
        return lambda text, seed: SpeechRequest(text, seed=seed)

    @pytest.fixture
    def endless(self):
        def change(scores):
            scores = scores.clone()
            scores[..., END] = -1e4
            return scores

        return change

    @pytest.fixture
    def hooked(self, monkeypatch):
        step, ending = WatchedToy.step, WatchedToy.ending

        def hook(change):
            def changed_step(self, utterances):
                for utterance in utterances:
                    utterance.state = change(utterance, utterance.state)
                return step(self, utterances)

            def changed_ending(self, utterance):
                utterance.state = change(utterance, utterance.state)
                return ending(self, utterance)

            monkeypatch.setattr(WatchedToy, "step", changed_step)
            monkeypatch.setattr(WatchedToy, "ending", changed_ending)

        return hook
