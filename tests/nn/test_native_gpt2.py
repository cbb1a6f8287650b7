"""Steps in one call are the layers one by one, whatever order the rows of the cache are put in."""

import gc
import random
import weakref

import pytest
import torch
from torch import nn

from sonant import native
from sonant.families.indextts2.gpt import Block
from sonant.families.indextts2.search import SearchSettings, make_search
from sonant.nn.cache import KVCache
from sonant.nn.native_gpt2 import NativeGpt2
from sonant.nn.precision import stack_plan
from sonant.nn.quantized import quantize_linear

needs_kernel = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
WIDTH, LAYERS, SCORES = 128, 3, 70


class Parts(nn.Module):
    """Blocks, the two norms and the head, of random weights."""

    def __init__(self, heads, precision):
        super().__init__()
        self.heads = heads
        self.h = nn.ModuleList(Block(WIDTH, heads, f"h.{index}") for index in range(LAYERS))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, 1e-5) for _ in range(2))
        self.head = nn.Linear(WIDTH, SCORES)
        rng = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            wide = torch.randn(parameter.shape, generator=rng) * (0.1 if parameter.dim() == 1 else 0.3)
            parameter.data = wide.bfloat16().float()
        for norm in self.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.data += 1
        self.requires_grad_(False)
        plan = None if precision is None else stack_plan(precision, LAYERS)
        for name, layer in list(self.named_modules()):
            if plan is not None and isinstance(layer, nn.Linear):
                self.set_submodule(name, quantize_linear(layer, plan.named(name)))

    def layers(self, x, rows):
        """Scores of x [B, T, D], layer by layer."""
        for index, block in enumerate(self.h):
            x = block(x, rows, index)
        rows.commit()
        return self.head(self.norms[1](self.norms[0](x)))[:, -1]

    def joined(self):
        return NativeGpt2.of(list(self.h), list(self.norms), self.head, heads=self.heads)

    def cache(self, slots, capacity, *, shares):
        size = WIDTH // self.heads
        return KVCache(
            layers=LAYERS, slots=slots, heads=self.heads, head_dim=size, capacity=capacity, shares=shares
        )


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_kernel
@pytest.mark.parametrize("precision", ["int8", "int4", "lossless"])
@pytest.mark.parametrize("heads", [2, 4])  # of 64 values, which C knows beforehand, and of 32
def test_joined_steps_are_the_layers_one_by_one_as_rows_change_places(heads, precision):
    parts = Parts(heads, precision)
    joined = parts.joined()
    copied, shared = (parts.cache(7, 24, shares=shares) for shares in (False, True))
    beams = {0: [5, 1, 3], 1: [0, 4, 2]}
    chance = random.Random(0)
    for number, slots in beams.items():
        prefix = normal(1, 5 + number, WIDTH, seed=number)
        for cache in (copied, shared):
            parts.layers(prefix, cache.rows(slots[:1], prefix.shape[1]))
            cache.reorder(slots, slots[:1] * 3)
    for step in range(12):
        slots = beams[0] + beams[1]
        for row in beams.values():
            sources = [chance.choice(row) for _ in row]
            for cache in (copied, shared):
                cache.reorder(row, sources, start=7)
        if step == 6:
            copied, shared = copied.grown(40), shared.grown(40)
        x = normal(6, WIDTH, seed=step)
        expected = parts.layers(x[:, None], copied.rows(slots, 1))
        found = joined(x, shared.rows(slots, 1))
        # Sums in another order; an activation between two codes may then go either way.
        assert (found - expected).abs().max() < (
            1e-4 if precision == "lossless" else 5e-3
        ) * expected.abs().max()
        assert shared.lengths == copied.lengths


@needs_kernel
def test_layers_one_by_one_find_what_joined_steps_have_written():
    parts = Parts(2, "lossless")
    joined = parts.joined()
    cache = parts.cache(3, 9, shares=True)
    other = parts.cache(3, 9, shares=False)
    for one in (cache, other):
        parts.layers(normal(1, 4, WIDTH), one.rows([1], 4))
        one.reorder([0, 1, 2], [1, 1, 1])
    for step, sources in enumerate(([0, 0, 2], [1, 2, 0], [2, 2, 2])):
        x = normal(3, WIDTH, seed=step)
        for one in (cache, other):
            one.reorder([0, 1, 2], sources)
        expected = parts.layers(x[:, None], other.rows([0, 1, 2], 1))
        rows = cache.rows([0, 1, 2], 1)
        found = joined(x, rows) if step % 2 else parts.layers(x[:, None], rows)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@needs_kernel
def test_more_rows_than_one_call_takes_and_any_number_of_threads_are_the_same():
    parts = Parts(2, "int8")
    joined = parts.joined()
    x = normal(70, WIDTH)
    cache = parts.cache(70, 2, shares=True)
    together = joined(x, cache.rows(range(70), 1))
    threads = torch.get_num_threads()
    alone = parts.cache(70, 2, shares=True)
    try:
        torch.set_num_threads(3 - threads if threads < 3 else 1)
        for row in range(70):
            assert torch.equal(joined(x[row : row + 1], alone.rows([row], 1))[0], together[row])
    finally:
        torch.set_num_threads(threads)


@needs_kernel
def test_what_is_not_all_in_c_is_left_to_the_layers():
    parts = Parts(2, None)
    assert parts.joined() is None
    half = Parts(2, "int8")
    half.h[1].mlp.c_fc = parts.h[1].mlp.c_fc
    assert half.joined() is None
    half.h[1].mlp.c_fc = Parts(2, "int8").h[1].mlp.c_fc
    assert half.joined() is not None
    half.norms[1].eps = 1e-6
    assert half.joined() is None


@needs_kernel
def test_joined_steps_refuse_places_that_the_cache_does_not_have():
    parts = Parts(2, "int8")
    joined = parts.joined()
    cache = parts.cache(2, 4, shares=True)
    for _ in range(4):
        joined(normal(1, WIDTH), cache.rows([0], 1))
    with pytest.raises(ValueError, match="do not fit a cache of 4"):
        cache.rows([0], 1)
    cache.lengths[0] = 2
    rows = cache.rows([0], 1)
    cache.origins[0, 1] = 5  # a row that is not there
    with pytest.raises(ValueError, match="no room for rows"):
        joined(normal(1, WIDTH), rows)


@needs_kernel
def test_a_stack_is_freed_with_its_owner():
    joined = Parts(2, "int8").joined()
    gone = weakref.ref(joined)
    joined(normal(1, WIDTH), Parts(2, None).cache(1, 2, shares=True).rows([0], 1))
    del joined
    gc.collect()
    assert gone() is None


@needs_kernel
@pytest.mark.parametrize("greedy", [True, False])
def test_beams_choose_the_same_codes_either_way(greedy):
    parts = Parts(2, "lossless")
    joined = parts.joined()
    embedding = normal(SCORES, WIDTH, seed=7)
    settings = SearchSettings(
        beams=3,
        greedy=greedy,
        temperature=0.8,
        top_k=30,
        top_p=0.8,
        repetition_penalty=10.0,
        length_penalty=0.0,
        limit=40,
        stop=SCORES - 1,
        start=SCORES - 2,
    )
    found = {}
    for shares in (False, True):
        cache, slots = parts.cache(3, 60, shares=shares), [2, 0, 1]
        search, rng = make_search(settings, 6), torch.Generator().manual_seed(3)
        logits = parts.layers(normal(1, 6, WIDTH), cache.rows(slots[:1], 6)).expand(3, -1)
        cache.reorder(slots, slots[:1] * 3)
        while (turn := search.advance(logits, rng)) is not None:
            cache.reorder(slots, [slots[row] for row in turn.sources], start=6)
            x, rows = embedding[turn.codes], cache.rows(slots, 1)
            logits = joined(x, rows) if shares else parts.layers(x[:, None], rows)
        found[shares] = search.result
    assert found[True] == found[False]
    assert len(set(found[True])) > 10
