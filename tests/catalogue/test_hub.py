"""Fetching models from a hub: whole, resumable, checked, and clear when something is wrong."""

import json
import sys
import types

import numpy as np
import pytest

from sonant.catalogue.hub import known, local, models_folder, pull, pulled_record
from sonant.errors import CheckpointError, DependencyError, RequestError
from tests.hub_server import COMMIT, Hub, serve

NAME = "qwen3-tts-0.6b-customvoice"
WEIGHTS = np.random.default_rng(0).bytes(300_000)
FILES = {
    "config.json": b'{"model_type": "qwen3_tts"}',
    "model.safetensors": WEIGHTS,
    "speech_tokenizer/config.json": b"{}",
    "README.md": b"# words",
    "demo.MP4": b"film",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    made = Hub({known(NAME).repository: dict(FILES)})
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path / "models"))
    with serve(made) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield made


def fetched(hub):
    return [
        path.rsplit("/", 1)[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path
    ]


def test_a_pulled_model_is_whole_and_recorded(hub):
    heard = []
    folder = pull(NAME, on_file=lambda path, size: heard.append((path, size)))
    assert folder == models_folder() / NAME == local(NAME)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "speech_tokenizer/config.json").read_bytes() == b"{}"
    assert not (folder / "README.md").exists()
    assert ("model.safetensors", 300_000) in heard
    record = pulled_record(folder)
    assert record["commit"] == COMMIT
    assert set(record["sha256"]) == {"config.json", "model.safetensors", "speech_tokenizer/config.json"}


def test_a_second_pull_fetches_nothing(hub):
    pull(NAME)
    hub.requests.clear()
    pull(NAME)
    assert fetched(hub) == []


def test_a_cut_download_goes_on_where_it_stopped(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    hub.cut_after["model.safetensors"] = [120_000, *[0] * 20]  # one good part, then nothing comes any more
    with pytest.raises(CheckpointError, match="goes on where it stopped"):
        pull(NAME)
    assert not (models_folder() / NAME).exists()
    hub.cut_after.clear()
    hub.requests.clear()
    folder = pull(NAME)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [asked for _, path, asked in hub.requests if path.endswith("model.safetensors") and asked]
    assert ranges == ["bytes=120000-"]
    assert sorted(path.name for path in folder.iterdir()) == [
        ".sonant-pull.json", "config.json", "model.safetensors", "speech_tokenizer",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_refused_and_the_next_pull_mends_it(hub, name):
    hub.damaged.add(name)
    with pytest.raises(CheckpointError, match=f"{name}.*arrived damaged"):
        pull(NAME)
    assert not (models_folder() / NAME).exists()
    hub.damaged.clear()
    assert (pull(NAME) / name).read_bytes() == FILES[name]


def test_a_file_that_rotted_on_disk_is_fetched_again(hub):
    path = pull(NAME) / "model.safetensors"
    path.write_bytes(bytes(len(WEIGHTS)))
    hub.requests.clear()
    pull(NAME)
    assert path.read_bytes() == WEIGHTS
    assert "model.safetensors" in fetched(hub)


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_revision_can_be_named(hub, revision):
    assert pulled_record(pull(NAME, revision=revision))["commit"] == COMMIT


def test_an_unknown_revision_repository_name_or_source_is_told(hub, monkeypatch):
    with pytest.raises(CheckpointError, match="at nope on"):
        pull(NAME, revision="nope")
    with pytest.raises(CheckpointError, match="cannot fetch FunAudioLLM"):
        pull("cosyvoice3-0.5b")
    with pytest.raises(CheckpointError, match="Known models"):
        pull("gpt-9")
    with pytest.raises(RequestError, match="modelscope"):
        pull(NAME, source="torrent")


def test_a_hub_that_is_away_is_told(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="Check the network"):
        pull(NAME)


def test_companions_come_under_the_names_that_the_model_reads(hub):
    model = known("indextts2")
    hub.repositories[model.repository] = {"config.yaml": b"version: 2.0"}
    for companion in model.companions:
        hub.repositories[companion.repository] = {name: name.encode() * 300 for name in companion.files} | {
            "other.bin": b"x"
        }
    folder = pull("indextts2")
    for companion in model.companions:
        for remote, place in companion.files.items():
            assert (folder / place).read_bytes() == remote.encode() * 300
    assert not list(folder.rglob("other.bin"))
    del hub.repositories["funasr/campplus"]["campplus_cn_common.bin"]
    with pytest.raises(CheckpointError, match=r"has no campplus_cn_common\.bin"):
        pull("indextts2")


def test_a_name_that_leaves_the_folder_is_refused(hub):
    hub.repositories[known(NAME).repository]["../../evil.bin"] = b"x"
    with pytest.raises(CheckpointError, match="outside its own folder"):
        pull(NAME)


def test_modelscope_is_an_extra(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(DependencyError, match=r"sonant\[modelscope\]"):
        pull(NAME, source="modelscope")


def test_modelscope_fetches_into_the_same_place(hub, monkeypatch):
    def snapshot_download(model_id, *, revision, local_dir):
        assert (model_id, revision) == (known(NAME).repository, "v1")
        with open(f"{local_dir}/config.json", "w", encoding="utf-8") as file:
            json.dump({}, file)

    client = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "modelscope", client)
    folder = pull(NAME, source="modelscope", revision="v1")
    assert folder == local(NAME)
    assert pulled_record(folder)["source"] == "modelscope"
