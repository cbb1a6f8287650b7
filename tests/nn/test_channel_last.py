import pytest
import torch

from sonant.nn.channel_last import ConvNeXt, Pasts, TimeConv, TimeConvTranspose, arrange
from sonant.nn.conv import CausalConv1d, CausalConvTranspose1d


def seeded(module):
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module.requires_grad_(False)


def in_pieces(layer, x, split):
    past, pieces, at = None, [], 0
    for size in split:
        y, past = layer(x[:, at : at + size], past)
        pieces.append(y)
        at += size
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize(
    ("kernel", "dilation", "groups"), [(1, 1, 1), (3, 1, 1), (7, 3, 1), (7, 1, 6), (3, 2, 6)]
)
@pytest.mark.parametrize("arranged", [False, True])
def test_convolution_equals_the_plain_one(kernel, dilation, groups, arranged):
    outer = 6 if groups == 6 else 4
    fast = seeded(TimeConv(6, outer, kernel, dilation=dilation, groups=groups))
    plain = CausalConv1d(6, outer, kernel, dilation=dilation, groups=groups).requires_grad_(False)
    plain.load_state_dict(fast.state_dict())
    if arranged:
        arrange(fast)
    x = torch.randn(2, 11, 6, generator=torch.Generator().manual_seed(1))
    expected, _ = plain(x.transpose(1, 2))
    assert fast.weight.shape == plain.weight.shape
    assert (fast(x)[0].transpose(1, 2) - expected).abs().max() < 1e-5
    for split in ((1,) * 11, (4, 7), (1, 2, 8)):
        assert (in_pieces(fast, x, split).transpose(1, 2) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (6, 3), (16, 8)])
@pytest.mark.parametrize("arranged", [False, True])
def test_transposed_convolution_equals_the_plain_one(kernel, stride, arranged):
    fast = seeded(TimeConvTranspose(5, 3, kernel, stride))
    plain = CausalConvTranspose1d(5, 3, kernel, stride).requires_grad_(False)
    plain.load_state_dict(fast.state_dict())
    if arranged:
        arrange(fast)
    x = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(1))
    expected, _ = plain(x.transpose(1, 2))
    assert fast(x)[0].shape == (2, 9 * stride, 3)
    for split in ((9,), (1,) * 9, (4, 5)):
        assert (in_pieces(fast, x, split).transpose(1, 2) - expected).abs().max() < 1e-5


def test_convnext_in_pieces_equals_whole():
    block = seeded(ConvNeXt(8))
    x = torch.randn(1, 10, 8, generator=torch.Generator().manual_seed(1))
    whole, _ = block(x)
    assert (in_pieces(block, x, (3, 1, 6)) - whole).abs().max() < 1e-5


def test_pasts_follow_the_order_of_the_layers():
    layers = [seeded(TimeConv(4, 4, 3)), seeded(ConvNeXt(4)), seeded(TimeConvTranspose(4, 4, 4, 2))]
    x = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1))

    def run(piece, old):
        pasts = Pasts(old)
        for layer in layers:
            piece = pasts.run(layer, piece)
        return piece, pasts.new

    whole, _ = run(x, None)
    first, kept = run(x[:, :2], None)
    before = [past.clone() for past in kept]
    second, _ = run(x[:, 2:], kept)
    assert (torch.cat((first, second), dim=1) - whole).abs().max() < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))  # a past is never changed


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 1, 4), (4, 2, 1), (8, 4, 1), (1, 1, 1)]
)
def test_a_plain_convolution_in_pieces_equals_the_whole_for_any_stride(kernel, stride, dilation):
    layer = CausalConv1d(3, 4, kernel, stride, dilation=dilation).requires_grad_(False)
    x = torch.randn(2, 3, 27, generator=torch.Generator().manual_seed(1))
    whole, _ = layer(x)
    assert whole.shape == (2, 4, -(-27 // stride))
    past, pieces = None, []
    for start, end in ((0, 4), (4, 8), (8, 20), (20, 27)):
        y, past = layer(x[..., start:end], past)
        pieces.append(y)
        assert past.shape[-1] == layer.context
    assert (torch.cat(pieces, dim=-1) - whole).abs().max() < 1e-5
    changed = x.clone()
    changed[..., 13:] += 1  # nothing before it hears what comes later
    assert torch.equal(layer(changed)[0][..., : 13 // stride], whole[..., : 13 // stride])
