"""BigVGAN's layers in C against the plain ones."""

import copy

import pytest
import torch
from torch import nn

from sonant import native
from sonant.families.indextts2.native_vocoder import (
    NativeAmpBlock,
    NativeOversampledSnake,
    NativeUpsample,
    use_native,
)
from sonant.families.indextts2.vocoder import AmpBlock, BigVgan, OversampledSnake, kaiser_sinc
from sonant.nn.tap import tapped
from tests.families.indextts2.test_networks import slow_snake

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")


def values(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module, seed=0, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) / parameter[0].numel() ** 0.5
        parameter.data *= 0.3 if parameter.ndim == 1 else scale
    for part in module.modules():
        if isinstance(part, OversampledSnake):
            part.up_filter = kaiser_sinc() * torch.linspace(0.8, 1.2, 12)  # not symmetric
            part.down_filter = kaiser_sinc() * torch.linspace(1.1, 0.9, 12)
    return module.requires_grad_(False)


@pytest.mark.parametrize("length", [1, 2, 7, 96, 97, 300])
@pytest.mark.parametrize("channels", [5, 8, 16, 24, 40])
def test_the_oversampled_activation_in_c_equals_its_definition(length, channels):
    layer = filled(OversampledSnake(channels, "x"))
    x = 3 * values(2, channels, length)
    found = NativeOversampledSnake(native.library(), layer)(x)
    expected = slow_snake(layer.double(), x.double())
    assert (found - expected).abs().max() <= 3e-6 * expected.abs().max()


def test_what_the_kernel_refuses_is_an_error(monkeypatch):
    made = NativeOversampledSnake(native.library(), filled(OversampledSnake(20, "x")))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 0)
    with pytest.raises(ValueError, match="no room for 7 rows of 20 channels"):
        made(values(1, 20, 7))


def test_any_number_of_threads_gives_the_same_bits():
    layer = NativeOversampledSnake(native.library(), filled(OversampledSnake(40, "x")))
    x = values(1, 40, 500)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(layer(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (4, 2), (5, 3), (2, 2), (7, 1)])
def test_a_transposed_convolution_in_c_is_the_one_in_torch(kernel, stride):
    layer = filled(nn.ConvTranspose1d(6, 5, kernel, stride, padding=(kernel - stride) // 2))
    x = values(2, 6, 9)
    found = NativeUpsample(native.library(), layer)(x)
    expected = layer.double()(x.double())
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_a_block_in_c_is_the_plain_one_watched_or_not():
    block = filled(AmpBlock(24, 7, (1, 3, 5), "block"))
    x = values(2, 24, 60)
    expected = block(x)
    quick = NativeAmpBlock(native.library(), block)
    assert (quick(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    seen = {}
    with tapped(lambda name, value: seen.__setitem__(name, value)):
        assert (quick(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert seen["block.activation.5.up"].shape == (2, 24, 120)


def test_the_whole_vocoder_in_c_is_the_plain_one(loaded):
    quick = filled(BigVgan(loaded.parts.vocoder.config), scale=0.4)  # larger weights make chaos of it
    plain = copy.deepcopy(quick)
    use_native(quick, native.library())
    mel = values(2, 80, 7)
    with torch.inference_mode():
        expected = plain(mel)
        assert 0.01 < expected.std() < 0.5
        assert (quick(mel) - expected).abs().max() <= 1e-5
    assert isinstance(loaded.parts.vocoder.resblocks[0], NativeAmpBlock)
