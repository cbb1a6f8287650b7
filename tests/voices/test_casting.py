"""A voice is found by its name, checked, encoded once and remembered, whoever asks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.request.audio import Audio
from sonant.request.checks import check_clip
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.voices.casting import VOICES_KEPT, Casting
from sonant.voices.finding import find_voice, find_voice_or_file
from sonant.voices.library import VoiceLibrary

SPEC = ModelSpec(
    family="toy", name="toy", fingerprint="1", sample_rate=8000, frame_rate=10.0, languages=("english",),
    voices=("Ann", "Bo"), default_voice="Ann", capabilities=frozenset({"clone", "preset_voice"}),
    max_reference_seconds=2.0, min_reference_seconds=0.5, min_reference_rate=8000,
)  # fmt: skip


def clip(seed=0, *, seconds=1.0, rate=8000):
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate))
    return Audio((0.1 * noise).astype(np.float32), rate)


class Cloner:
    """Counts what it encodes."""

    def __init__(self, spec=SPEC):
        self.spec, self.encoded = spec, []

    def encode_voice(self, audio, transcript):
        self.encoded.append((audio.samples[0], transcript))
        tensors = {"first": torch.tensor(audio.samples[:1])}
        return Voice(family="toy", fingerprint="1", tensors=tensors, clip=audio, transcript=transcript)


@pytest.fixture
def library(tmp_path):
    kept = VoiceLibrary(tmp_path / "voices")
    kept.add(Voice(name="cleo", clip=clip(1), transcript="What Cleo says.", language="english"))
    return kept


def test_one_clip_is_encoded_once_however_it_comes(library):
    model = Cloner()
    casting = Casting(model, library)
    cleo = library.get("cleo")
    for _ in range(2):
        found = casting.find("cleo")
        assert (found.name, found.language, found.transcript) == ("cleo", "english", "What Cleo says.")
        casting.encode(clip(1), transcript="What Cleo says.", name="another")
        casting.find(replace(cleo, name="third"))
    assert len(model.encoded) == 1
    casting.encode(clip(1), transcript=None)
    assert len(model.encoded) == 2  # other words are another voice
    for seed in range(10, 10 + VOICES_KEPT):
        casting.encode(clip(seed))
    casting.find("cleo")
    assert len(model.encoded) == 3 + VOICES_KEPT


def test_two_who_ask_at_once_encode_once():
    model = Cloner()
    casting = Casting(model, None)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: casting.encode(clip(3)), range(8)))
    assert len(model.encoded) == 1


@pytest.mark.parametrize(
    ("name", "found"), [("ann", "Ann"), ("BO", "Bo"), ("nova", "Bo"), ("alloy", "Ann"), ("CLEO", "cleo")]
)
def test_names_are_the_models_own_then_stored_then_equals(library, name, found):
    voice = find_voice(name, spec=SPEC, shelf=library, equals=("alloy", "nova"))
    assert (voice.name if isinstance(voice, Voice) else voice) == found


def test_a_stored_voice_goes_before_an_equal(library):
    library.add(Voice(name="nova", clip=clip(2)))
    assert find_voice("nova", spec=SPEC, shelf=library, equals=("nova",)).name == "nova"


@pytest.mark.parametrize("name", ["nobody", "", "../../etc/nobody", "a" * 300])
def test_a_name_of_nobody_is_refused_with_the_names_there_are(library, name):
    with pytest.raises(VoiceError, match=r"Ann, Bo.*cleo"):
        find_voice(name, spec=SPEC, shelf=library)
    with pytest.raises(VoiceError, match="no such file"):
        find_voice_or_file(name, spec=SPEC, shelf=library)
    with pytest.raises(VoiceError, match="own voices are: Ann, Bo"):
        find_voice(name, spec=SPEC, shelf=None)


def test_a_model_that_clones_nothing_takes_its_own_voices_only(library):
    spec = replace(SPEC, capabilities=frozenset({"preset_voice"}))
    assert find_voice("ann", spec=spec, shelf=library) == "Ann"
    with pytest.raises(VoiceError, match="has no voice 'cleo'"):
        find_voice("cleo", spec=spec, shelf=library)
    with pytest.raises(UnsupportedError, match="cannot clone"):
        find_voice_or_file("cleo", spec=spec, shelf=library)


def test_files_are_voices_for_who_has_the_disk(library, tmp_path):
    path = tmp_path / "dan.wav"
    clip(5).write(path)
    voice = find_voice_or_file(str(path), spec=SPEC, shelf=library, transcript="Dan's words.")
    assert (voice.name, voice.transcript) == ("dan", "Dan's words.")
    stored = find_voice_or_file(str(library.path("cleo")), spec=SPEC, shelf=library)
    assert stored.transcript == "What Cleo says."
    with pytest.raises(RequestError, match="only with a clip"):
        find_voice_or_file("ann", spec=SPEC, shelf=library, transcript="Words.")


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (clip(seconds=2.1), "at most 2 s"),
        (clip(seconds=0.4), r"at least 0\.5 s"),
        (clip(rate=4000), "at least 8000"),
        (Audio(np.zeros(8000, np.float32), 8000), "is silent"),
        (Audio(np.full(8000, np.nan, np.float32), 8000), "no finite numbers"),
    ],
)
def test_a_clip_beyond_the_models_limits_is_refused_before_it_is_encoded(audio, words):
    model = Cloner()
    with pytest.raises(RequestError, match=words) as error:
        Casting(model, None).encode(audio)
    assert error.value.field == "voice"
    assert not model.encoded
    with pytest.raises(RequestError, match=words):
        check_clip(audio, SPEC, field="emotion_audio", what="emotion clip")
