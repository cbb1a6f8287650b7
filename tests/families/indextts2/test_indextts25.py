"""IndexTTS-2.5: recorded stages, which folder it is, what it shares with IndexTTS2, and the whole model."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sonant.catalogue.registry import describe, detect
from sonant.engine.engine import Engine
from sonant.errors import CheckpointError, ConfigError, RequestError, UnsupportedError
from sonant.families import indextts2
from sonant.families.indextts2 import weights
from sonant.families.indextts2.config import read_config
from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.families.indextts2.s2mel import frames_of
from sonant.families.indextts2.vocabulary import language_row
from sonant.request.checks import check_request
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.families.indextts2.conftest import clip, gpt25, recorded25
from tests.laws import FamilyLaws

GPT, CODEC = recorded25("gpt_decode"), recorded25("codec_decode")
QUICK = Sampling(max_frames=12, flow_steps=2)


@pytest.fixture
def model(loaded25):
    return IndexTTS2(loaded25.parts, loaded25.spec, device="cpu")


@pytest.fixture(scope="module")
def voices25(loaded25):
    return [loaded25.encode_voice(clip(seed), None) for seed in (0, 1)]


def request(text, voice, **given):
    return SpeechRequest(text, voice=voice, **{"sampling": QUICK, "seed": 7, **given})


class TestLaws(FamilyLaws):
    tolerance = 2e-4  # float32, 2 flow steps, batch sizes change the order of sums

    @pytest.fixture
    def voices(self, voices25):
        return voices25

    @pytest.fixture
    def requests(self, voices):
        one = Sampling(max_frames=9, flow_steps=2, beams=1)
        return [
            request("Hello world.", voices[0]),
            request("你好，欢迎使用。", voices[1], seed=3, sampling=one, speed=1.25),
            request("Una frase mucho más larga, con 25 palabras.", voices[1], seed=4, language="es"),
        ]


# -- recorded from the original -----------------------------------------------------------------


def close(found, expected, tolerance):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance


def prefix_of(gpt, ids, language):
    return gpt.prefix(GPT["spk_latent"][0], GPT["emovec"][0], ids, language)


@torch.inference_mode()
def test_the_recorded_prefix(loaded25):
    gpt, ids = loaded25.parts.gpt, GPT["text_ids"][0].tolist()
    language = int(GPT["lang_id"])
    prefix = prefix_of(gpt, ids, language)
    pads = gpt.prefix_length(GPT["spk_latent"][0], ids) - len(prefix)
    assert pads == int(GPT["padding"]) == len(ids) - len(gpt.spoken_ids(ids))
    close(prefix[None], GPT["prefix_embeds"][:, pads:], 2e-5)
    close(gpt.speaker(torch.zeros(0), GPT["style"])[None], GPT["spk_latent"], 2e-5)
    for code in ("ar", "es", "ja", "zh", "zhen"):
        head = GPT[f"prefix_embeds_{code}"]
        rows = prefix_of(gpt, ids, language_row(code))[None, : head.shape[1] - pads]
        close(rows, head[:, pads:], 2e-5)


@torch.inference_mode()
def test_the_recorded_logits_with_and_without_a_cache(loaded25):
    gpt, codes = loaded25.parts.gpt, GPT["greedy_tokens"][0].tolist()
    model = IndexTTS2(loaded25.parts, loaded25.spec, device="cpu")
    prefix = prefix_of(gpt, GPT["text_ids"][0].tolist(), int(GPT["lang_id"]))
    model.allocate(1, len(prefix) + len(codes) + 1)
    rows = model.cache.rows([0], len(prefix) + 1)
    found = [gpt.prefill(prefix, rows)]
    for index, code in enumerate(codes[:-1], 1):
        found.append(gpt.step(torch.tensor([code]), [index], model.cache.rows([0], 1)))
    close(torch.cat(found), GPT["greedy_logits"], 2e-4)
    close(gpt.full_logits(prefix, codes[:-1]), GPT["greedy_logits"], 2e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["", "_1", "_2", "_5", "_all"])
def test_the_recorded_codec(loaded25, name):
    close(loaded25.parts.codec.decode(CODEC[f"codes{name}"]), CODEC[f"S_infer{name}"], 5e-5)


def test_lengths_are_cut_in_the_original_order():
    assert [frames_of(2 * n, f) for n, f in ((1, 0.5), (1, 1.0), (3, 1.3), (5, 0.7))] == [1, 3, 13, 12]
    assert frames_of(0, 1.0) == 1


# -- which folder it is -------------------------------------------------------------------------


def test_a_folder_is_known_by_its_files_whatever_its_config_says(checkpoint25, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint25, folder)
    config = folder / "config.yaml"
    text = config.read_text()
    for old, new in (
        ("version: 2.5", "version: 2.0"),
        ("gpt_checkpoint: gpt.pth", "gpt_checkpoint: /mnt/author/exp/gpt_step_9.pth"),
        ("s2mel_checkpoint: s2mel.pth", "s2mel_checkpoint: 'D:\\\\exp\\\\s2mel.pth'"),
        ("qwen_emo_path: qwen0.6bemo4-merge/", "qwen_emo_path: /mnt/author/qwen"),
        ("  downsample_scale: 2\n", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    config.write_text(text)
    assert detect(folder) == "indextts2"
    spec = describe(folder)
    assert spec.name == "IndexTTS-2.5"
    assert {"speed", "emotion_text", "pronunciation"} <= spec.capabilities
    load_model(folder, device="cpu", dtype=torch.float32)
    target = tmp_path / "converted"
    indextts2.convert(folder, target)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "converted"}
    assert not [p for p in target.rglob("*") if p.suffix in (".pth", ".pt", ".bin")]
    assert describe(target).name == "IndexTTS-2.5"
    assert load_file(target / "codec.safetensors").keys() == recorded25("codec").keys()
    load_model(target, device="cpu", dtype=torch.float32)


def test_missing_files_are_named(checkpoint25, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint25, folder)
    (folder / "codec.pth").unlink()
    with pytest.raises(CheckpointError, match=r"IndexTTS-2\.5 folder.*\n.*codec\.pth"):
        describe(folder)


def test_files_of_two_releases_are_told_apart(checkpoint, checkpoint25, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(checkpoint25, mixed)
    shutil.copy(checkpoint / "gpt.pth", mixed / "gpt.pth")
    with pytest.raises(CheckpointError, match=r"network of IndexTTS2, and the other files .* IndexTTS-2\.5"):
        load_model(mixed, device="cpu", dtype=torch.float32)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    shutil.copy(checkpoint25 / "gpt.pth", other / "gpt.pth")
    with pytest.raises(CheckpointError, match=r"network of IndexTTS-2\.5"):
        load_model(other, device="cpu", dtype=torch.float32)


def test_a_vocabulary_of_another_release_is_refused(checkpoint25, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint25, folder)
    file = folder / "multilingual_zh_ja_yue_char_del.tiktoken"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(CheckpointError, match="2261 tokens"):
        load_model(folder, device="cpu", dtype=torch.float32)


def test_a_codec_of_that_name_makes_no_other_release(checkpoint, tmp_path):
    shutil.copy(checkpoint / "config.yaml", tmp_path)
    (tmp_path / "codec.pth").write_bytes(b"somebody's MaskGCT")
    assert read_config(tmp_path / "config.yaml").name == "IndexTTS2"


def test_another_rate_of_codes_is_refused(checkpoint25, tmp_path):
    text = (checkpoint25 / "config.yaml").read_text().replace("downsample_scale: 2", "downsample_scale: 1")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match="downsample_scale is 1; expected 2"):
        read_config(tmp_path / "config.yaml")


def test_what_only_training_reads_stops_no_load(checkpoint25, loaded25, tmp_path):
    wrapped = {"model": {**gpt25(), "text_head.weight": torch.zeros(2, 2)}, "optimizer": {"lr": 0.1}}
    torch.save({**wrapped, "head": {"weight": torch.zeros(3)}}, tmp_path / "gpt.pth")
    config = loaded25.parts.config
    made = weights.load_gpt(tmp_path / "gpt.pth", config, 32, device="cpu", dtype=torch.float32)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, loaded25.parts.gpt.state_dict()[name])


def test_a_second_pass_and_its_weights_do_not_exist(loaded25):
    assert loaded25.parts.s2mel.gpt_layer is None  # although the recorded s2mel.pth holds one
    assert not hasattr(loaded25.parts.codec, "encoder")


# -- requests -----------------------------------------------------------------------------------


def lengths(model, spoken):
    return [len(chunk) for chunk in Engine(model).synthesize(spoken).samples[None]]


def test_speed_and_duration_factor_are_one_thing(model, voices25):
    one = Sampling(max_frames=8, flow_steps=1, beams=1)
    [plain] = lengths(model, request("Hello.", voices25[0], sampling=one))
    [fast] = lengths(model, request("Hello.", voices25[0], sampling=one, speed=2.0))
    options = {"duration_factor": 0.5}
    [short] = lengths(model, request("Hello.", voices25[0], sampling=one, options=options))
    assert fast == short
    assert 0.4 * plain < fast < 0.6 * plain
    with pytest.raises(RequestError, match="Keep one of them"):
        model.prepare(request("Hello.", voices25[0], speed=2.0, options=options))


def test_indextts2_keeps_its_pace(loaded, loaded25):
    assert "speed" not in loaded.spec.capabilities
    assert "speed" in loaded25.spec.capabilities


@pytest.mark.parametrize(
    ("language", "options", "text", "row"),
    [
        (None, {}, "Hello there.", "en"), (None, {}, "你好。", "zh"), ("japanese", {}, "これ", "ja"),
        ("es", {}, "Hola", "es"), ("ar", {}, "مرحبا", "ar"),
        (None, {"language_code": "zhen"}, "你 hi", "common"), (None, {"language_code": "xx"}, "Hi", "common"),
        ("en", {"language_code": "FR"}, "Bonjour", "fr"),
    ],
)  # fmt: skip
def test_the_language_reaches_the_gpt(model, voices25, language, options, text, row, caplog):
    spoken = request(text, voices25[0], language=language, options=options)
    check_request(spoken, model.spec)
    made = model.prepare(spoken)[0]
    assert ("knows no language xx" in caplog.text) == (options == {"language_code": "xx"})
    ids = list(made.inputs.decode.ids)
    alone = model.parts.gpt.prefix(
        made.inputs.decode.latents, made.inputs.decode.emotion, ids, language_row(row)
    )
    assert torch.equal(made.inputs.prefix, alone)


def test_pieces_of_a_text_have_emotions_of_their_own(model, voices25):
    style = Style(emotion_from_text=True)
    text = "今天真是太开心了！How dare you do that to me!"
    whole = model.prepare(request(text, voices25[0], style=style))
    pieces = model.prepare(request(text, voices25[0], style=style, options={"piece_characters": 12}))
    assert len(pieces) > len(whole) == 1
    emotions = [piece.inputs.decode.emotion for piece in pieces]
    assert not torch.equal(emotions[0], emotions[-1])
    assert pieces[0].pause_after > 0
    assert pieces[-1].pause_after == 0


def test_four_ways_of_emotion_give_four_vectors(model, voices25):
    styles = [
        Style(), Style(emotion_vector=(0.0, 0.8, 0, 0, 0, 0, 0, 0)), Style(emotion_audio=clip(5)),
        Style(emotion_text="今天真是太开心了！"), Style(emotion_from_text=True),
    ]  # fmt: skip
    found = [
        model.prepare(request("How dare you do that to me!", voices25[0], style=style))[0] for style in styles
    ]
    vectors = [tuple(prompt.inputs.decode.emotion.tolist()) for prompt in found]
    assert len(set(vectors)) == len(vectors)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quick_pieces": 3}, "no option 'quick_pieces'"),
        ({"duration_factor": 0}, "0.25 to 4"),
        ({"language_code": "<|zh|>"}, "a code such as"),
        ({"segment_pieces": 121}, "1 to 120"),
    ],
)
def test_wrong_options_are_named(model, voices25, options, told):
    with pytest.raises(RequestError, match=told):
        Engine(model).segments(request("Hi.", voices25[0], options=options))


def test_a_voice_of_the_other_release_is_refused(loaded, model):
    other = loaded.encode_voice(clip(0), None)
    with pytest.raises(Exception, match="was made by"):
        model.prepare(request("Hi.", other))


def test_without_the_classifier_numbers_still_work(model, voices25):
    bare = IndexTTS2(replace(model.parts, classifier=None), model.spec, device="cpu")
    assert bare.prepare(request("Hi.", voices25[0], style=Style(emotion_vector=(0.5,) + (0.0,) * 7)))
    with pytest.raises(UnsupportedError, match="lacks the text-to-emotion model"):
        bare.prepare(request("Hi.", voices25[0], style=Style(emotion_text="glad")))
