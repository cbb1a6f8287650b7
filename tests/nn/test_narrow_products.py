"""Products in fixed point equal their arithmetic in torch, on every path; which form a processor gets."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sonant import native
from sonant.nn import narrow_products as narrow
from sonant.nn.narrow_products import FixedConv1d, FixedProduct, FixedRows, NarrowForm
from sonant.nn.native_conv import NativeConv1d
from sonant.nn.packed import pack
from sonant.nn.quantized import slab_bytes

needs_kernel = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")


@pytest.fixture(params=[0, 1, 2], ids=native.PATHS)
def kernel(request):
    loaded = native.library()
    if loaded is None or request.param > loaded.sonant_best_path():
        pytest.skip(f"{native.PATHS[request.param]} is not to be had here")
    loaded.sonant_choose_path(request.param)
    yield loaded
    loaded.sonant_choose_path(-1)


def values(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x, most):
    """x [..., K] as codes of up to `most` by groups of 64, back in double."""
    width = x.shape[-1]
    groups = F.pad(x.double(), (0, -width % narrow.GROUP)).unflatten(-1, (-1, narrow.GROUP))
    step = groups.abs().amax(-1, keepdim=True).clamp_min(1e-30) / most
    return ((groups / step).round() * step).flatten(-2)[..., :width]


def test_the_bfloat16_form_is_stated_in_torch_for_linear_layers_packed_or_not():
    torch.manual_seed(0)
    part = nn.ModuleDict({"inner": nn.Sequential(nn.Linear(512, 512), nn.SiLU()), "outer": nn.Linear(512, 3)})
    part.requires_grad_(False)
    x, linear = torch.randn(4, 512), part["inner"][0]
    expected = F.linear(x.bfloat16().float(), linear.weight.bfloat16().float(), linear.bias)
    pack(part, rows=1)
    narrow.state_narrow_products(part)
    assert isinstance(part["outer"], narrow.RoundedRows)
    found = part["inner"][0](x)
    assert torch.equal(found, expected)
    assert 1e-4 < (found - linear(x)).norm() / found.norm() < 0.01


def plain(x, weight, bias):
    """The arithmetic of fixed.c: x [B, T, C], weight [O, taps, C]."""
    x, weight = rounded(x, narrow.MOST_INPUT), rounded(weight, narrow.MOST_WEIGHT)
    return F.conv1d(x.transpose(1, 2), weight.transpose(1, 2), bias.double()).transpose(1, 2)


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("outer", "taps", "inner"), [(64, 1, 64), (70, 1, 100), (200, 3, 130), (130, 5, 40)])
@pytest.mark.parametrize("tokens", [1, 6, 23])
def test_a_product_is_that_of_the_rounded_numbers(kernel, outer, taps, inner, tokens):
    weight, bias, x = (
        values(outer, taps, inner),
        values(outer, seed=2),
        values(2, tokens + taps - 1, inner, seed=3),
    )
    expected = plain(x, weight, bias)
    found = FixedProduct(kernel, weight, bias).over(x)
    assert found.shape == expected.shape
    assert distance(found, expected) < 2e-5  # a number that lies between two codes may go to either
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_row_is_the_same_to_the_bit_in_any_company_and_on_any_threads(kernel):
    made = FixedProduct(kernel, values(192, 3, 130), values(192))
    x = values(1, 103, 130, seed=2) * values(1, 103, 1, seed=3)
    alone = torch.cat([made.over(x[:, at : at + 3]) for at in range(101)], dim=1)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            for tokens in (1, 5, 6, 7, 96, 97, 101):
                assert torch.equal(made.over(x[:, : tokens + 2]), alone[:, :tokens])
                assert torch.equal(made.over(x[:, -tokens - 2 :]), alone[:, -tokens:])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_do_not_overflow(kernel, sign):
    """64 times 4095 times 8191 is what an int32 holds, and not one more."""
    product = FixedProduct(kernel, torch.full((64, 1, 256), 3.0), None)
    assert torch.allclose(product.over(torch.full((1, 7, 256), sign * 1e6)), torch.tensor(sign * 7.68e8))
    assert not product.over(torch.zeros(1, 7, 256)).any()
    assert torch.allclose(product.over(torch.full((1, 7, 256), sign * 1e-20)), torch.tensor(sign * 7.68e-18))


@needs_kernel
@pytest.mark.parametrize("shape", [(0, 64), (2, 0, 64)])
def test_no_rows_are_no_rows(shape):
    linear = nn.Linear(64, 32)
    assert FixedRows(native.library(), linear)(torch.zeros(shape)).shape == (*shape[:-1], 32)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("inner", [128, 100])
def test_what_is_no_number_stays_none_and_spoils_its_own_row_alone(kernel, wrong, inner):
    product, x = FixedProduct(kernel, values(64, 1, inner), None), values(1, 9, inner)
    expected = product.over(x)
    x[0, 4, inner - 1] = wrong
    found = product.over(x)
    assert torch.isnan(found[0, 4]).all()
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[:, others], expected[:, others])


@needs_kernel
def test_a_product_loses_a_tenth_of_what_bfloat16_does():
    weight, x = values(256, 1, 512), values(1, 50, 512, seed=2)
    exact = x.double() @ weight[:, 0].double().T
    lost = distance(FixedProduct(native.library(), weight, None).over(x), exact)
    coarse = x.bfloat16().double() @ weight[:, 0].bfloat16().double().T
    assert lost < 2.5e-4
    assert lost < 0.1 * distance(coarse, exact)


@needs_kernel
@pytest.mark.parametrize("padding", [0, 2])
def test_layers_stand_in_for_those_of_torch(padding):
    convolution, linear = nn.Conv1d(48, 70, 5, padding=padding), nn.Linear(48, 70, bias=False)
    x = values(2, 48, 20)
    with torch.inference_mode():
        found = FixedConv1d(native.library(), convolution)(x), FixedRows(native.library(), linear)(x.mT)
        for y, expected in zip(found, (convolution(x), linear(x.mT)), strict=True):
            assert y.shape == expected.shape
            assert 1e-6 < distance(y, expected) < 5e-4


@needs_kernel
def test_memory_that_is_not_there_is_told():
    with pytest.raises(MemoryError, match="no memory for a"):
        FixedProduct(native.library(), torch.empty(0, 1, 64), None)


class Processor:
    """A library as it answers on some processor."""

    def __init__(self, path, *, has_bfloat16=False):
        self.sonant_best_path = lambda: path
        self.sonant_conv_has_bfloat16 = lambda: has_bfloat16


@pytest.mark.parametrize(
    ("processor", "features", "form"),
    [
        (None, "avx2", None),
        (Processor(0), "", None),
        (Processor(1), "avx2", NarrowForm.FIXED),
        (Processor(1), "avx2 avx512f", None),  # without VNNI
        (Processor(2), "avx2 avx512f", None),
        (Processor(2, has_bfloat16=True), "avx2 avx512f", NarrowForm.BFLOAT16),
    ],
)
def test_the_form_is_the_one_that_the_processor_is_quick_with(monkeypatch, processor, features, form):
    monkeypatch.setattr(narrow, "library", lambda: processor)
    monkeypatch.setattr(narrow, "features", lambda: frozenset(features.split()))
    assert narrow.narrow_form() is form
    numbers = 100 << 20
    assert (
        narrow.saved_bytes(numbers)
        == {
            None: 0,
            NarrowForm.BFLOAT16: 2 * numbers,
            NarrowForm.FIXED: 4 * numbers - slab_bytes(2 * numbers + numbers // 16),
        }[form]
    )


def parts():
    """Something with linear layers inside."""
    return nn.Sequential(
        nn.Linear(64, 64), nn.ModuleDict({"inner": nn.Linear(64, 32), "norm": nn.LayerNorm(32)})
    )


@needs_kernel
@pytest.mark.parametrize(("form", "rows"), [(None, nn.Linear), (NarrowForm.FIXED, FixedRows)])
def test_every_linear_layer_inside_gets_that_form(monkeypatch, form, rows):
    monkeypatch.setattr(narrow, "narrow_form", lambda: form)
    network = parts()
    narrow.narrow_products(network)
    assert type(network[0]) is type(network[1]["inner"]) is rows
    assert type(network[1]["norm"]) is nn.LayerNorm


@needs_kernel
def test_only_a_convolution_without_dilation_is_fixed(monkeypatch):
    monkeypatch.setattr(narrow, "narrow_form", lambda: NarrowForm.FIXED)
    kinds = [
        type(narrow.narrow_convolution(native.library(), nn.Conv1d(64, 64, 3, dilation=dilation)))
        for dilation in (1, 2)
    ]
    assert kinds == [FixedConv1d, NativeConv1d]
