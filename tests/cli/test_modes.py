"""Every mode of every family from the command line, on tiny checkpoints: whole and streamed alike."""

from functools import cache
from pathlib import Path

import pytest

from sonant.catalogue import registry
from sonant.request.audio import Audio
from tests.families.indextts2.conftest import build_checkpoint
from tests.families.indextts2.conftest import clip as made_clip
from tests.families.qwen3_tts.conftest import kit  # noqa: F401  (a fixture)

COSY = Path(__file__).parents[1] / "data" / "cosyvoice3"
COMMON = ("--seed", "5", "--de-rumble", "off", "--loudness", "off")  # a stream cannot know its own loudness
FEW = ("--max-frames", "8")
QUICK = (*FEW, "--flow-steps", "2")


@pytest.fixture(scope="module", autouse=True)
def models_are_loaded_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sonant.catalogue.registry.load_model", cache(registry.load_model))
        yield


@pytest.fixture(scope="module")
def index_checkpoint(tmp_path_factory):
    return build_checkpoint(tmp_path_factory.mktemp("index") / "checkpoint")


@pytest.fixture(scope="module")
def index_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.wav"
    made_clip(0).write(path)
    return path


def speak_twice(sonant, *arguments):
    """The command whole and streamed; both recordings must have the same samples. Gives the whole one."""
    for flags, name in (((), "whole.wav"), (("--stream",), "stream.wav")):
        result = sonant("say", *COMMON, *arguments, *flags, "-o", name)
        assert result.code == 0, result.err
    whole, streamed = Audio.read("whole.wav"), Audio.read("stream.wav")
    assert len(whole.samples) > 1000
    assert (whole.samples == streamed.samples).all()
    return whole


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("custom_voice_1p7b", ("--voice", "Ryan")),
        ("custom_voice_1p7b", ("--voice", "eric", "--language", "en", "--instruction", "Calmly.")),
        ("voice_design_1p7b", ("--instruction", "A deep, slow voice.")),
        ("base_1p7b", ("--voice", "CLIP")),
        ("base_1p7b", ("--voice", "CLIP", "--transcript", "What it says.")),
        ("base_1p7b", ("--voice", "CLIP", "--text-layout", "full")),
        ("base_1p7b", ("--voice", "CLIP", "--text-layout", "progressive")),
    ],
)
def test_qwen3_tts(sonant, kit, name, arguments):  # noqa: F811
    clip = str(kit / "audio" / "ref_b_16k_stereo.wav")
    given = [clip if word == "CLIP" else word for word in arguments]
    speak_twice(sonant, "Hello there.", "--model", kit / "checkpoints" / name, *given, *FEW)


@pytest.mark.slow
def test_a_voice_is_designed_and_spoken_with_in_one_step(sonant, kit):  # noqa: F811
    places = kit / "checkpoints"
    given = ("--design-model", places / "voice_design_1p7b", "--instruction", "Deep.", "--design-text", "Hi.")
    result = sonant("say", "Hello.", "--model", places / "base_1p7b", *given, *FEW, *COMMON, "-o", "out.wav")
    assert result.code == 0, result.err
    assert Audio.read("out.wav").seconds > 0.1


@pytest.mark.parametrize(
    "arguments",
    [
        ("Hello there.", "--transcript", "A small boat crosses the quiet lake."),
        ("Hello there.",),
        ("Hello there.", "--instruction", "Be cheerful."),
        ("Hello there.", "--noise", "reference"),
        ("Hello there.", "--speed", "1.5"),
        ("--source-audio", str(COSY / "source_16k.wav")),
    ],
)
def test_cosyvoice3(sonant, arguments):
    if "--source-audio" not in arguments:
        arguments = (*arguments, "--max-frames", "20")
    given = ("--model", COSY / "checkpoint", "--voice", COSY / "prompt_24k.wav", "--flow-steps", "2")
    for flags, name in (((), "whole.wav"), (("--stream",), "stream.wav")):
        result = sonant("say", *arguments, *given, *COMMON, *flags, "-o", name)
        assert result.code == 0, result.err
    # chunks see less of what follows, by design of the model, so only the lengths are equal
    whole, streamed = Audio.read("whole.wav"), Audio.read("stream.wav")
    assert len(whole.samples) == len(streamed.samples) > 1000


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--emotion-audio", "OTHER"),
        ("--emotion-audio", "OTHER", "--emotion-strength", "0.5"),
        ("--emotion", "happy=0.6,calm=0.2", "--preset", "cfg_a_safe"),
        ("--emotion", "sad=0.5", "--emotion-random"),
        ("--emotion-text", "I am so happy!"),
        ("--emotion-from-text",),
        ("--de-rumble", "180"),
    ],
)
def test_indextts2(sonant, index_checkpoint, index_clip, tmp_path, arguments):
    made_clip(1).write(tmp_path / "other.wav")
    given = [str(tmp_path / "other.wav") if word == "OTHER" else word for word in arguments]
    place = ("--model", index_checkpoint, "--voice", index_clip)
    speak_twice(sonant, "Hello there.", *place, *QUICK, *given)
