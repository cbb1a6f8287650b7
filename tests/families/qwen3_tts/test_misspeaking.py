"""Faults in one utterance of three, see tests/misspeaking.py."""

import pytest
import torch

from sonant.families.qwen3_tts import load
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest
from tests.misspeaking import Misspeaking, hook_scores

pytestmark = pytest.mark.slow  # the same suite runs over the toy in tests/engine


@pytest.fixture(scope="module")
def double(kit):
    return load(kit / "checkpoints" / "base_1p7b", device=torch.device("cpu"), dtype=torch.float64)


@pytest.fixture(scope="module")
def voice(double, kit):
    clip = Audio.read(kit / "audio" / "ref_b_16k_stereo.wav")
    return double.encode_voice(clip, "Please say that again.")


class TestQwen3TTS(Misspeaking):
    @pytest.fixture
    def model(self, double):
        return double

    @pytest.fixture
    def asked(self, voice):
        return lambda text, seed: SpeechRequest(text, voice=voice, seed=seed)

    @pytest.fixture
    def endless(self, model):
        end = model.config.talker.codec_eos_token_id

        def change(scores):
            scores = scores.clone()
            scores[end] = -1e4
            return scores

        return change

    @pytest.fixture
    def hooked(self, model, monkeypatch):
        def hook(change):
            hook_scores(monkeypatch, Qwen3TTS, change)

        return hook
