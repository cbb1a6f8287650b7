"""Quantised weights: the C kernel equals the plain torch arithmetic, on every path it was compiled with."""

import contextlib
import copy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from sonant import native
from sonant.errors import RequestError
from sonant.nn.cache import KVCache
from sonant.nn.packed import packed
from sonant.nn.precision import (
    INT4,
    INT8,
    INT12,
    LOSSLESS,
    PlainLinear,
    Precision,
    StackPlan,
    plain_linear,
    plain_stack,
    quantize_activation,
    quantize_weight,
    stack_plan,
)
from sonant.nn.quantized import (
    NativeDecoder,
    NativeLinear,
    PackedStore,
    quantize_decoder,
    quantize_linear,
)
from sonant.nn.transformer import Decoder, DecoderConfig

SIZES = {"width": 128, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 32, "intermediate": 192}


@pytest.fixture(scope="module")
def kernel():
    loaded = native.library()
    if loaded is None:
        pytest.skip("no C compiler on this machine")
    return loaded


@pytest.fixture(params=[0, 1, 2], ids=native.PATHS)
def path(request, kernel):
    if request.param > kernel.sonant_best_path():
        pytest.skip(f"this processor has no {native.PATHS[request.param]}")
    kernel.sonant_choose_path(request.param)
    yield request.param
    kernel.sonant_choose_path(-1)


def stack(**switches):
    torch.manual_seed(0)
    config = DecoderConfig(**SIZES, rope_theta=1e4, norm_eps=1e-6, **switches)
    made = Decoder(config, "toy").requires_grad_(False)
    for name, parameter in made.named_parameters():
        if "norm" in name:
            parameter.uniform_(0.5, 1.5)
    return made


def cache(dtype=torch.float32):
    return KVCache(layers=2, slots=3, heads=2, head_dim=32, capacity=200, dtype=dtype)


def plain(decoder, plan=None):
    """The same stack with the arithmetic in torch."""
    return plain_stack(copy.deepcopy(decoder), plan or StackPlan(rest=INT8))


@pytest.mark.parametrize("precision", [INT12, INT8, INT4, Precision(bits=8, group=128)])
def test_weights_come_back_within_half_a_step(precision):
    torch.manual_seed(0)
    weight = torch.randn(8, 256)
    codes, scales = quantize_weight(weight, precision)
    back = codes.float() * scales.repeat_interleave(precision.group, 1)
    step = scales.abs().repeat_interleave(precision.group, 1)
    # int4, also as the rest of 12 bits, has seven steps on one side and eight on the other: the far end may
    # be a whole step off
    assert ((back - weight).abs() <= step * (0.5 if precision.bits == 8 else 1.0) + 1e-6).all()
    assert codes.abs().max() <= {12: 127 * 16 + 8, 8: 127, 4: 8}[precision.bits]


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("bits", "group"), [(12, 64), (8, 64), (8, 128), (4, 32)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 9, 12, 31])
def test_kernel_equals_plain_arithmetic(kernel, path, bits, group, planes, tokens):
    torch.manual_seed(tokens)
    precision = Precision(bits=bits, group=group, planes=planes)
    weight, bias, x = torch.randn(192, 256), torch.randn(192), torch.randn(tokens, 256) * 3
    expected = PlainLinear(weight, bias, precision)(x)
    found = NativeLinear(kernel, weight, bias, precision)(x)
    assert found.shape == expected.shape
    # a code may round the other way
    assert (found - expected).abs().max() <= (1e-4 if planes == 1 else 1e-5) * expected.abs().max()


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("bits", "group"), [(12, 64), (8, 64), (8, 128), (4, 32)])
def test_a_token_is_the_same_to_the_bit_in_any_company(kernel, path, bits, group, planes):
    """Few tokens, many, and more than the kernel takes at a time go different ways to the same sums."""
    torch.manual_seed(0)
    made = NativeLinear(
        kernel, torch.randn(128, 256), torch.randn(128), Precision(bits=bits, group=group, planes=planes)
    )
    x = torch.randn(101, 256) * torch.rand(101, 1) * 5
    alone = torch.cat([made(row[None]) for row in x])
    for tokens in (2, 3, 4, 11, 12, 13, 17, 96, 97, 101):
        assert torch.equal(made(x[:tokens]), alone[:tokens])
        assert torch.equal(made(x[-tokens:]), alone[-tokens:])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("precision", [INT12, INT8, INT4, Precision(bits=8, group=128, planes=2)])
def test_extreme_activations_do_not_overflow(kernel, path, precision, sign):
    weight = torch.full((64, 256), 1.0)
    x = torch.full((13, 256), sign * 1e6)
    expected = PlainLinear(weight, None, precision)(x)
    made = NativeLinear(kernel, weight, None, precision)
    assert torch.allclose(made(x), expected, rtol=1e-5)
    assert torch.allclose(NativeLinear(kernel, -weight, None, precision)(x), -expected, rtol=1e-5)
    assert not made(torch.zeros(1, 256)).any()


@pytest.mark.parametrize("precision", [INT12, INT8, INT4, Precision(bits=4, group=32, planes=2)])
@pytest.mark.parametrize("tokens", [3, 20])
def test_an_activation_that_is_no_number_counts_as_none(kernel, path, precision, tokens):
    """By AVX2 it was the largest negative number for a while."""
    torch.manual_seed(0)
    made, x = NativeLinear(kernel, torch.randn(64, 256), None, precision), torch.randn(tokens, 256)
    x[1, 70] = 0
    expected = made(x)
    x[1, 70] = float("nan")
    assert torch.equal(made(x), expected)


@pytest.mark.parametrize("switches", [{"qk_norm": True}, {"qkv_bias": True}, {}])
def test_stack_in_c_equals_stack_in_torch_prefill_and_steps(kernel, path, switches):
    decoder = stack(**switches)
    reference = plain(decoder)
    fast = NativeDecoder(kernel, decoder, "toy", INT8)
    x = torch.randn(1, 80, 128)
    with torch.inference_mode():
        kept, own = cache(), cache()
        for start, stop in ((0, 70), (70, 71), (71, 74), (74, 80)):
            expected = reference(x[:, start:stop], rows=kept.rows([1], stop - start))
            found = fast(x[:, start:stop], rows=own.rows([1], stop - start))
            assert (found - expected).abs().max() <= 1e-4  # a code of 16 bits may round the other way
            assert (found - expected).norm() / expected.norm() <= 2e-5
    assert own.lengths == kept.lengths == [0, 80, 0]


PLANS = {
    "careful layer": StackPlan(rest=INT8, careful=INT12, layers=1),
    "careful attention": StackPlan(rest=Precision(bits=4, group=32, planes=2), careful=INT8, attentions=1),
    "lossless layer": StackPlan(rest=INT8, careful=LOSSLESS, layers=1),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_stack_of_several_precisions_equals_the_same_in_torch(kernel, path, plan):
    decoder = stack(qk_norm=True).bfloat16().float()
    reference, fast = plain(decoder, plan), NativeDecoder(kernel, decoder, "toy", plan)
    x = torch.randn(1, 40, 128)
    with torch.inference_mode():
        kept, own = cache(), cache()
        for start, stop in ((0, 34), (34, 35), (35, 37), (37, 40)):
            expected = reference(x[:, start:stop], rows=kept.rows([1], stop - start))
            found = fast(x[:, start:stop], rows=own.rows([1], stop - start))
            assert (found - expected).norm() / expected.norm() <= 2e-5


def test_int8_of_a_stack_has_twelve_bits_in_its_first_quarter():
    plans = {layers: stack_plan("int8", layers) for layers in (1, 3, 4, 24, 28)}
    assert {layers: plan.layers for layers, plan in plans.items()} == {1: 1, 3: 1, 4: 1, 24: 6, 28: 7}
    assert all(plan.precisions == (INT12, INT8) for plan in plans.values())
    assert stack_plan("lossless", 24).is_lossless
    assert stack_plan("int4", 24).precisions == (INT4,)
    with pytest.raises(RequestError, match=r"no precision 'mixed'.*lossless, int8, int4"):
        stack_plan("mixed", 24)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llm.model.model.layers.0.mlp.up_proj.weight", INT12),
        ("llm.model.model.layers.1.self_attn.q_proj.weight", INT12),
        ("llm.model.model.layers.1.mlp.down_proj.weight", INT8),
        ("talker.model.layers.2.self_attn.q_proj.weight", INT8),
        ("talker.model.layers.10.self_attn.q_proj.weight", INT8),
        ("gpt.h.0.mlp.c_fc.weight", INT12),
        ("h.1.attn.c_attn", INT12),
        ("h.1.mlp.c_proj", INT8),
        ("gpt.h.12.attn.c_attn.weight", INT8),
        ("code_head", INT8),
        ("llm_decoder.weight", INT8),
    ],
)
def test_a_plan_knows_the_precision_of_a_weight_by_its_name(name, expected):
    assert StackPlan(rest=INT8, careful=INT12, layers=1, attentions=2).named(name) == expected


def test_what_is_packed_for_the_processor_is_narrowed_like_the_rest():
    torch.manual_seed(0)
    linear = nn.Linear(512, 512).requires_grad_(False)  # as small as is worth packing
    kept = packed(linear, rows=1)
    x = torch.randn(3, 512)
    assert torch.equal(plain_linear(kept, INT12)(x), plain_linear(linear, INT12)(x))
    assert plain_linear(kept, LOSSLESS) is kept


def test_care_for_the_first_layers_is_where_it_counts():
    decoder = stack(qk_norm=True)
    x = torch.randn(1, 30, 128)
    with torch.inference_mode():
        expected = decoder(x)
        losses = {
            name: float((plain(decoder, plan)(x) - expected).norm() / expected.norm())
            for name, plan in {"none": StackPlan(rest=INT8), "first": PLANS["careful layer"]}.items()
        }
    assert losses["first"] < 0.8 * losses["none"]


def test_twelve_bits_lose_a_twelfth_of_what_eight_do():
    torch.manual_seed(0)
    weight, x = torch.randn(64, 256), torch.randn(5, 256)
    expected = x @ weight.T
    eight, twelve = (
        float((PlainLinear(weight, None, precision)(x) - expected).norm()) for precision in (INT8, INT12)
    )
    assert eight > 12 * twelve


def test_rows_of_different_age_do_not_touch_each_other(kernel):
    fast = NativeDecoder(kernel, stack(qk_norm=True), "toy", INT8)
    x = torch.randn(2, 12, 128)
    with torch.inference_mode():
        alone = cache()
        expected = [
            fast(x[:1, :9], rows=alone.rows([0], 9))[:, -1:],
            fast(x[1:, :4], rows=alone.rows([2], 4))[:, -1:],
        ]
        expected = [
            fast(x[:1, 9:10], rows=alone.rows([0], 1)),
            fast(x[1:, 4:5], rows=alone.rows([2], 1)),
        ]
        shared = cache()
        fast(x[:1, :9], rows=shared.rows([0], 9))
        fast(x[1:, :4], rows=shared.rows([2], 4))
        together = fast(torch.stack([x[0, 9:10], x[1, 4:5]]), rows=shared.rows([0, 2], 1))
    assert torch.equal(together[:1], expected[0])
    assert torch.equal(together[1:], expected[1])


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 9])
def test_bfloat16_weights_lose_nothing(kernel, path, tokens):
    torch.manual_seed(tokens)
    weight, bias, x = torch.randn(192, 100).bfloat16(), torch.randn(192), torch.randn(tokens, 100) * 3
    expected = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    made = NativeLinear(kernel, weight, bias, LOSSLESS)
    assert made._packed.sizes()[0] == weight.nbytes
    assert (made(x) - expected).abs().max() <= 2e-6 * expected.abs().max()


@pytest.mark.parametrize("switches", [{"qk_norm": True}, {"qkv_bias": True}])
def test_lossless_stack_equals_the_float_network(kernel, path, switches):
    decoder = stack(**switches).bfloat16().float()
    fast = quantize_decoder(decoder, "toy", LOSSLESS)
    assert isinstance(fast, NativeDecoder)
    x = torch.randn(1, 80, 128)
    with torch.inference_mode():
        kept, own = cache(), cache()
        for start, stop in ((0, 70), (70, 71), (71, 74), (74, 80)):
            expected = decoder(x[:, start:stop], rows=kept.rows([1], stop - start))
            found = fast(x[:, start:stop], rows=own.rows([1], stop - start))
            assert (found - expected).abs().max() <= 1e-5
    assert torch.allclose(own.keys[1], kept.keys[1], atol=1e-5)


def test_lossless_leaves_alone_what_it_would_change():
    decoder = stack()
    assert quantize_decoder(decoder, "toy", LOSSLESS) is decoder
    linear = torch.nn.Linear(128, 64)
    assert quantize_linear(linear, LOSSLESS) is linear


@pytest.mark.parametrize("precision", [INT8, INT4, LOSSLESS], ids=["int8", "int4", "lossless"])
def test_outputs_need_not_fill_a_tile(kernel, precision):
    linear = torch.nn.Linear(128, 70).bfloat16().requires_grad_(False)
    made = quantize_linear(linear, precision)
    assert isinstance(made, NativeLinear)
    x = torch.randn(3, 128)
    found, expected = made(x), torch.nn.functional.linear(x, linear.weight.float(), linear.bias.float())
    assert found.shape == (3, 70)
    assert (found - expected).norm() / expected.norm() <= {8: 0.02, 4: 0.15, 16: 1e-6}[precision.bits]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_freed_weights_give_their_memory_back(kernel):
    def megabytes():
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    torch.manual_seed(0)
    weight = torch.randn(8192, 1024).bfloat16()
    figures = []
    for _ in range(24):
        NativeLinear(kernel, weight, None, LOSSLESS)  # 16 MB
        figures.append(megabytes())
    assert figures[-1] - figures[7] < 40


def test_int8_stays_close_to_float(kernel):
    decoder = stack(qk_norm=True)
    x = torch.randn(1, 30, 128)
    with torch.inference_mode():
        expected = decoder(x)
        found = NativeDecoder(kernel, decoder, "toy", INT8)(x, rows=cache().rows([0], 30))
    assert (found - expected).norm() / expected.norm() <= 0.03


def test_sizes_the_kernel_cannot_take_run_in_torch():
    torch.manual_seed(0)
    config = DecoderConfig(**{**SIZES, "width": 40, "intermediate": 72}, rope_theta=1e4, norm_eps=1e-6)
    decoder = Decoder(config, "odd").requires_grad_(False)
    x = torch.randn(1, 5, 40)
    expected = decoder(x)
    made = quantize_decoder(decoder, "odd", INT8)
    assert isinstance(made, Decoder)
    found = made(x)
    assert 0 < (found - expected).norm() / expected.norm() <= 0.03
    assert isinstance(quantize_linear(torch.nn.Linear(40, 30), INT8), PlainLinear)


def test_the_kernel_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("SONANT_NATIVE", "0")
    native.library.cache_clear()
    try:
        assert native.library() is None
        assert isinstance(quantize_linear(torch.nn.Linear(128, 64), INT8), PlainLinear)
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


def test_a_compiler_that_fails_leaves_the_torch_path(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("SONANT_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    monkeypatch.delenv("SONANT_NATIVE", raising=False)
    native.library.cache_clear()
    try:
        assert native.library() is None
        assert "did not compile" in caplog.text
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_activations_keep_their_largest_entry_exactly(precision):
    x = torch.tensor([[0.1, -2.0, 0.5] + [0.0] * 61])
    assert quantize_activation(x, precision)[0][0, 1] == pytest.approx(-2.0)


def test_sixteen_bit_activations_are_256_times_as_fine():
    torch.manual_seed(0)
    x = torch.randn(50, 256)
    loss = [
        float((quantize_activation(x, Precision(bits=8, group=64, planes=n))[0] - x).norm() / x.norm())
        for n in (1, 2)
    ]
    assert 0.004 < loss[0] < 0.008
    assert loss[0] / loss[1] == pytest.approx(256, rel=0.05)


def test_packed_weights_are_kept_on_disk_and_their_floats_are_not_read_again(kernel, tmp_path):
    path = tmp_path / "kept.safetensors"
    decoder = stack(qk_norm=True)
    x = torch.randn(1, 6, 128)

    def run(made):
        with torch.inference_mode():
            return made(x, rows=cache().rows([0], 6))

    store = PackedStore(path)
    expected = run(NativeDecoder(kernel, decoder, "toy", INT8, store))
    store.save()
    for name, parameter in decoder.named_parameters():
        if "proj" in name:
            parameter.data.zero_()  # were they read, the outputs would differ
    again = PackedStore(path)
    assert torch.equal(run(NativeDecoder(kernel, decoder, "toy", INT8, again)), expected)
    path.write_bytes(path.read_bytes()[:100])
    assert not torch.equal(run(NativeDecoder(kernel, decoder, "toy", INT8, PackedStore(path))), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no file from anybody")
def test_a_cache_that_may_not_be_written_stops_neither_model_nor_compiler(kernel, monkeypatch, caplog):
    store = PackedStore(Path("/proc/cache/kept.safetensors"))
    NativeDecoder(kernel, stack(qk_norm=True), "toy", INT8, store)
    store.save()
    assert "were not kept in /proc/cache" in caplog.text
    monkeypatch.setenv("SONANT_CACHE", "/proc/cache")
    monkeypatch.setenv("SONANT_NATIVE", "compile")
    native.library.cache_clear()
    try:
        assert native.library() is None
        assert "cannot be kept in /proc/cache" in caplog.text
    finally:
        monkeypatch.undo()
        native.library.cache_clear()


@contextlib.contextmanager
def no_room(monkeypatch):
    """As on a full disk: files get no longer than a page."""
    import resource

    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@contextlib.contextmanager
def refusing(monkeypatch):
    """As safetensors says it: no OSError."""

    def save_file(tensors, name):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", save_file)
        yield


@pytest.mark.parametrize(
    "full",
    [refusing, pytest.param(no_room, marks=pytest.mark.skipif(sys.platform == "win32", reason="no limits"))],
)
def test_a_full_disk_stops_nobody_and_what_was_kept_stays(kernel, tmp_path, monkeypatch, caplog, full):
    path = tmp_path / "kept.safetensors"
    store = PackedStore(path)
    NativeLinear(kernel, torch.ones(64, 128), None, INT8, name="one", store=store)
    store.save()
    before = path.read_bytes()
    store = PackedStore(path)
    NativeLinear(kernel, torch.ones(64, 128), None, INT8, name="two", store=store)
    with full(monkeypatch):
        store.save()
    assert "were not kept in" in caplog.text
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]  # nor is the part left that there was room for
    assert store._packed == []


def test_a_store_that_holds_a_part_keeps_it_and_gains_the_rest(kernel, tmp_path):
    """Two loads that need different matrices of one file once threw away each other's, for ever by turns."""
    path = tmp_path / "kept.safetensors"
    rng = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(64, 128, generator=rng) for name in ("one", "two", "three")}

    def load(*names):
        store = PackedStore(path)
        for name in names:
            NativeLinear(kernel, weights[name].clone(), None, INT8, name=name, store=store)
        packed = [name for name, _ in store._packed]
        store.save()
        return packed

    assert load("one", "two") == ["one", "two"]
    assert load("two", "three") == ["three"]
    assert load("one", "two") == []
    assert load("three", "one") == []


@pytest.mark.parametrize(("slot", "start"), [(0, 25), (7, 0), (-1, 0), (0, -1)])
def test_places_that_the_cache_does_not_have_are_refused_by_the_kernel(kernel, slot, start):
    made = NativeDecoder(kernel, stack(), "toy", INT8)
    rows = cache().rows([0], 2)
    rows.slots, rows.starts = [slot], [start if start < 0 else start and rows.cache.capacity - 1]
    with pytest.raises(ValueError, match="no room for 2 tokens"):
        made(torch.randn(1, 2, 128), rows=rows)
    with pytest.raises(ValueError, match="no room for layer 99"):
        native.check_done(kernel.sonant_stack_layer(made.handle, 99, *(None,) * 9), "layer 99")


def test_positions_beyond_the_table_of_angles_are_refused_by_the_kernel(kernel):
    made = NativeDecoder(kernel, stack(), "toy", INT8)
    cosines, sines = made.table(5)
    made.table = lambda capacity: (cosines[:5], sines[:5])
    with torch.inference_mode():
        assert made(torch.randn(1, 5, 128), rows=cache().rows([0], 5)).isfinite().all()
        with pytest.raises(ValueError, match="no room for 6 tokens"):
            made(torch.randn(1, 6, 128), rows=cache().rows([0], 6))


def test_the_path_in_use_is_known_once_a_model_asked_for_it(kernel):
    assert native.library() is not None
    assert native.path_in_use() in native.PATHS
