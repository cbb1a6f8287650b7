"""Faults in one utterance of three, see tests/misspeaking.py."""

import pytest

from sonant.families.indextts2.model import IndexTTS2
from sonant.request.speech import Sampling, SpeechRequest
from tests.misspeaking import Misspeaking, hook_scores

pytestmark = pytest.mark.slow  # the same suite runs over the toy in tests/engine


class TestIndexTTS2(Misspeaking):
    has_reference = False
    gives_frames = False

    @pytest.fixture
    def asked(self, voices):
        sampling = Sampling(flow_steps=1, beams=1)
        return lambda text, seed: SpeechRequest(text, voice=voices[0], seed=seed, sampling=sampling)

    @pytest.fixture
    def endless(self, model):
        stop = model.parts.config.gpt.stop_mel_token

        def change(scores):
            scores = scores.clone()
            scores[..., stop] = -1e4
            return scores

        return change

    @pytest.fixture
    def hooked(self, monkeypatch):
        def hook(change):
            hook_scores(monkeypatch, IndexTTS2, change)

        return hook
