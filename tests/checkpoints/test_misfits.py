"""Weights that fit nowhere: one error that a person can read, whichever file they are in and however many."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sonant.catalogue import registry
from sonant.checkpoints.config import from_dict
from sonant.checkpoints.modules import load_strict
from sonant.errors import CheckpointError, ConfigError, few
from tests.families.indextts2.conftest import build_checkpoint

DATA = Path(__file__).parents[1] / "data"
FILES = {
    "qwen3_tts": ("model.safetensors", "speech_tokenizer/model.safetensors"),
    "cosyvoice3": ("llm.pt", "flow.pt", "hift.pt"),
    "indextts2": (
        "gpt.pth", "s2mel.pth", "hf_cache/semantic_codec_model.safetensors",
        "hf_cache/w2v-bert-2.0/model.safetensors", "hf_cache/campplus_cn_common.bin",
        "hf_cache/bigvgan/bigvgan_generator.pt", "qwen0.6bemo4-merge/model.safetensors",
    ),
}  # fmt: skip
MISFITS = {
    "other names": lambda name, tensor: (f"stranger.{name}", tensor),
    "one dimension more": lambda name, tensor: (name, tensor[None].clone()),
    "one row more": lambda name, tensor: (name, torch.cat((tensor, tensor[:1])) if tensor.ndim else tensor),
    "whole numbers": lambda name, tensor: (name, tensor.to(torch.int32)),
    "empty, of other names": lambda name, tensor: (f"stranger.{name}", torch.zeros(0)),
    "empty": lambda name, tensor: (name, torch.zeros(0)),
    "no rows": lambda name, tensor: (name, tensor[:0].clone() if tensor.ndim else tensor[None]),
    "single numbers": lambda name, tensor: (name, torch.zeros(())),
}
CASES = [
    (family, name, misfit)
    if (name, misfit)
    in (("gpt.pth", "one row more"), ("hift.pt", "empty"), ("model.safetensors", "other names"))
    else pytest.param(family, name, misfit, marks=pytest.mark.slow)
    for family, names in FILES.items()
    for name in names
    for misfit in MISFITS
]


@dataclass(frozen=True)
class Sizes:
    """A config of one number."""

    width: int


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A folder with one for each family. Live models and errors map its files: none is written again."""
    root = tmp_path_factory.mktemp("misfits")
    shutil.copytree(DATA / "qwen3_tts" / "checkpoints" / "base_1p7b", root / "qwen3_tts")
    shutil.copytree(DATA / "cosyvoice3" / "checkpoint", root / "cosyvoice3")
    (root / "indextts2").mkdir()
    build_checkpoint(root / "indextts2")
    return root


def _changed(tree, change):
    """A table of tensors, or tables of them by part, with every name and tensor as `change` gives it."""
    if any(isinstance(value, dict) for value in tree.values()):
        return {
            key: _changed(value, change) if isinstance(value, dict) else value for key, value in tree.items()
        }
    return dict(change(key, value) for key, value in tree.items() if isinstance(value, torch.Tensor))


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(("family", "name", "misfit"), CASES)
def test_a_file_that_misfits_everywhere_is_told_in_a_few_lines(released, tmp_path, family, name, misfit):
    folder = shutil.copytree(released / family, tmp_path / family, copy_function=os.link)
    path = folder / name
    is_table = path.suffix == ".safetensors"
    tensors = load_file(path) if is_table else torch.load(path, weights_only=True)
    path.unlink()
    (save_file if is_table else torch.save)(_changed(tensors, MISFITS[misfit]), path)
    with pytest.raises(CheckpointError) as caught:
        registry.load_model(folder, device="cpu")
    told = str(caught.value)
    assert path.name in told or path.parent.name in told  # the classifier is told by its folder
    assert len(told) < 4_000
    assert len(told.splitlines()) <= 34


def test_hundreds_of_misfits_are_counted_and_the_first_are_named():
    module = nn.ModuleDict({f"layer{index:03}": nn.Linear(2, 2, bias=False) for index in range(300)})
    shaped = {f"layer{index:03}.weight": torch.zeros(3, 2) for index in range(150)}
    strange = {f"other{index:03}": torch.zeros(1) for index in range(200)} | {"x" * 5_000: torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_strict(module, shaped | strange, where="weights.pt")
    told = str(caught.value)
    for line in (
        "150 missing", "layer150.weight", "layer155.weight", "and 144 more",
        "201 unexpected", "other000", "and 195 more",
        "150 wrong shape", "layer000.weight: found (3, 2), expected (2, 2)",
    ):  # fmt: skip
        assert line in told
    assert "layer156.weight" not in told
    assert len(told) < 2_000


def test_a_config_of_another_kind_is_told_in_one_readable_line():
    with pytest.raises(ConfigError) as caught:
        from_dict(Sizes, {f"knob{index}": index for index in range(300)} | {"width": ["x" * 90] * 90})
    told = str(caught.value)
    assert "unknown key 'knob0'; unknown key 'knob1'" in told
    assert "and 295 more" in told
    assert len(told) < 800


def test_few_lines_are_told_as_they_are():
    assert few(["a", "b"]) == ["a", "b"]
    assert few(list("abcdef")) == list("abcdef")
    assert few(list("abcdefgh")) == [*"abcdef", "and 2 more"]
    assert few(["x" * 201]) == ["x" * 200 + "..."]
