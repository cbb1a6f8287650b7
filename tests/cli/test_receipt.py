"""Receipts: everything that made a recording, and the same bytes again or the reason why not."""

import json
from pathlib import Path

import numpy as np
import pytest

from sonant.request.audio import Audio
from sonant.request.voice import Voice


@pytest.fixture
def receipt(sonant, toy, tmp_path):
    result = sonant("say", "hello there", "--receipt", "--json", "--temperature", "0.9")
    assert result.code == 0
    assert json.loads(result.text)["receipt"] == "speech.wav.receipt.json"
    return tmp_path / "speech.wav.receipt.json"


def edit(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_receipt_names_all_that_went_in_and_came_out(receipt):
    data = json.loads(receipt.read_text(encoding="utf-8"))
    assert data["job"]["text"] == "hello there"
    assert data["job"]["seed"] == data["seed"]
    assert data["job"]["sampling"] == {"temperature": 0.9}
    assert len(data["inputs"]["text"]) == 64
    assert data["model"] == {"family": "toy", "name": "toy", "fingerprint": "toy"}
    assert data["voice"] == {"name": "ann"}
    assert data["versions"]["torch"]
    assert len(data["output"]["sha256"]) == 64


def test_a_replay_makes_the_same_bytes(sonant, receipt, tmp_path):
    result = sonant("replay", receipt)
    assert result.code == 0, result.err
    assert "the same bytes as speech.wav" in result.text
    assert (tmp_path / "speech.replay.wav").read_bytes() == (tmp_path / "speech.wav").read_bytes()


@pytest.mark.parametrize("flags", [("--resume",), ("--stream", "-o", "x.mp3"), ("--loudness", "-25")])
def test_other_ways_to_speak_replay_too(sonant, toy, tmp_path, flags):
    assert sonant("say", "hello there\n\nand there", "--receipt", "--seed", 3, *flags).code == 0
    (receipt,) = tmp_path.glob("*.receipt.json")
    result = sonant("replay", receipt)
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data["job"].update(text="hello you"), "the text has another content"),
        (lambda data: data["model"].update(fingerprint="other"), "the model is toy toy, was toy other"),
        (lambda data: data["voice"].update(name="bob"), "the voice is ann, was bob"),
    ],
)
def test_a_changed_input_is_named(sonant, receipt, change, words):
    edit(receipt, change)
    result = sonant("replay", receipt)
    assert result.code == 2
    assert words in result.err


def test_a_changed_clip_is_named(sonant, toy, tmp_path, monkeypatch):
    capabilities = toy.spec.capabilities | {"clone", "emotion_audio"}
    toy.spec = type(toy.spec)(**{**vars(toy.spec), "capabilities": capabilities})

    def encode_voice(audio, transcript):
        import torch

        return Voice(family="toy", fingerprint="toy", tensors={"mean": torch.tensor(audio.samples[:4])})

    toy.encode_voice = encode_voice
    rng = np.random.default_rng(1)
    for name in ("ann.wav", "sad.wav"):
        Audio(rng.uniform(-0.5, 0.5, 8000).astype(np.float32), 8000).write(tmp_path / name)
    arguments = ("say", "hello", "--voice", "ann.wav", "--emotion-audio", "sad.wav", "--receipt")
    assert sonant(*arguments).code == 0
    receipt = tmp_path / "speech.wav.receipt.json"
    assert sonant("replay", receipt).code == 0
    for name in ("ann.wav", "sad.wav"):
        Audio(rng.uniform(-0.5, 0.5, 8000).astype(np.float32), 8000).write(tmp_path / name)
    result = sonant("replay", receipt)
    assert result.code == 2
    assert "the emotion audio has another content" in result.err
    assert "the voice is ann" in result.err
    (tmp_path / "sad.wav").unlink()
    assert "sad.wav" in sonant("replay", receipt).err


def test_another_result_is_an_error_that_names_versions(sonant, receipt):
    def change(data):
        data["versions"]["torch"] = "1.0"
        data["output"]["sha256"] = "0" * 64

    edit(receipt, change)
    result = sonant("replay", receipt)
    assert result.code == 6
    assert "torch 1.0 ->" in result.err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "sonant-receipt-1"}', "\x00"])
def test_a_file_that_is_no_receipt_is_refused(sonant, tmp_path, content):
    Path(tmp_path / "x.json").write_text(content, encoding="utf-8")
    result = sonant("replay", "x.json")
    assert result.code == 2
    assert "is no receipt" in result.err
