import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sonant import native
from sonant.nn.channel_last import ConvNeXt, TimeConv, TimeConvTranspose
from sonant.nn.native_conv import (
    NativeConv1d,
    NativeRows,
    NativeTimeConv,
    native_products,
    native_rows,
    of_rows,
    rows_of,
)
from sonant.nn.snake import SnakeBeta
from tests.nn.test_channel_last import in_pieces, seeded

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")


def values(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def native_of(layer, *, narrow=False):
    holder = nn.ModuleList([layer])
    native_products(holder, native.library(), narrow=narrow)
    assert not isinstance(holder[0], type(layer))
    return holder[0]


LAYERS = [
    (6, 4, 1, 1),
    (6, 49, 3, 1),
    (7, 5, 7, 3),
    (96, 96, 7, 9),
    (130, 144, 2, 1),
    (513, 48, 1, 1),
    (1030, 50, 3, 1),
    (64, 64, 11, 5),
    (33, 24, 3, 1),
    (20, 130, 1, 1),
]


@pytest.mark.parametrize(("inner", "outer", "kernel", "dilation"), LAYERS)
def test_a_convolution_in_c_is_the_one_in_torch(inner, outer, kernel, dilation):
    layer = seeded(TimeConv(inner, outer, kernel, dilation=dilation))
    x = values(2, 19, inner)
    expected = layer.double()(x.double())[0]
    layer.float()
    found, past = native_of(layer)(x)
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert torch.equal(past, layer(x)[1])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (6, 3), (16, 8)])
def test_a_transposed_convolution_in_c_is_the_one_in_torch(kernel, stride):
    layer = seeded(TimeConvTranspose(20, 11, kernel, stride))
    x = values(2, 9, 20)
    expected, expected_past = layer(x)
    quick = native_of(layer)
    found, past = quick(x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert torch.equal(past, expected_past)
    for split in ((1,) * 9, (4, 5)):
        assert torch.equal(in_pieces(quick, x, split), found)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("inner", "outer", "kernel", "dilation"), LAYERS)
def test_any_split_and_any_number_of_threads_give_the_same_bits(inner, outer, kernel, dilation, narrow):
    if narrow and not native.library().sonant_conv_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    layer = native_of(seeded(TimeConv(inner, outer, kernel, dilation=dilation)), narrow=narrow)
    x = values(1, 300, inner)
    whole = layer(x)[0]
    for split in ((300,), (1, 2, 4, 8, 285), (7,) * 42 + (6,), (256, 44)):
        assert torch.equal(in_pieces(layer, x, split), whole)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(x)[0], whole)
    finally:
        torch.set_num_threads(before)


def test_snake_bias_and_residual_are_part_of_the_call():
    layer, snake = seeded(TimeConv(24, 24, 7, dilation=3)), seeded(SnakeBeta(24, channels_last=True))
    x, residual = values(1, 40, 24) * 30, values(1, 40, 24, seed=2)
    expected, expected_past = layer.double()(x.double(), before=snake.double(), residual=residual.double())
    layer.float(), snake.float()
    quick = native_of(layer)
    found, past = quick(x, before=snake, residual=residual)
    assert (found - expected).abs().max() <= 5e-6 * expected.abs().max()
    assert (past - expected_past).abs().max() <= 1e-5
    first, past = quick(x[:, :13], before=snake, residual=residual[:, :13])
    second, _ = quick(x[:, 13:], past, before=snake, residual=residual[:, 13:])
    assert torch.equal(torch.cat((first, second), dim=1), found)


@pytest.mark.parametrize(("inner", "outer", "kernel"), [(6, 49, 3), (96, 96, 7), (1030, 50, 3)])
def test_narrow_products_round_the_inputs_and_nothing_else(inner, outer, kernel):
    if not native.library().sonant_conv_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    layer = seeded(TimeConv(inner, outer, kernel))
    x = values(1, 21, inner)
    rounded = F.pad(x.bfloat16().double(), (0, 0, kernel - 1, 0)).transpose(1, 2)
    expected = F.conv1d(rounded, layer.weight.bfloat16().double(), layer.bias.double()).transpose(1, 2)
    wide = layer(x)[0]
    found = native_of(layer, narrow=True)(x)[0]
    assert (found - expected).abs().max() <= 5e-6 * expected.abs().max()
    assert (found - wide).norm() > 1e-4 * wide.norm()


def test_an_odd_width_stays_wide_when_narrow_is_asked_for():
    layer = seeded(TimeConv(7, 48, 3))
    x = values(1, 8, 7)
    wide = layer(x)[0]
    assert (native_of(layer, narrow=True)(x)[0] - wide).abs().max() <= 2e-6 * wide.abs().max()


def test_all_dense_layers_of_a_block_are_replaced_and_the_depthwise_one_stays():
    block = seeded(ConvNeXt(64))
    x = values(2, 10, 64)
    expected = block(x)[0]
    native_products(block, native.library())
    assert isinstance(block.pwconv1, NativeRows)
    assert isinstance(block.dwconv, TimeConv)
    assert not any(isinstance(part, nn.Linear) for part in block.modules())
    assert (block(x)[0] - expected).abs().max() <= 1e-5


def test_rows_that_begin_with_their_past_need_no_other_and_may_look_ahead():
    layer = nn.Conv1d(20, 64, 5, dilation=3, padding=6).requires_grad_(False)
    x, residual = values(2, 20, 31), values(2, 31, 64, seed=2)
    expected = layer(x)
    found = NativeConv1d(native.library(), layer)(x)
    assert (found - expected).abs().max() <= 2e-6 * expected.abs().max()
    assert torch.equal(of_rows(rows_of(found)), found)
    conv = native_rows(native.library(), layer)
    padded = F.pad(rows_of(x), (0, 0, 6, 6))
    assert torch.equal(conv.over(padded), rows_of(found))
    added = conv.over(padded, residual) - (rows_of(expected) + residual)
    assert added.abs().max() <= 5e-6


@pytest.mark.parametrize("threads", [0, -1])
def test_what_the_kernel_refuses_is_an_error(monkeypatch, threads):
    """It once answered neither a wrong number of threads nor of rows, and nobody looked at its answer."""
    layer = native_of(seeded(TimeConv(6, 4, 3)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with pytest.raises(ValueError, match="no room for 19 rows of 6 values"):
        layer(values(2, 19, 6))


def test_no_rows_give_no_rows():
    layer = native_of(seeded(TimeConv(8, 8, 3)))
    y, past = layer(torch.zeros(1, 0, 8))
    assert y.shape == (1, 0, 8)
    assert torch.equal(past, torch.zeros(1, 2, 8))
    assert isinstance(layer, NativeTimeConv)


def work(call, times=7):
    """Processor time of the quickest of some calls on one thread."""
    least = float("inf")
    for _ in range(times):
        began = time.thread_time()
        call()
        least = min(least, time.thread_time() - began)
    return least


def test_sums_stay_in_registers():
    """Where they do not, in vectors wider than the processor's, C takes 15 to 40 times what torch takes."""
    layer = nn.Conv1d(192, 192, 7)
    made, x = NativeConv1d(native.library(), layer), values(1, 192, 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            assert work(lambda: made(x)) < 6 * work(lambda: layer(x))  # measured: 0.7 to 1.4 times
    finally:
        torch.set_num_threads(before)
