"""sonant models, inspect, pull, convert, codec and measure."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sonant.catalogue.hub import known
from sonant.catalogue.inspection import inspect_folder
from sonant.request.audio import Audio
from tests.hub_server import Hub, serve

DATA = Path(__file__).parents[1] / "data"
KITS = Path(__file__).parents[3] / "shared"
NAME = "qwen3-tts-0.6b-base"


def test_models_lists_known_names_and_what_the_built_in_voice_can(sonant):
    rows = {row["name"]: row for row in json.loads(sonant("models", "--json").text)}
    assert {"preset_voice", "seed", "speed"} <= set(rows["builtin"]["can"])
    assert rows[NAME]["is_here"] is False
    assert rows["indextts2"]["licence"]
    assert "qwen3-tts-1.7b-voicedesign" in sonant("models").text


def test_a_pulled_model_is_listed_and_a_broken_one_says_so(sonant, monkeypatch, tmp_path):
    needed = (
        "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json",
        "speech_tokenizer/config.json", "speech_tokenizer/model.safetensors",
    )  # fmt: skip
    files = dict.fromkeys(needed, b"?" * 100_000) | {"config.json": b'{"model_type": "qwen3_tts"}'}
    hub = Hub({known(NAME).repository: files | {"pytorch_model.bin": bytes(2_000_000)}})
    with serve(hub) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        dry = sonant("pull", NAME, "--dry-run")
        assert not (tmp_path / "models").exists()
        result = sonant("pull", NAME)
    assert result.code == dry.code == 0, result.err
    assert len(dry.text.splitlines()) == 7
    assert "100,000  model.safetensors  from Qwen/Qwen3-TTS-12Hz-0.6B-Base" in dry.text
    told = f"{NAME}: 1 MB in 7 files; 2 MB that nothing reads stay there; to {tmp_path / 'models' / NAME}"
    assert dry.err.startswith(told)
    assert result.err.startswith(told)
    assert result.text.strip() == str(tmp_path / "models" / NAME)
    assert "fetching config.json" in result.err
    rows = {row["name"]: row for row in json.loads(sonant("models", "--json").text)}
    assert rows[NAME]["path"] == str(tmp_path / "models" / NAME)
    assert "problem" in rows[NAME]


def test_pull_from_a_hub_that_is_away_is_an_error_with_a_code(sonant, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = sonant("pull", NAME)
    assert result.code == 3
    assert "Check the network" in result.err


def test_inspect_tells_of_the_built_in_voice(sonant):
    text = sonant("inspect", "builtin").text
    assert "hibari" in text
    assert "heart" in text


@pytest.mark.parametrize(
    ("folder", "family", "can"),
    [
        (DATA / "qwen3_tts" / "checkpoints" / "base_1p7b", "qwen3_tts", "clone_in_context"),
        (DATA / "cosyvoice3" / "checkpoint", "cosyvoice3", "voice_conversion"),
        (KITS / "qwen3_tts" / "checkpoints" / "custom_voice_1p7b", "qwen3_tts", "preset_voice"),
        (KITS / "cosyvoice3" / "model", "cosyvoice3", "voice_conversion"),
        (KITS / "indextts2" / "checkpoint", "indextts2", "emotion_text"),
    ],
)
def test_a_described_model_is_the_loaded_one(sonant, folder, family, can):
    from sonant.catalogue.registry import describe, load_model

    if not folder.is_dir():
        pytest.skip("the conformance kits are not beside the repository")
    assert describe(folder) == load_model(folder).spec
    data = json.loads(sonant("inspect", folder, "--json").text)
    assert data["spec"]["family"] == family
    assert can in data["spec"]["capabilities"]
    assert data["parameters"] > 100_000
    assert data["config"]
    assert not any(file["problem"] for file in data["weights"])
    assert family in sonant("inspect", folder).text


def test_inspection_counts_tensors_without_loading_them(tmp_path):
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "m.safetensors")
    torch.save({"model": {"w": torch.zeros(7, 2), "n": 3}, "list": [torch.zeros(1)]}, tmp_path / "m.pth")
    (tmp_path / "g.onnx").write_bytes(b"graph")
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    (tmp_path / "config.json").write_text('{"a": 1}', encoding="utf-8")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.yaml").write_text("a: !new:os.system [x]\nb: !ref <a>\n", encoding="utf-8")
    assert inspect_folder("x", tmp_path / "plain").config == {"a": ["x"], "b": "<a>"}
    found = inspect_folder("x", tmp_path)
    files = {file.path: file for file in found.weights}
    assert (files["m.safetensors"].tensors, files["m.safetensors"].parameters) == (2, 17)
    assert files["m.safetensors"].dtypes == ("bf16", "f32")
    assert (files["m.pth"].tensors, files["m.pth"].parameters) == (2, 15)
    assert files["g.onnx"].bytes == 5
    assert "no readable safetensors" in files["bad.safetensors"].problem
    assert "expected a file of plain tensors" in files["bad.pt"].problem
    assert found.parameters == 32
    assert found.config == {"a": 1}


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_a_folder_of_no_family_is_told(sonant, tmp_path, command):
    (tmp_path / "empty").mkdir()
    result = sonant(command, "empty", *(["new"] if command == "convert" else []))
    assert result.code == 3
    assert "no checkpoint of a known family" in result.err


def test_convert_says_when_there_is_nothing_to_convert(sonant):
    result = sonant("convert", "builtin", "new")
    assert result.code == 4
    assert "nothing to convert" in result.err


def test_convert_hands_over_to_the_family(sonant, monkeypatch, tmp_path):
    monkeypatch.setattr("sonant.catalogue.registry.find", lambda model: ("cosyvoice3", tmp_path))
    seen = []
    monkeypatch.setattr(
        "sonant.families.cosyvoice3.convert", lambda source, target: seen.append((source, target))
    )
    monkeypatch.setattr("sonant.families.cosyvoice3.tensors_read", lambda path: {})
    assert sonant("convert", "x", "new").text == "new\n"
    assert seen == [(tmp_path, Path("new"))]


class Codec:
    """A codec in miniature: a frame is 100 samples, its tokens are level and sign."""

    def __init__(self, spec):
        self.spec = spec

    def encode_audio(self, audio):
        frames = torch.from_numpy(audio.samples[: len(audio.samples) // 100 * 100]).reshape(-1, 100)
        return torch.stack([(frames.abs().mean(1) * 100).long(), (frames.mean(1) > 0).long()], dim=1)

    def decode_tokens(self, tokens):
        levels = tokens[:, 0].float() / 100 * (tokens[:, 1] * 2 - 1)
        return levels.repeat_interleave(100)


@pytest.fixture
def codec(toy, monkeypatch):
    made = Codec(toy.spec)
    monkeypatch.setattr("sonant.catalogue.registry.load_model", lambda *args, **options: made)
    return made


def test_codec_round_trip_keeps_the_tokens(sonant, codec, tmp_path):
    sound = np.repeat(np.float32([0.5, -0.25, 0.1]), 400)
    Audio(sound, 8000).write(tmp_path / "in.wav")
    result = sonant("codec", "encode", "in.wav", "out.codes", "--model", "toy")
    assert result.code == 0, result.err
    assert "12 frames of 2 tokens" in result.text
    assert sonant("codec", "decode", "out.codes", "back.wav", "--model", "toy").code == 0
    assert np.abs(Audio.read(tmp_path / "back.wav").samples - sound).max() <= 0.0101
    sonant("codec", "encode", "back.wav", "again.codes", "--model", "toy")
    from sonant.readings.codes import Codes

    assert torch.equal(Codes.load(Path("out.codes")).tokens, Codes.load(Path("again.codes")).tokens)


def test_codec_refuses_what_is_not_its_own(sonant, codec, toy, tmp_path):
    from dataclasses import replace

    Audio(np.full(800, 0.5, np.float32), 8000).write(tmp_path / "in.wav")
    sonant("codec", "encode", "in.wav", "out.codes", "--model", "toy")
    codec.spec = replace(toy.spec, fingerprint="other")
    assert "another checkpoint" in sonant("codec", "decode", "out.codes", "a.wav", "--model", "toy").err
    codec.spec = replace(toy.spec, family="other")
    assert sonant("codec", "decode", "out.codes", "a.wav", "--model", "toy").code == 2
    assert sonant("codec", "decode", "in.wav", "a.wav", "--model", "toy").code == 2
    assert sonant("codec", "decode", "out.codes", "a.xyz", "--model", "toy").code == 2


def test_a_model_without_a_codec_says_so(sonant, toy, tmp_path):
    Audio(np.full(800, 0.5, np.float32), 8000).write(tmp_path / "in.wav")
    result = sonant("codec", "encode", "in.wav", "out.codes", "--model", "toy")
    assert result.code == 4
    assert "has no codec" in result.err


def test_measure_prints_figures_problems_and_distance(sonant, tmp_path):
    time = np.arange(24_000) / 24_000
    Audio((0.2 * np.sin(2 * np.pi * 150 * time)).astype(np.float32), 24_000).write(tmp_path / "a.wav")
    Audio((0.2 * np.sin(2 * np.pi * 25 * time)).astype(np.float32), 24_000).write(tmp_path / "b.wav")
    first, second = json.loads(sonant("measure", "a.wav", "b.wav", "--against", "a.wav", "--json").text)
    assert first["pitch"] == pytest.approx(150, abs=3)
    assert first["distance"] == 0
    assert second["distance"] > 5
    assert second["rumble_share"] > 0.5
    text = sonant("measure", "a.wav", "b.wav").text
    assert "rumble_share" in text
    assert "high-pass" in text
    assert sonant("measure", "nowhere.wav").code == 2


def test_a_checkpoint_is_pulled_inspected_and_spoken_with_by_its_name(sonant, monkeypatch, tmp_path):
    data = DATA / "cosyvoice3"
    folder = data / "checkpoint"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with serve(Hub({known("cosyvoice3-0.5b").repository: files})) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert sonant("pull", "cosyvoice3-0.5b").code == 0
    rows = {row["name"]: row for row in json.loads(sonant("models", "--json").text)}
    assert "voice_conversion" in rows["cosyvoice3-0.5b"]["can"]
    assert "cosyvoice3" in sonant("inspect", "cosyvoice3-0.5b").text
    clip = data / "prompt_24k.wav"
    arguments = ("say", "Hi.", "--model", "cosyvoice3-0.5b", "--voice", clip, "--max-frames", 8, "--seed", 1)
    result = sonant(*arguments, "--json", "--receipt", "-o", "a.wav")
    assert result.code == 0, result.err
    assert json.loads(result.text)["seconds"] > 0
    assert sonant("replay", "a.wav.receipt.json").code == 0
    conversion = (
        "say",
        "--source-audio",
        data / "source_16k.wav",
        "--model",
        "cosyvoice3-0.5b",
        "--voice",
        clip,
    )
    assert sonant(*conversion, "-o", "b.wav").code == 0
    assert sonant("convert", "cosyvoice3-0.5b", "converted").code == 0
    assert sonant(*arguments[:3], tmp_path / "converted", *arguments[4:], "-o", "c.wav").code == 0
    assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("base_1p7b", ("--voice", DATA / "qwen3_tts" / "audio" / "ref_b_16k_stereo.wav")),
        ("custom_voice_1p7b", ("--voice", "ryan", "--instruction", "cheerful")),
        ("voice_design_1p7b", ("--instruction", "a deep voice", "--text-layout", "full")),
    ],
)
def test_each_kind_of_qwen3_tts_speaks_streamed_and_whole_alike(sonant, tmp_path, model, flags):
    folder = DATA / "qwen3_tts" / "checkpoints" / model
    if not (folder / "speech_tokenizer").is_dir():
        folder = KITS / "qwen3_tts" / "checkpoints" / model
    if not folder.is_dir():
        pytest.skip("the conformance kits are not beside the repository")
    arguments = (
        "say",
        "Good day.",
        "--model",
        folder,
        *flags,
        "--seed",
        5,
        "--max-frames",
        12,
        "--de-rumble",
        "off",
        "--loudness",
        "off",
    )
    for name, extra in (("whole.wav", ()), ("streamed.wav", ("--stream",))):
        result = sonant(*arguments, *extra, "-o", name)
        assert result.code == 0, result.err
    whole, streamed = (Audio.read(tmp_path / name).samples for name in ("whole.wav", "streamed.wav"))
    assert whole.shape == streamed.shape
    assert np.abs(whole - streamed).max() <= 1 / 32768
