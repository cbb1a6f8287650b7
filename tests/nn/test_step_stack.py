"""Steps of fixed shape give what the decoder gives with its cache."""

import pytest
import torch

from sonant.nn.cache import KVCache
from sonant.nn.row_steps import RowSteps
from sonant.nn.step_stack import Reach, StepStack, batch_sizes, reaches
from sonant.nn.transformer import Decoder, DecoderConfig

KINDS = {"qwen3": {"qk_norm": True}, "qwen2": {"qkv_bias": True}, "plain": {}}


def stack(dtype=torch.float64, **options):
    torch.manual_seed(0)
    config = DecoderConfig(
        width=24,
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=10,
        intermediate=40,
        rope_theta=1e4,
        norm_eps=1e-6,
        **options,
    )
    made = Decoder(config, "toy").to(dtype).requires_grad_(False)
    for parameter in made.parameters():
        parameter.normal_(std=0.4)
    return made


def cache(decoder, slots, capacity):
    c = decoder.config
    return KVCache(
        layers=c.layers,
        slots=slots,
        heads=c.kv_heads,
        head_dim=c.head_dim,
        capacity=capacity,
        dtype=decoder.norm.weight.dtype,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_different_age_step_as_the_decoder_does(kind):
    decoder = stack(**KINDS[kind])
    prompts = [torch.randn(1, length, 24, dtype=torch.float64) for length in (3, 7, 1)]
    news = torch.randn(5, 3, 24, dtype=torch.float64)
    expected, plain, fixed = [], cache(decoder, 3, 32), cache(decoder, 3, 33)
    for store in (plain, fixed):
        for slot, prompt in enumerate(prompts):
            decoder(prompt, rows=store.rows([slot], prompt.shape[1]))
    for new in news:
        expected.append(decoder(new[:, None], rows=plain.rows([0, 1, 2], 1))[:, 0])
    steps = StepStack(decoder)
    steps.reach(33)
    for number, new in enumerate(news):
        positions = torch.tensor([3, 7, 1]) + number
        made = steps(new[:, None], Reach.of(fixed, positions, 16))[:, 0]
        assert torch.allclose(made, expected[number], atol=1e-12)


def test_several_new_positions_see_what_the_mask_allows():
    decoder = stack(qk_norm=True)
    x = torch.randn(2, 2, 24, dtype=torch.float64)
    plain, fixed = cache(decoder, 2, 4), cache(decoder, 2, 4)
    expected = decoder(x, rows=plain.rows([0, 1], 2))
    steps = StepStack(decoder)
    steps.reach(4)
    mask = torch.tensor([[0.0, float("-inf")], [0.0, 0.0]], dtype=torch.float64)[None, None]
    made = steps(x, Reach(fixed.keys, fixed.values, torch.arange(2).expand(2, -1), mask, 2))
    assert torch.allclose(made, expected, atol=1e-12)


def test_the_decoder_keeps_its_weights_and_holds_them_once():
    decoder = stack(qkv_bias=True)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    steps = StepStack(decoder)
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    for layer, fused in zip(decoder.layers, steps.layers, strict=True):
        shared = {
            p.untyped_storage().data_ptr() for p in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight)
        }
        assert shared == {fused.gate_up.untyped_storage().data_ptr()}


def test_rows_that_rest_keep_what_they_hold():
    decoder = stack()
    store = cache(decoder, 4, 12)
    steps = StepStack(decoder)
    steps.reach(12)
    table = torch.randn(6, 24, dtype=torch.float64)

    def work(ids, places, reach):
        return steps((table[ids] + places[:, None])[:, None], reach)[:, 0, :6].float()

    rows = RowSteps(work, store, slots=4, scores=6)
    rows([1, 2, 3], [0, 0, 0], [0, 1, 3])
    before = [keys[[0, 1, 3], :, 0].clone() for keys in store.keys]
    one = rows([4], [1], [1])
    assert store.lengths == [1, 2, 0, 1]
    for keys, kept in zip(store.keys, before, strict=True):
        assert torch.equal(keys[[0, 1, 3], :, 0], kept)
        assert not keys[[0, 2, 3], :, 1].any()
    other = RowSteps(work, fresh := cache(decoder, 4, 12), slots=4, scores=6)
    other([2], [0], [3])
    assert torch.allclose(other([4], [1], [3]), one, atol=1e-6)
    assert fresh.lengths == [0, 0, 0, 2]


@pytest.mark.parametrize(("slots", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_sizes_of_batch(slots, sizes):
    assert batch_sizes(slots) == sizes


@pytest.mark.parametrize(
    ("capacity", "made"), [(40, [40]), (128, [128]), (300, [128, 256, 300]), (512, [128, 256, 512])]
)
def test_reaches(capacity, made):
    assert reaches(capacity) == made
