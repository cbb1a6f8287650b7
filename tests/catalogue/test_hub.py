"""Fetching models from a hub: what is read and nothing else, sized first, resumable, checked."""

import json
import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sonant.catalogue import registry
from sonant.catalogue.hub import KNOWN, choose_files, known, local, models_folder
from sonant.catalogue.pulling import plan_pull, pull, pulled_record
from sonant.checkpoints.hub_cache import hub_snapshots, model_name, user_hub_cache
from sonant.errors import CheckpointError, RequestError
from tests.families.indextts2.conftest import build_checkpoint
from tests.hub_server import COMMIT, Hub, serve

DATA = Path(__file__).parents[1] / "data"
NAME = "qwen3-tts-0.6b-customvoice"
WEIGHTS = np.random.default_rng(0).bytes(300_000)
READ = {
    "config.json": b'{"model_type": "qwen3_tts"}',
    "model.safetensors": WEIGHTS,
    "vocab.json": b"{}",
    "merges.txt": b"#version",
    "tokenizer_config.json": b"{}",
    "generation_config.json": b'{"top_k": 50}',
    "speech_tokenizer/config.json": b"{}",
    "speech_tokenizer/model.safetensors": bytes(5_000),
}
FILES = READ | {
    "README.md": b"# words",
    "demo.MP4": b"film",
    "pytorch_model.bin": bytes(70_000),
    "configuration.json": b"{}",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    made = Hub({known(NAME).repository: dict(FILES)})
    monkeypatch.setenv("SONANT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with serve(made) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
        yield made


def fetched(hub):
    return [
        path.rsplit("/", 1)[-1] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path
    ]


def test_a_pulled_model_is_whole_and_recorded_and_nothing_else_is_fetched(hub):
    heard, plans = [], []
    folder = pull(NAME, on_plan=plans.append, on_file=lambda path, size: heard.append((path, size)))
    assert folder == models_folder() / NAME == local(NAME)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*READ, ".sonant-pull.json"}
    assert all((folder / name).read_bytes() == data for name, data in READ.items())
    assert sorted(fetched(hub)) == sorted(name.split("/")[-1] for name in READ)
    assert ("model.safetensors", 300_000) in heard
    record = pulled_record(folder)
    assert record["commit"] == COMMIT
    assert set(record["sha256"]) == set(READ)
    (plan,) = plans
    assert plan.bytes == plan.bytes_to_fetch == sum(map(len, READ.values()))
    assert plan.bytes_left_there == sum(map(len, FILES.values())) - plan.bytes
    told = r": [\d,]+ bytes in 8 files; [\d,]+ bytes that nothing reads stay there; to "
    assert re.match(re.escape(NAME) + told + re.escape(str(folder)), plan.told())


def test_a_second_pull_fetches_nothing(hub):
    pull(NAME)
    hub.requests.clear()
    plans = []
    pull(NAME, on_plan=plans.append)
    assert fetched(hub) == []
    assert plans[0].bytes_to_fetch == 0


def test_the_size_is_told_and_the_disk_asked_before_a_byte_is_fetched(hub, monkeypatch):
    plans = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=200_000))
    with pytest.raises(
        CheckpointError, match=r"needs [\d,]+ bytes more .* 200,000 bytes free.*SONANT_MODELS"
    ):
        pull(NAME, on_plan=plans.append)
    assert plans[0].free == 200_000
    assert fetched(hub) == []
    assert not models_folder().exists()


def test_a_cut_download_goes_on_where_it_stopped(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits before it tries again
    hub.cut_after["model.safetensors"] = [120_000, *[0] * 20]  # one good part, then nothing comes any more
    with pytest.raises(CheckpointError, match="goes on where it stopped"):
        pull(NAME)
    assert not (models_folder() / NAME).exists()
    hub.cut_after.clear()
    hub.requests.clear()
    plans = []
    folder = pull(NAME, on_plan=plans.append)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [asked for _, path, asked in hub.requests if path.endswith("/model.safetensors") and asked]
    assert ranges == ["bytes=120000-"]
    assert plans[0].bytes_to_fetch <= 180_000 + 6_000
    assert not (folder / ".parts").exists()


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
    assert fetched(hub) == ["model.safetensors"]


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_revision_can_be_named(hub, revision):
    assert pulled_record(pull(NAME, revision=revision))["commit"] == COMMIT


def test_an_unknown_revision_repository_name_variant_or_source_is_told(hub):
    with pytest.raises(CheckpointError, match="at nope on"):
        pull(NAME, revision="nope")
    with pytest.raises(CheckpointError, match="cannot fetch FunAudioLLM"):
        pull("cosyvoice3-0.5b")
    with pytest.raises(CheckpointError, match="Known models"):
        pull("gpt-9")
    with pytest.raises(RequestError, match="modelscope"):
        pull(NAME, source="torrent")
    with pytest.raises(RequestError, match="has no variant 'rl'; it has: none"):
        pull(NAME, variant="rl")


def test_a_hub_that_is_away_is_told(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="Check the network"):
        pull(NAME)


def test_a_repository_without_a_needed_file_is_told_before_anything_is_fetched(hub):
    del hub.repositories[known(NAME).repository]["speech_tokenizer/model.safetensors"]
    del hub.repositories[known(NAME).repository]["merges.txt"]
    with pytest.raises(CheckpointError, match=r"has no merges\.txt, speech_tokenizer/model\.safetensors or"):
        pull(NAME)
    assert fetched(hub) == []


@pytest.mark.parametrize("evil", ["../../evil.bin", "speech_tokenizer/../../config.json", "/etc/config.json"])
def test_a_name_that_leaves_the_folder_is_refused(hub, evil):
    # Only names of the allow list are ever written; an unknown repository's are all looked at.
    hub.repositories["ann/tts"] = {**READ, evil: b"{}"}
    with pytest.raises(CheckpointError, match="outside its own folder"):
        pull("ann/tts")
    hub.repositories[known(NAME).repository][evil] = b"x"
    pull(NAME)
    assert not list(models_folder().parent.rglob("evil.bin"))


# Variants


COSY = "cosyvoice3-0.5b"
COSY_FILES = {
    name: name.encode() * 9
    for name in (
        "cosyvoice3.yaml", "llm.pt", "llm.rl.pt", "flow.pt", "hift.pt", "speech_tokenizer_v3.onnx",
        "speech_tokenizer_v3.batch.onnx", "campplus.onnx", "flow.decoder.estimator.fp32.onnx", "config.json",
        "CosyVoice-BlankEN/config.json", "CosyVoice-BlankEN/vocab.json", "CosyVoice-BlankEN/merges.txt",
        "CosyVoice-BlankEN/tokenizer_config.json", "CosyVoice-BlankEN/model.safetensors",
        "asset/dingding.png",
    )
}  # fmt: skip


def test_a_variant_takes_its_own_weights_instead(hub):
    hub.repositories[known(COSY).repository] = COSY_FILES
    folder = pull(COSY, variant="rl")
    there = {path.name for path in folder.rglob("*") if path.is_file()}
    assert "llm.rl.pt" in there
    assert not there & {"llm.pt", "model.safetensors", "speech_tokenizer_v3.batch.onnx", "dingding.png"}
    assert pulled_record(folder)["variant"] == "rl"
    hub.requests.clear()
    pull(COSY)
    assert fetched(hub) == ["llm.pt"]
    assert {"llm.pt", "llm.rl.pt"} <= set(pulled_record(folder)["sha256"])


# Companions and ModelScope


def index_repositories(model):
    own = {
        "config.yaml": b"version: 2.0", "gpt.pth": b"g", "s2mel.pth": b"s", "bpe.model": b"b",
        "wav2vec2bert_stats.pt": b"w", "feat1.pt": b"1", "feat2.pt": b"2", "pinyin.vocab": b"p",
        "qwen0.6bemo4-merge/config.json": b"{}", "qwen0.6bemo4-merge/model.safetensors": b"q",
        "qwen0.6bemo4-merge/tokenizer.json": b"{}", "qwen0.6bemo4-merge/Modelfile": b"FROM .",
        "qwen0.6bemo4-merge/chat_template.jinja": b"System:",
        "codec.pth": b"c", "multilingual_zh_ja_yue_char_del.tiktoken": b"t",
    }  # fmt: skip
    others = {
        companion.repository: {name: name.encode() * 300 for name in companion.files} | {"other.bin": b"x"}
        for companion in model.companions
    }
    return {model.repository: own, **others}


@pytest.mark.parametrize("name", ["indextts2", "indextts2.5"])
def test_companions_come_under_the_names_that_the_model_reads(hub, name):
    model = known(name)
    hub.repositories |= index_repositories(model)
    folder = pull(name)
    for companion in model.companions:
        for remote, place in companion.files.items():
            assert (folder / place).read_bytes() == remote.encode() * 300
    there = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not there & {"other.bin", "pinyin.vocab", "Modelfile"}
    assert {"chat_template.jinja", "model.safetensors"} <= there
    assert ("codec.pth" in there) == ("bpe.model" not in there) == (name == "indextts2.5")
    del hub.repositories["funasr/campplus"]["campplus_cn_common.bin"]
    with pytest.raises(CheckpointError, match=r"has no campplus_cn_common\.bin"):
        pull(name)


def on_modelscope(hub, name):
    """The model's repositories under the names that they have on ModelScope, and nowhere else."""
    model = known(name)
    renamed = {c.repository: c.modelscope for c in model.companions if c.modelscope}
    hub.modelscope |= {renamed.get(key, key): files for key, files in index_repositories(model).items()}
    hub.repositories.clear()
    return model


def test_modelscope_has_all_five_repositories_of_indextts2(hub):
    model = on_modelscope(hub, "indextts2")
    assert {"AI-ModelScope/w2v-bert-2.0", "iic/speech_campplus_sv_zh-cn_16k-common"} < set(hub.modelscope)
    folder = pull("indextts2", source="modelscope")
    for companion in model.companions:
        for remote, place in companion.files.items():
            assert (folder / place).read_bytes() == remote.encode() * 300
    assert pulled_record(folder)["source"] == "modelscope"
    assert not any(path.startswith(("/api/models/", "/facebook")) for _, path, _ in hub.requests)


def test_what_modelscope_lacks_comes_from_the_mirror_and_is_told(hub, caplog):
    model = on_modelscope(hub, "indextts2")
    del hub.modelscope["amphion/MaskGCT"]
    hub.modelscope["nvidia/bigvgan_v2_22khz_80band_256x"].pop("config.json")
    hub.repositories |= index_repositories(model)
    with caplog.at_level(logging.WARNING, logger="sonant"):
        folder = pull("indextts2", source="modelscope")
    assert (folder / "hf_cache/bigvgan/config.json").read_bytes() == b"config.json" * 300
    assert (folder / "hf_cache/semantic_codec_model.safetensors").is_file()
    assert caplog.text.count("from the mirror instead") == 2
    shutil.rmtree(folder)
    hub.repositories.clear()
    with pytest.raises(CheckpointError, match="cannot fetch amphion/MaskGCT"):
        pull("indextts2", source="modelscope")


def test_modelscope_resumes_checks_and_takes_a_revision(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.modelscope[known(NAME).repository] = dict(FILES)
    hub.cut_after["model.safetensors"] = [120_000, *[0] * 20]
    with pytest.raises(CheckpointError, match="goes on where it stopped"):
        pull(NAME, source="modelscope", revision="v1")
    hub.cut_after.clear()
    hub.requests.clear()
    hub.damaged.add("vocab.json")
    with pytest.raises(CheckpointError, match=r"vocab\.json.*arrived damaged"):
        pull(NAME, source="modelscope", revision="v1")
    hub.damaged.clear()
    folder = pull(NAME, source="modelscope", revision="v1")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert "bytes=120000-" in {asked for _, path, asked in hub.requests if path.startswith("/store/")}
    with pytest.raises(CheckpointError, match="at v9 on"):
        pull(NAME, source="modelscope", revision="v9")


# Repositories that are in no list


def test_a_compatible_repository_is_pulled_by_its_name(hub):
    hub.repositories["ann/Qwen3-TTS-ann"] = dict(FILES)
    folder = pull("ann/Qwen3-TTS-ann")
    assert folder == models_folder() / "ann--Qwen3-TTS-ann" == local("ann/Qwen3-TTS-ann")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*READ, ".sonant-pull.json"}


def test_its_kind_is_told_by_its_files(hub):
    hub.repositories["ann/codec"] = {
        "config.json": b'{"model_type": "qwen3_tts_tokenizer_12hz"}', "model.safetensors": b"m", "x.md": b"",
    }  # fmt: skip
    assert {path.name for path in pull("ann/codec").iterdir()} >= {"config.json", "model.safetensors"}
    hub.repositories["ann/cosy"] = COSY_FILES
    assert not (pull("ann/cosy") / "llm.rl.pt").exists()
    hub.repositories["ann/half"] = {name: data for name, data in READ.items() if name != "vocab.json"}
    with pytest.raises(CheckpointError, match=r"looks like qwen3-tts-.*-base but has no vocab\.json"):
        pull("ann/half")
    hub.repositories["ann/llama"] = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"m"}
    with pytest.raises(CheckpointError, match="no checkpoint of a family that Sonant speaks"):
        pull("ann/llama")
    with pytest.raises(CheckpointError, match=r"cannot fetch ann/nothing.*spelled"):
        pull("ann/nothing")


def test_shards_are_fetched_with_their_list(hub):
    files = {name: data for name, data in READ.items() if name != "model.safetensors"}
    shards = {f"model-0000{index}-of-00002.safetensors": b"s" * index for index in (1, 2)}
    hub.repositories["ann/large"] = {**files, **shards, "model.safetensors.index.json": b"{}"}
    there = {path.name for path in pull("ann/large").iterdir()}
    assert {*shards, "model.safetensors.index.json"} <= there
    hub.repositories["ann/both"] = {**READ, **shards, "model.safetensors.index.json": b"{}"}
    assert not any("of-00002" in item.place for item in plan_pull("ann/both").items)


# The cache of Hugging Face's client


def in_cache(repository, files, *, commit=COMMIT, main=COMMIT):
    root = user_hub_cache() / f"models--{repository.replace('/', '--')}"
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text(main, encoding="utf-8")
    identity = Hub({}).identity
    for name, data in files.items():
        blob = root / "blobs" / identity(data)
        blob.write_bytes(data)
        link = root / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return root / "snapshots" / commit


def test_a_model_in_the_users_cache_is_found_by_its_repository_and_by_its_name(hub):
    repository = known(NAME).repository
    with pytest.raises(CheckpointError, match=rf"not on this machine.*sonant pull {NAME}"):
        local(repository)
    older = in_cache(repository, {"config.json": b"{}"}, commit="f" * 40)
    with pytest.raises(CheckpointError, match=r"cache has it without model\.safetensors or"):
        local(repository)
    snapshot = in_cache(repository, READ)
    assert hub_snapshots(user_hub_cache(), repository) == [snapshot, older]
    assert local(repository) == local(NAME) == local(repository.lower()) == snapshot
    assert model_name(snapshot) == "Qwen3-TTS-12Hz-0.6B-CustomVoice"
    assert in_cache("ann/unknown", {"config.json": b"{}"}) == local("ann/unknown")
    folder = pull(NAME)
    assert local(repository) == folder  # what was fetched on purpose goes first


def test_what_the_cache_holds_is_not_fetched_again(hub):
    in_cache(known(NAME).repository, {"model.safetensors": WEIGHTS})
    folder = pull(NAME)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "model.safetensors").is_symlink()
    assert "model.safetensors" not in [
        path.rpartition(f"{COMMIT}/")[2] for _, path, _ in hub.requests if "/resolve/" in path
    ]


def test_a_cached_model_speaks_by_its_repository_name(hub):
    source = DATA / "qwen3_tts" / "checkpoints" / "base_1p7b"
    files = {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    in_cache("Qwen/Qwen3-TTS-12Hz-1.7B-Base", files)
    for name in ("Qwen/Qwen3-TTS-12Hz-1.7B-Base", "qwen3-tts-1.7b-base"):
        spec = registry.load_model(name, device="cpu", strict=True).spec
        assert spec.name == "Qwen3-TTS-12Hz-1.7B-Base"
        assert spec.fingerprint == registry.describe(source).fingerprint
    assert fetched(hub) == []


def cached_by_the_client(hub, repository, **given):
    """The folder in the user's cache as Hugging Face's own client makes it."""
    import os

    from huggingface_hub import snapshot_download

    endpoint, cache = os.environ["HF_ENDPOINT"], user_hub_cache()
    return Path(snapshot_download(repository, endpoint=endpoint, cache_dir=cache, max_workers=1, **given))


def test_a_cache_that_the_client_made_is_read_as_it_is(hub):
    repository = known(NAME).repository
    cached_by_the_client(hub, repository, allow_patterns=["*.json"])
    with pytest.raises(CheckpointError, match=r"cache has it without model\.safetensors or .*, merges\.txt"):
        local(NAME)
    folder = cached_by_the_client(hub, repository)
    assert local(NAME) == local(repository) == folder
    assert (folder / "model.safetensors").is_symlink()
    hub.requests.clear()
    pulled = pull(NAME)
    assert {path.name for path in pulled.iterdir()} >= {"model.safetensors", "speech_tokenizer"}
    assert fetched(hub) == []


def test_five_cached_repositories_make_one_model(hub, tmp_path):
    """IndexTTS2 and its auxiliary models, each cached by the client from a repository that holds more."""
    whole = build_checkpoint(tmp_path / "whole")
    files = {
        path.relative_to(whole).as_posix(): path.read_bytes() for path in whole.rglob("*") if path.is_file()
    }
    places = {
        "hf_cache/semantic_codec_model.safetensors": ("amphion/MaskGCT", "semantic_codec/model.safetensors")
    }
    for path in files:
        head, _, rest = path.removeprefix("hf_cache/").partition("/")
        if path.startswith("hf_cache/w2v-bert"):
            places[path] = "facebook/w2v-bert-2.0", rest
        elif path.startswith("hf_cache/bigvgan"):
            places[path] = "nvidia/bigvgan_v2_22khz_80band_256x", rest
        elif path.startswith("hf_cache/campplus"):
            places[path] = "funasr/campplus", head
        else:
            places.setdefault(path, ("IndexTeam/IndexTTS-2", path))
    hub.repositories = {}
    for path, (repository, name) in places.items():
        hub.repositories.setdefault(repository, {"README.md": b"words"})[name] = files[path]
    folders = {name: cached_by_the_client(hub, name) for name in hub.repositories}
    assert len(folders) == 5
    hub.requests.clear()
    for name in ("IndexTeam/IndexTTS-2", "indextts2"):
        family, folder = registry.find(name)
        assert (family, folder) == ("indextts2", folders["IndexTeam/IndexTTS-2"])
    assert registry.load_model("indextts2", device="cpu", strict=True).spec.name == "IndexTTS2"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("set_to", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
    ],
)
def test_the_cache_is_where_its_client_keeps_it(monkeypatch, set_to, expected):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    assert str(user_hub_cache()) == expected


# The allow lists


@pytest.mark.parametrize(
    ("there", "items", "chosen", "missing"),
    [
        (["a", "b"], ["a"], ["a"], []),
        (["b"], ["a|b"], ["b"], []),
        (["a", "b"], ["a|b"], ["a"], []),
        (["a"], ["a+b|c"], [], ["a and b or c"]),
        (["a", "c"], ["a+b|c"], ["c"], []),
        ([], ["a?"], [], []),
        (["a"], ["a+b?"], [], []),
        (["x-1", "x-2", "y"], ["x-*"], ["x-1", "x-2"], []),
        (["A"], ["a"], [], ["a"]),
    ],
)
def test_an_allow_list(there, items, chosen, missing):
    assert choose_files(there, items) == (chosen, missing)


def test_names_and_repositories_are_distinct():
    assert len({model.name for model in KNOWN}) == len({model.repository for model in KNOWN}) == len(KNOWN)


def test_the_record_of_another_tool_is_no_record(tmp_path):
    (tmp_path / ".sonant-pull.json").write_text(json.dumps([1]), encoding="utf-8")
    assert pulled_record(tmp_path) == {}
