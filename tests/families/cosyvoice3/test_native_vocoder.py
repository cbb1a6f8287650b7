"""The vocoder's layers in C against the plain ones."""

import pytest
import torch

from sonant import native
from sonant.families.cosyvoice3 import weights
from sonant.families.cosyvoice3.native_vocoder import (
    NativeCausalConv,
    NativeResidualBlock,
    upsample_rows,
    use_native,
)
from sonant.families.cosyvoice3.vocoder import ResidualBlock, Upsample
from sonant.nn.native_conv import rows_of

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")


def filled(module, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=rng) / parameter[0].numel() ** 0.5
    return module.requires_grad_(False)


@pytest.mark.parametrize(("kernel", "rate"), [(16, 8), (11, 5), (7, 3), (3, 4), (1, 2), (4, 1)])
def test_a_convolution_of_repeated_steps_needs_no_repetition(kernel, rate):
    layer = filled(Upsample(6, 5, kernel, rate))
    x = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(1))
    found, past = NativeCausalConv(upsample_rows(native.library(), layer))(x)
    expected = layer.double()(x.double())[0]
    assert past is None
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("channels", [12, 64])
def test_a_residual_block_in_c_is_the_plain_one(channels):
    block = filled(ResidualBlock(channels, 7, (1, 3, 5)))
    x = torch.randn(1, channels, 50, generator=torch.Generator().manual_seed(1))
    expected = block(x)
    found = NativeResidualBlock(native.library(), block)(x)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert rows_of(found).data_ptr() == found.data_ptr()


def test_the_whole_vocoder_in_c_is_the_plain_one(checkpoint, shared_model, monkeypatch):
    config = shared_model.config
    monkeypatch.setattr(weights, "library", lambda: None)
    vocoder = weights.load_vocoder(checkpoint, config, device=torch.device("cpu"))
    rng = torch.Generator().manual_seed(2)
    mel = torch.randn(80, 40, generator=rng) * 2 - 4
    noise = torch.rand(40 * config.vocoder.samples, config.vocoder.harmonics, generator=rng)
    with torch.inference_mode():
        expected = vocoder(mel, noise)
        use_native(vocoder, native.library())
        assert (vocoder(mel, noise) - expected).abs().max() <= 1e-4  # as far as pieces may be from the whole
        assert torch.equal(vocoder(mel, noise), shared_model.vocoder(mel, noise))
