import pytest

from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.laws import FamilyLaws, run_alone, run_together


class TestPresetVoices(FamilyLaws):
    tolerance = 0.0  # every decoder pass has one shape, so samples are equal to the bit

    @pytest.fixture
    def model(self, loaded):
        return loaded("custom_voice_1p7b")

    @pytest.fixture
    def requests(self):
        return [
            SpeechRequest(
                "Hello there.",
                voice="ryan",
                seed=1,
                sampling=Sampling(max_frames=9),
                text_layout="progressive",
            ),
            SpeechRequest(
                "The old ferry stayed in the harbour.",
                voice="eric",
                language="chinese",
                seed=2,
                sampling=Sampling(max_frames=14, temperature=0.7, top_k=9, predictor_top_p=0.7),
                style=Style(instruction="Calm."),
            ),
            SpeechRequest("你好。", voice="serena", seed=3, sampling=Sampling(greedy=True, max_frames=6)),
        ]


class TestVoiceOfAClip(FamilyLaws):
    tolerance = 0.0

    @pytest.fixture
    def model(self, loaded):
        return loaded("base_1p7b")

    @pytest.fixture
    def requests(self, model, kit):
        clip = Audio.read(kit / "audio" / "ref_b_16k_stereo.wav")
        continued = model.encode_voice(clip, "Please say that again.")
        sounding = model.encode_voice(clip, None)
        return [
            SpeechRequest("Hello there.", voice=continued, seed=1, sampling=Sampling(max_frames=6)),
            SpeechRequest("Now, the second one.", voice=sounding, seed=2, sampling=Sampling(max_frames=11)),
            SpeechRequest(
                "你好。", voice=continued, seed=3, sampling=Sampling(max_frames=4), text_layout="full"
            ),
        ]


def test_order_in_the_batch_moves_no_token(loaded):
    model = loaded("custom_voice_1p7b")
    requests = [
        SpeechRequest("One and two.", voice="ryan", seed=seed, sampling=Sampling(max_frames=8))
        for seed in (5, 6, 7)
    ]
    prompts = [model.prepare(request)[0] for request in requests]
    forwards = run_together(model, prompts)
    backwards = run_together(model, prompts[::-1])[::-1]
    for one, other, alone in zip(forwards, backwards, [run_alone(model, p) for p in prompts], strict=True):
        assert one.tolist() == other.tolist() == alone.tolist()
    assert forwards[0].tolist() != forwards[1].tolist()
