"""Faults in one utterance of three, see tests/misspeaking.py."""

import pytest
import torch

from sonant.families.cosyvoice3 import generate
from sonant.request.speech import Sampling, SpeechRequest
from tests.misspeaking import Misspeaking

from .conftest import load

pytestmark = pytest.mark.slow  # the same suite runs over the toy in tests/engine


@pytest.fixture(scope="module")
def double(checkpoint):
    return load(checkpoint, torch.float64)


@pytest.fixture(scope="module")
def voice(double, clip):
    return double.encode_voice(clip, "A small boat crosses the quiet lake.")


class TestCosyVoice3(Misspeaking):
    @pytest.fixture
    def model(self, double):
        return double

    @pytest.fixture
    def asked(self, voice):
        sampling = Sampling(flow_steps=1)
        return lambda text, seed: SpeechRequest(text, voice=voice, seed=seed, sampling=sampling)

    @pytest.fixture
    def endless(self, model):
        first = model.config.language.speech_tokens

        def change(scores):
            scores = scores.clone()
            scores[first:] = -1e4
            return scores

        return change

    @pytest.fixture
    def hooked(self, monkeypatch):
        advance = generate.advance  # its scores are there only once a step has begun

        def hook(change):
            def changed(config, utterance):
                utterance.state.logits = change(utterance, utterance.state.logits)
                return advance(config, utterance)

            monkeypatch.setattr(generate, "advance", changed)

        return hook
