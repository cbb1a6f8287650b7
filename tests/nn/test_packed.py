"""Packed linear layers give what the plain ones give."""

import os

import pytest
import torch
from torch import nn

from sonant.nn import packed

needs_onednn = pytest.mark.skipif(not packed.is_available(), reason="needs an x86 processor and oneDNN")


def filled(inner, outer, *, bias=True, seed=0):
    layer = nn.Linear(inner, outer, bias=bias)
    rng = torch.Generator().manual_seed(seed)
    for tensor in layer.parameters():
        tensor.data = torch.randn(tensor.shape, generator=rng) / inner**0.5
    return layer


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("hint", [1, 512])
@pytest.mark.parametrize("shape", [(1,), (3,), (1, 1), (2, 130), (2, 3, 5)])
def test_a_packed_layer_equals_the_plain_one(shape, hint, bias):
    plain = filled(512, 520, bias=bias)
    quick = packed.packed(plain, rows=hint)
    assert isinstance(quick, packed.PackedLinear)
    x = torch.randn(*shape, 512, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = nn.functional.linear(
            x.double(), plain.weight.double(), None if not bias else plain.bias.double()
        )
        found = quick(x)
    assert found.shape == exact.shape
    assert torch.equal(quick.plain().weight, plain.weight)
    assert (found - exact).abs().max() < 1e-5


@needs_onednn
def test_turned_weights_are_packed_as_they_read():
    plain = filled(600, 512)
    plain.weight.data = plain.weight.data.t().contiguous().t()
    x = torch.randn(2, 600, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (packed.packed(plain, rows=1)(x) - plain(x)).abs().max() < 1e-5


def test_small_and_other_layers_stay_as_they_are():
    small, half = filled(64, 64), filled(512, 512).bfloat16()
    assert packed.packed(small, rows=1) is small
    assert packed.packed(half, rows=1) is half


@needs_onednn
def test_every_large_layer_inside_a_module_is_replaced():
    module = nn.Sequential(filled(512, 512), nn.Sequential(filled(512, 512), nn.GELU()), filled(16, 16))
    packed.pack(module, rows=1)
    kinds = [type(part) for part in module.modules()]
    assert kinds.count(packed.PackedLinear) == 2
    assert kinds.count(nn.Linear) == 1


@needs_onednn
def test_a_packed_network_needs_its_weight_file_no_longer(tmp_path):
    torch.save({"w": torch.ones(512, 512), "b": torch.arange(512.0)}, tmp_path / "weights.pt")
    found = torch.load(tmp_path / "weights.pt", mmap=True, weights_only=True)
    layer = nn.Linear(512, 512, device="meta")
    layer.weight, layer.bias = nn.Parameter(found["w"]), nn.Parameter(found["b"])
    network = nn.Sequential(layer, nn.LayerNorm(512))
    network[1].weight = nn.Parameter(found["b"])
    packed.pack(network, rows=1)
    packed.let_go(network)
    (tmp_path / "weights.pt").write_bytes(bytes(os.path.getsize(tmp_path / "weights.pt")))
    with torch.inference_mode():
        assert torch.equal(network[0](torch.ones(1, 512))[0], 512 + torch.arange(512.0))
    assert torch.equal(network[1].weight, torch.arange(512.0))
