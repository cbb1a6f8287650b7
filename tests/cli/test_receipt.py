"""Receipts: everything that made a recording, and the same bytes again or the reason why not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sonant.catalogue import registry
from sonant.checkpoints.memory import Footprint
from sonant.cli.speaking import Fitting
from sonant.readings.job import Job
from sonant.request.audio import Audio
from sonant.request.voice import Voice

LOAD = registry.load_model


@pytest.fixture
def kernels(toy, monkeypatch):
    """The toy has precisions, "auto" being int8 on a CPU where there are kernels; kernels(False) takes them
    away. What was loaded is in `kernels.loaded`, and where in `kernels.devices`."""
    family = sys.modules["sonant.families.toy"]
    family.PRECISIONS = ("lossless", "int8")
    family.automatic_precision = lambda path: "int8"

    def switch(are_there):
        monkeypatch.setattr("sonant.native.library", lambda: object() if are_there else None)

    def load(model, *, precision, device, **options):
        switch.loaded.append(precision)
        switch.devices.append(device)
        return toy

    switch.loaded, switch.devices = [], []
    monkeypatch.setattr("sonant.native.path_in_use", lambda: None)
    switch(True)
    monkeypatch.setattr("sonant.catalogue.registry.load_model", load)
    return switch


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


@pytest.mark.parametrize(("are_there", "precision"), [(True, "int8"), (False, "lossless")])
def test_a_receipt_names_what_auto_was_and_a_replay_speaks_in_it(
    sonant, kernels, tmp_path, are_there, precision
):
    kernels(are_there)
    assert sonant("say", "hello there", "--device", "cpu", "--receipt").code == 0
    job = json.loads((tmp_path / "speech.wav.receipt.json").read_text(encoding="utf-8"))["job"]
    assert (job["precision"], job["dtype"]) == (precision, "auto")
    kernels(not are_there)
    assert sonant("replay", "speech.wav.receipt.json").code == 0
    assert kernels.loaded == [precision, precision]


def test_an_old_receipt_that_says_auto_is_told_what_auto_is_now(sonant, kernels, tmp_path):
    assert sonant("say", "hello there", "--device", "cpu", "--receipt").code == 0

    def change(data):
        data["job"]["precision"] = "auto"
        data["output"]["sha256"] = "0" * 64

    edit(tmp_path / "speech.wav.receipt.json", change)
    kernels(False)
    result = sonant("replay", "speech.wav.receipt.json")
    assert result.code == 6
    told = "the receipt names no precision, only auto, which is lossless here"
    assert f"warning: {told}" in result.err
    assert f"What may have changed: {told}" in " ".join(result.err.split()), "the machine is not blamed"


def test_a_narrow_receipt_is_replayed_on_the_cpu_whatever_auto_is_now(sonant, kernels, monkeypatch):
    monkeypatch.setattr("sonant.catalogue.registry.choose_device", lambda name="auto": torch.device("cpu"))
    assert sonant("say", "hello there", "--receipt").code == 0
    elsewhere = {"auto": "cuda"}
    monkeypatch.setattr(
        "sonant.catalogue.registry.choose_device",
        lambda name="auto": torch.device(elsewhere.get(name, name)),
    )
    assert sonant("replay", "speech.wav.receipt.json").code == 0
    assert kernels.loaded == ["int8", "int8"]
    assert kernels.devices == ["auto", "cpu"]


def test_a_precision_that_cannot_be_had_is_no_other(sonant, kernels, monkeypatch):
    assert sonant("say", "hello there", "--device", "cpu", "--receipt").code == 0
    del sys.modules["sonant.families.toy"].PRECISIONS
    monkeypatch.setattr("sonant.catalogue.registry.load_model", LOAD)
    result = sonant("replay", "speech.wav.receipt.json")
    assert result.code == 4
    assert "the recording was spoken in int8, which cannot be had here" in " ".join(result.err.split())


def test_pieces_of_two_precisions_do_not_mix(sonant, kernels):
    def reused():
        said = sonant("say", "hello there\n\nand there", "--device", "cpu", "--resume", "--json")
        assert said.code == 0, said.err
        return json.loads(said.text)["reused_pieces"]

    assert reused() == 0
    kernels(False)
    assert reused() == 0
    kernels(True)
    assert reused() == 2


def test_clips_of_two_precisions_do_not_mix(sonant, kernels, tmp_path):
    (tmp_path / "m.jsonl").write_text('{"text": "hello"}\n{"text": "there"}\n', encoding="utf-8")

    def kept():
        said = sonant("batch", "m.jsonl", "-o", "out", "--device", "cpu", "--json")
        assert said.code == 0, said.err
        return json.loads(said.text)["kept"]

    assert kept() == 0
    assert kept() == 2
    kernels(False)
    assert kept() == 0
    assert kernels.loaded == ["int8", "lossless"]


def test_two_models_of_a_batch_are_planned_once_and_loaded_as_planned(
    sonant, kernels, toy, monkeypatch, tmp_path
):
    family = sys.modules["sonant.families.toy"]
    family.PRECISIONS = ("lossless", "int8", "int4")
    weights = {"full": 8, "lossless": 4, "int8": 2, "int4": 1}
    family.footprint = lambda path, *, device, dtype, precision="full": Footprint(
        weights=weights[precision] * 10**9, loading=0, working=0, utterance=10**8, position=1, positions=50
    )
    # What the first model leaves in memory has no say in a plan that was made before it.
    monkeypatch.setattr("sonant.checkpoints.memory.resident_bytes", lambda: len(kernels.loaded) * 10**9)
    engines = []
    load = registry.load
    monkeypatch.setattr(
        "sonant.catalogue.registry.load",
        lambda *args, **options: engines.append(options) or load(*args, **options),
    )
    rows = [{"text": "hello", "model": "toy-a"}, {"text": "there", "model": "toy-b"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = sonant("batch", "m.jsonl", "-o", "out", "--device", "cpu", "--memory-limit", "1.25GB", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.text)["done"] == 2
    assert kernels.loaded == ["int4", "int4"]
    assert [options["slots"] for options in engines] == [2, 2]
    assert [options["cache_positions"] for options in engines] == [5 * 10**7, 5 * 10**7]
    assert said.err.count("it is loaded in int4") == 2
    assert said.err.count("has room for 2 of 4") == 2


def test_actors_load_where_the_precision_was_chosen(sonant, kernels, monkeypatch, tmp_path):
    told = []

    def say_on_ray(machine, cluster):
        def say_all(model, items):
            told.append(machine.of(items))
            return iter(())

        return say_all

    monkeypatch.setattr("sonant.readings.ray_pool.say_on_ray", say_on_ray)
    (tmp_path / "m.jsonl").write_text('{"text": "hello"}\n', encoding="utf-8")
    for gpus in ("0", "1"):
        sonant("batch", "m.jsonl", "-o", "out", "--ray", "--gpus", gpus)
    assert [(machine.device, machine.precision) for machine in told] == [("cpu", "int8"), ("cuda", "full")]


def test_where_others_speak_auto_is_what_it_is_there(kernels):
    assert Fitting(device="cpu")(Job(text="x", model="toy")).precision == "int8"
    assert Fitting(device="cuda")(Job(text="x", model="toy")).precision == "full"


def test_a_model_of_one_form_keeps_the_word():
    job = Job(text="x")
    assert Fitting()(job) is job
