"""Wrong texts, clips and voices that every family must refuse with words, or take. Subclass `BadInputs`.

Give `model`, a model that clones, and `voice`, a Voice encoded by it.
"""

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from sonant.engine.engine import Engine
from sonant.engine.model import Prompt
from sonant.engine.preparing import Pause
from sonant.errors import RequestError, VoiceError
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest
from sonant.request.voice import Voice


class BadInputs:
    """Subclass with fixtures `model` and `voice`."""

    @pytest.fixture
    def engine(self, model):
        with Engine(model, slots=model.spec.rows) as engine:
            yield engine

    @pytest.mark.parametrize("text", ["", " \n"])
    def test_an_empty_text_is_refused(self, engine, voice, text):
        with pytest.raises(RequestError, match="empty"):
            engine.segments(SpeechRequest(text, voice=voice))

    @pytest.mark.parametrize("text", ["...!?", "。！", "😀🎉", "[pause:1s]", "— …"])
    def test_a_text_without_words_is_silence(self, engine, voice, text):
        speech = engine.synthesize(SpeechRequest(text, voice=voice))
        assert len(speech.samples)
        assert not speech.samples.any()
        assert [guard.kind for guard in speech.guards] == ["silence"]

    def test_marks_between_pauses_are_silence_not_an_error(self, engine, voice):
        request = SpeechRequest("One. [pause:1s] ... [pause:1s] Two.", voice=voice)
        source = engine._source(request)[1]
        items = []
        while not source.is_over:
            items.append(source.next())
        assert [item.seconds for item in items if isinstance(item, Pause)] == [2.0]
        spoken = [item.text.strip(" .").lower() for item in items if isinstance(item, Prompt)]
        assert spoken == ["one", "two"]

    @pytest.mark.parametrize("text", ["7", "a", "Hi 😀!", "\u202eabc\u202c", "x" * 3000, "e\u0301"])
    def test_awkward_text_is_taken(self, engine, voice, text):
        assert engine.segments(SpeechRequest(text, voice=voice))

    def test_half_a_surrogate_pair_is_refused(self, engine, voice):
        with pytest.raises(RequestError, match="surrogate"):
            engine.segments(SpeechRequest("a\ud800b", voice=voice))

    def test_an_unknown_language_is_refused_with_the_known_ones(self, engine, voice):
        with pytest.raises(RequestError, match=r"klingon.*chinese"):
            engine.segments(SpeechRequest("Hello.", voice=voice, language="klingon"))

    def test_an_unknown_speaker_is_refused(self, engine):
        with pytest.raises(VoiceError, match="nobody"):
            engine.segments(SpeechRequest("Hello.", voice="nobody"))

    def test_a_voice_made_for_another_model_is_refused(self, engine, voice):
        other = replace(voice, fingerprint="0123456789abcdef", clip=None)
        with pytest.raises(VoiceError, match=r"0123456789abcdef.*Encode the reference again"):
            engine.segments(SpeechRequest("Hello.", voice=other))

    def test_a_clip_of_ten_hours_is_refused_at_once(self, engine):
        hours = np.broadcast_to(np.float32(0.1), 10 * 3600 * 24_000)  # takes no memory
        with pytest.raises(RequestError, match="36000"):
            engine.clone(Audio(hours, 24_000))

    @pytest.mark.parametrize("value", [0.0, 1e-6])
    def test_a_silent_clip_is_refused(self, engine, value):
        with pytest.raises(RequestError, match="silent"):
            engine.clone(Audio(np.full(48_000, value, dtype=np.float32), 24_000))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_a_clip_of_no_numbers_is_refused(self, engine, value):
        samples = np.full(48_000, 0.1, dtype=np.float32)
        samples[100] = value
        with pytest.raises(RequestError, match="finite"):
            engine.clone(Audio(samples, 24_000))

    def test_an_empty_or_tiny_clip_is_refused(self, engine):
        for count in (0, 100):
            with pytest.raises(RequestError, match="at least"):
                engine.clone(Audio(np.full(count, 0.1, dtype=np.float32), 24_000))

    def test_an_8_bit_96_khz_stereo_clip_works(self, engine, tmp_path):
        path = tmp_path / "odd.wav"
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (96_000, 2))
        soundfile.write(path, noise, 96_000, subtype="PCM_U8")
        made = engine.clone(Audio.read(path))
        assert isinstance(made, Voice)
        assert all(tensor.isfinite().all() for tensor in made.tensors.values() if tensor.is_floating_point())
        assert engine.segments(SpeechRequest("Hello.", voice=made))
