"""What a checkpoint holds beyond what inference reads stops nobody, is told once, and is kept nowhere."""

import json
import logging
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sonant.catalogue import registry
from sonant.catalogue.inspection import inspect_folder
from sonant.checkpoints.files import weight_files
from sonant.checkpoints.modules import load_strict, used
from sonant.checkpoints.unread import told_unread
from sonant.errors import CheckpointError
from sonant.families import qwen3_tts
from tests.families.indextts2.conftest import build_checkpoint

DATA = Path(__file__).parents[1] / "data"
CPU = torch.device("cpu")
HEAD = torch.zeros(1000, 100)  # 400,000 bytes that only training reads


def _qwen3_tts(folder):
    shutil.copytree(DATA / "qwen3_tts" / "checkpoints" / "base_1p7b", folder)
    for path in (folder / "model.safetensors", folder / "speech_tokenizer" / "model.safetensors"):
        save_file({**load_file(path), "training.head": HEAD}, path)
    return 2


def _cosyvoice3(folder):
    shutil.copytree(DATA / "cosyvoice3" / "checkpoint", folder)
    for name in ("llm", "flow", "hift"):
        tensors = torch.load(folder / f"{name}.pt", weights_only=True)
        torch.save({**tensors, "training.head": HEAD, "epoch": 3, "step": 9}, folder / f"{name}.pt")
    return 3


def _indextts2(folder):
    folder.mkdir()
    build_checkpoint(folder)
    states = {"state": {str(index): {"exp_avg": HEAD} for index in range(3)}, "lr": 0.1}
    gpt = torch.load(folder / "gpt.pth", weights_only=True)
    torch.save({"model": {**gpt, "training.head": HEAD}, "optimizer": states}, folder / "gpt.pth")
    s2mel = torch.load(folder / "s2mel.pth", weights_only=True)
    torch.save({**s2mel, "optimizer": states, "iters": 5}, folder / "s2mel.pth")
    for name in ("campplus_cn_common.bin", "bigvgan/bigvgan_generator.pt"):
        path = folder / "hf_cache" / name
        data = torch.load(path, weights_only=True)
        data.get("generator", data)["training.head"] = HEAD
        torch.save(data, path)
    path = folder / "hf_cache" / "semantic_codec_model.safetensors"
    save_file({**load_file(path), "training.head": HEAD}, path)
    return 4


PLAIN = {"qwen3_tts": DATA / "qwen3_tts/checkpoints/base_1p7b", "cosyvoice3": DATA / "cosyvoice3/checkpoint"}


@pytest.fixture(scope="module", params=[_qwen3_tts, _cosyvoice3, _indextts2])
def swollen(request, tmp_path_factory):
    """A folder whose files hold more than is read, the number of such files, and the folder as released."""
    folder = tmp_path_factory.mktemp("swollen") / "checkpoint"
    files = request.param(folder)
    plain = PLAIN.get(request.param.__name__.strip("_"))
    if plain is None:
        plain = folder.with_name("plain")
        plain.mkdir()
        build_checkpoint(plain)
    return folder, files, plain


def test_it_loads_with_one_warning_by_name_and_size(swollen, caplog):
    folder, files, _ = swollen
    with caplog.at_level(logging.WARNING, logger="sonant"):
        registry.load_model(folder, device="cpu")
    (record,) = (record for record in caplog.records if "nothing reads" in record.getMessage())
    assert record.getMessage().count("training.head (0.4 MB)") == files
    assert "optimizer" not in record.getMessage()  # beside the weights, as in the release


def test_strict_makes_it_an_error_that_says_how_to_go_on(swollen):
    with pytest.raises(CheckpointError, match=r"(?s)training\.head \(0\.4 MB\).*--strict"):
        registry.load_model(swollen[0], device="cpu", strict=True)


def test_the_release_as_it_is_loads_strictly_without_a_word(swollen, caplog):
    with caplog.at_level(logging.WARNING, logger="sonant"):
        registry.load_model(swollen[2], device="cpu", strict=True)
    assert not caplog.records


def test_memory_and_parameters_are_those_of_the_release(swollen):
    folder, _, plain = swollen
    swollen_read, read = registry.numbers_read(folder), registry.numbers_read(plain)
    assert swollen_read == read
    inspections = [inspect_folder("x", path, read) for path in (folder, plain)]
    assert inspections[0].parameters == inspections[1].parameters == sum(read.values())
    family, _ = registry.find(plain)
    package = import_module(f"sonant.families.{family}")
    needs = [package.footprint(path, device=CPU, dtype=torch.float32) for path in (folder, plain)]
    assert needs[0] == needs[1]


def test_what_is_read_of_safetensors_is_enough(tmp_path):
    folder = tmp_path / "checkpoint"
    _qwen3_tts(folder)
    for name, tensors in qwen3_tts.tensors_read(folder).items():
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
    assert "training.head" not in load_file(folder / "model.safetensors")
    registry.load_model(folder, device="cpu", strict=True)


def test_a_converted_folder_holds_only_what_is_read(swollen, tmp_path, caplog):
    folder, _, plain = swollen
    if registry.find(plain)[0] == "qwen3_tts":
        pytest.skip("its release is safetensors already")
    with caplog.at_level(logging.WARNING, logger="sonant"):
        registry.convert(folder, tmp_path / "lean")
    assert sum("nothing reads" in record.getMessage() for record in caplog.records) == 1
    for path in (tmp_path / "lean").rglob("*.safetensors"):
        names = load_file(path).keys()
        assert not any("training" in name or "optimizer" in name for name in names)
    registry.load_model(tmp_path / "lean", device="cpu", strict=True)
    with pytest.raises(CheckpointError, match=r"training\.head"):
        registry.convert(folder, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_a_file_that_is_never_opened_is_told_and_counts_nothing(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(DATA / "cosyvoice3" / "checkpoint", folder)
    torch.save({"x": HEAD}, folder / "flow.old.pt")
    found = inspect_folder("cosyvoice3", folder, registry.numbers_read(folder))
    assert {file.path for file in found.weights if not file.is_opened} == {"flow.old.pt"}
    assert found.parameters == sum(registry.numbers_read(folder).values())


def test_a_long_list_is_cut_and_its_whole_size_is_told():
    told = told_unread({"x.pth": {f"state.{index}": 1_000_000 + index for index in range(20)}})
    assert told.startswith("x.pth holds 20 (20.0 MB): state.19 (1.0 MB), state.18")
    assert told.endswith("and 14 more")


def test_a_missing_tensor_is_an_error_however_many_are_too_many():
    module = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"(?s)1 missing.*bias.*1 unexpected.*stray"):
        load_strict(module, {"weight": torch.zeros(2, 2), "stray": torch.zeros(1)})


def test_outside_of_a_collection_each_file_is_logged(caplog):
    with caplog.at_level(logging.WARNING, logger="sonant"):
        load_strict(nn.Linear(1, 1, bias=False), {"weight": torch.zeros(1, 1), "x": HEAD}, where="a.pt")
    assert "a.pt holds 1 (0.4 MB): x (0.4 MB)" in caplog.text


def test_both_halves_of_a_weight_norm_count_as_their_weight():
    module = nn.Conv1d(2, 3, 1)
    for one, two in (("weight_g", "weight_v"), ("parametrizations.weight.original0",) * 2):
        two = two.replace("original0", "original1")
        tensors = {f"m.{one}": HEAD, f"m.{two}": HEAD, "m.bias": HEAD, "m.extra": HEAD, "skip": HEAD}
        found = used(module, tensors, rules=((r"^m\.", ""),), ignored=("^skip$",))
        assert found.keys() == {f"m.{one}", f"m.{two}", "m.bias"}


@pytest.mark.parametrize(
    "index",
    [
        '{"weight_map": {"a": "../../x.safetensors"}}',
        '{"weight_map": {"a": "/etc/x.safetensors"}}',
        "{}",
        "[",
    ],
)
def test_a_list_of_shards_that_leads_elsewhere_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError):
        weight_files(tmp_path)


def test_weights_in_shards_are_the_same_model(tmp_path):
    source = DATA / "qwen3_tts" / "checkpoints" / "base_1p7b"
    folder = tmp_path / "sharded"
    shutil.copytree(source, folder)
    for part in (folder, folder / "speech_tokenizer"):
        tensors = load_file(part / "model.safetensors")
        names = [f"model-{index + 1:05}-of-00003.safetensors" for index in range(3)]
        where = {key: names[index % 3] for index, key in enumerate(sorted(tensors))}
        for name in names:
            save_file({key: t for key, t in tensors.items() if where[key] == name}, part / name)
        (part / "model.safetensors").unlink()
        (part / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    whole, cut = (registry.load_model(path, device="cpu", strict=True) for path in (source, folder))
    left, right = whole.network.state_dict(), cut.network.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert sum(registry.numbers_read(source).values()) == sum(registry.numbers_read(folder).values())
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"missing in .*model-00002-of-00003"):
        registry.load_model(folder, device="cpu")
