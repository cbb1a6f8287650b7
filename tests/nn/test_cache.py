"""The cache of keys and values: rows that are copied between steps."""

import torch

from sonant.nn.cache import KVCache


def test_reordered_rows_are_copies_of_their_sources_whatever_the_order():
    def filled():
        cache = KVCache(layers=2, slots=4, heads=2, head_dim=3, capacity=8)
        rng = torch.Generator().manual_seed(0)
        for storage in (*cache.keys, *cache.values):
            storage.copy_(torch.randn(storage.shape, generator=rng))
        cache.lengths = [5, 6, 7, 4]
        return cache

    for sources in ([1, 0, 2], [0, 0, 0], [2, 0, 1], [1, 2, 2], [0, 1, 2]):
        for start in (0, 3):
            before, after = filled(), filled()
            after.reorder([0, 1, 2], sources, start=start)
            assert after.lengths == [before.lengths[source] for source in sources] + [4]
            for old, new in zip((*before.keys, *before.values), (*after.keys, *after.values), strict=True):
                for row, source in enumerate(sources):
                    length = before.lengths[source]
                    assert torch.equal(new[row, :, start:length], old[source, :, start:length])
                    assert torch.equal(new[row, :, :start], old[row, :, :start])
                assert torch.equal(new[3], old[3])
