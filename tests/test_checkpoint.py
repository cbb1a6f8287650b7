"""Files and configs that make no network: one error of Sonant's own, never torch's."""

import pytest
import torch
from torch import nn

from sonant.checkpoint import build, fold_weight_norm, load_strict
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


def test_a_weight_and_its_norm_of_different_shapes():
    with pytest.raises(CheckpointError, match="no weight and its norm"):
        fold_weight_norm({"x.weight_g": torch.ones(3, 1), "x.weight_v": torch.ones(2, 4)})
