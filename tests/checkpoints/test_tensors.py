"""Files and configs that make no network: one error of Sonant's own, never torch's."""

import _codecs
import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sonant.checkpoints.files import read_pickle, read_tensors, write_tensors
from sonant.checkpoints.modules import build, fold_weight_norm, load_strict, own_table, without_training
from sonant.checkpoints.unread import collecting_unread
from sonant.errors import CheckpointError, ConfigError


def test_every_kind_of_misfit_is_listed_at_once():
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tensors = {
        "a.weight": torch.zeros(2, 2, dtype=torch.int64),
        "a.bias": torch.zeros(3),
        "b.weight": torch.zeros(2, 2),
        "c.bias": torch.zeros(2),
    }
    with pytest.raises(CheckpointError) as caught:
        load_strict(module, tensors, where="file")
    for line in ("1 missing", "b.bias", "1 unexpected", "c.bias", "a.bias: found (3,)", "a.weight: found"):
        assert line in str(caught.value)
    assert "torch.int64, expected torch.float32" in str(caught.value)


def test_whole_numbers_are_cast_nowhere_and_floats_are():
    module = nn.Linear(2, 2)
    load_strict(module, {"weight": torch.ones(2, 2).bfloat16(), "bias": torch.ones(2)}, dtype=torch.float32)
    assert module.weight.dtype == torch.float32


def test_sizes_that_no_network_can_have():
    with pytest.raises(ConfigError, match="make no network"):
        build(lambda: nn.Embedding(-1, 4))


@pytest.mark.parametrize(
    ("gain", "direction"),
    [
        (torch.ones(3, 1), torch.ones(2, 4)),  # another length
        (torch.ones(1, 4), torch.ones(2, 4)),  # a norm of the other dimension
        (torch.tensor(1.0), torch.ones(2, 4)),  # of all of them
        (torch.ones(1), torch.tensor(1.0)),
        (torch.ones(2, 1), torch.ones(2, 0)),
        (torch.ones(0), torch.ones(0)),
        (torch.ones(2, 1, dtype=torch.int32), torch.ones(2, 4, dtype=torch.int32)),
        (torch.ones(2, 1), torch.ones(2, 4, dtype=torch.int32)),
    ],
)
def test_what_is_no_weight_and_its_norm_stops_a_load_only_where_it_is_read(gain, direction):
    pair = {"x.weight_g": gain, "x.weight_v": direction}
    folded = fold_weight_norm({**pair, "weight": torch.ones(2, 4), "bias": torch.ones(2)})
    assert folded.keys() >= pair.keys()
    load_strict(nn.Linear(4, 2), folded)
    with pytest.raises(CheckpointError, match=r"1 missing:\n    x\.weight\n(?s:.*)x\.weight_g \("):
        load_strict(nn.ModuleDict({"x": nn.Linear(4, 2, bias=False)}), folded)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_a_narrow_weight_and_its_norm_are_multiplied_out_wide(narrow):
    gain, direction = torch.rand(3, 1, 1).to(narrow), torch.randn(3, 4, 5).to(narrow)
    wide = fold_weight_norm({"x.weight_g": gain.float(), "x.weight_v": direction.float()})
    for one, other in ((gain, direction), (gain.float(), direction), (gain, direction.float())):
        found = fold_weight_norm({"x.weight_g": one, "x.weight_v": other})
        assert torch.equal(found["x.weight"], wide["x.weight"])


def test_written_tensors_are_read_back_and_large_ones_are_where_torch_puts_its_own(tmp_path):
    tensors = {
        "a.odd": torch.arange(3, dtype=torch.int64), "b.half": torch.randn(1024, 7).bfloat16(),
        "c.flag": torch.tensor(True), "d.turned": torch.randn(64, 48).t(), "e.none": torch.zeros(0, 4),
        "f.number": torch.tensor(2.5, dtype=torch.float64), "g.byte": torch.arange(5, dtype=torch.uint8),
    }  # fmt: skip
    write_tensors(tmp_path / "x.safetensors", tensors, {"format": "test"})
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert all(found[key].dtype == tensors[key].dtype for key in tensors)
    assert all(t.data_ptr() % 64 == 0 for t in found.values() if t.numel() and t.nbytes % 64 == 0)


def test_small_weights_are_moved_to_where_products_round_alike(tmp_path):
    save_file({"weight": torch.randn(5, 3), "bias": torch.randn(5)}, tmp_path / "x.safetensors")
    mapped = load_file(tmp_path / "x.safetensors")
    assert any(tensor.data_ptr() % 64 for tensor in mapped.values())
    module = nn.Linear(3, 5)
    load_strict(module, mapped)
    assert not any(tensor.data_ptr() % 64 for tensor in module.state_dict().values())


def test_half_of_a_weight_and_its_norm_that_nobody_reads_stops_nobody():
    tensors = {"d.weight_g": torch.ones(2, 1), "weight": torch.ones(2, 2), "bias": torch.ones(2)}
    load_strict(nn.Linear(2, 2), fold_weight_norm(tensors))
    with pytest.raises(CheckpointError, match=r"1 missing:\n    weight\n  1 unexpected:\n    weight_g"):
        load_strict(nn.Linear(2, 2), fold_weight_norm({"weight_g": torch.ones(2, 1), "bias": torch.ones(2)}))


def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path):
    """As a training script leaves them, which keeps its best loss."""
    noted = {"best": np.float64(0.5), "step": np.int64(7), "rate": np.float32(0.25), "done": np.bool_(True)}
    torch.save({"model": {"w": torch.ones(2)}, **noted}, tmp_path / "x.pth")
    found = read_pickle(tmp_path / "x.pth")
    assert {name: found[name] for name in noted} == noted
    assert read_pickle(tmp_path / "x.pth", device="meta")["model"]["w"].shape == (2,)


def test_wrappers_are_seen_through_to_the_innermost_and_tensors_beside_them_told():
    weights, head = {"w": torch.ones(2)}, torch.zeros(3)
    assert own_table(weights) is weights
    with collecting_unread() as unread:
        saved = {
            "state_dict": {"generator": weights, "best": head},
            "ema": {"w": head},
            "head": head,
            "step": 1,
        }
        assert own_table(saved, "generator", where="x.pt") is weights
    assert unread == {"x.pt": {"best": 12, "head": 12}}
    plain = {"model": {}, **weights}
    assert own_table(plain) is plain, "an empty table is none"
    knot = {}
    knot["model"] = knot
    assert own_table(knot) is knot, "ends"


def test_two_names_that_training_tells_apart_are_not_chosen_from():
    one, other = torch.ones(2), torch.zeros(2)
    assert without_training([("module.w", one), ("a._orig_mod.module.b", other)]) == {"w": one, "a.b": other}
    for names in (("module.w", "w"), ("a._orig_mod.b", "a.b"), ("w", "w")):
        with pytest.raises(CheckpointError, match=rf"two tensors of x\.pt map to '{names[1]}'"):
            without_training([(names[0], one), (names[1], other)], "x.pt")


def test_an_object_that_would_run_code_is_named(tmp_path):
    torch.save({"w": torch.ones(2), "args": argparse.Namespace(lr=1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"it holds a argparse\.Namespace.*save the tensors alone"):
        read_pickle(tmp_path / "x.pth")


class Made:
    """An object that a pickle makes by a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call",
    [
        (np.float64(0).__reduce__()[0], 1, 2), (np.float64(0).__reduce__()[0],), (np.dtype, "zz"),
        (_codecs.encode, 1), (_codecs.encode, "a", "nonsense"),
    ],
)  # fmt: skip
def test_calls_that_make_no_number_are_one_error(tmp_path, call):
    torch.save({"w": torch.ones(2), "x": Made(*call)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="was refused"):
        read_pickle(tmp_path / "x.pth")


@pytest.mark.parametrize("read", [read_pickle, read_tensors])
def test_a_pointer_in_the_place_of_the_file_is_told(tmp_path, read):
    """As `git clone` leaves it without Git LFS."""
    (tmp_path / "x").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n")
    with pytest.raises(CheckpointError, match="pointer of Git LFS"):
        read(tmp_path / "x")


def test_weights_that_another_program_has_packed_are_told(tmp_path):
    tensors = {"weight": torch.zeros(4, 1, dtype=torch.uint32), "bias": torch.zeros(4)}
    with pytest.raises(CheckpointError, match="another program packs them"):
        load_strict(nn.Linear(4, 4), tensors)
