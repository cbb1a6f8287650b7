"""One new position of several rows through a GPT-2 stack, its closing norms and its head, in one call into C.

A step of a few rows is bound by reading narrow weights; the two hundred calls of its layers would take as
long again. The arithmetic is that of the layers one by one.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sonant.native import check_done
from sonant.nn.cache import CacheRows, KVCache
from sonant.nn.quantized import BLOCK, TILE, NativeLinear


class NativeGpt2:
    """The steps of blocks whose products are all in C; the cache, made with `shares`, stays the caller's."""

    def __init__(
        self, blocks: Sequence[Any], norms: Sequence[nn.LayerNorm], head: NativeLinear, *, heads: int
    ) -> None:
        self._library = head.library
        self._kept: list[Any] = [blocks, head]  # what C points to
        self._scores, self._layers = head.out_features, len(blocks)
        self._cache: weakref.ref[KVCache] | None = None
        self._storage: tuple[Any, Any] = ((), ())
        width = head.in_features
        self.handle = self._library.sonant_gpt2_new(
            len(blocks),
            width,
            heads,
            blocks[0].mlp.c_fc.out_features,
            head.out_features,
            norms[0].eps,
            BLOCK,
            self._pointers(*(tensor for norm in norms for tensor in (norm.weight, norm.bias))),
            head.handle,
            None if head.bias is None else head.bias.data_ptr(),
        )
        if not self.handle:
            raise MemoryError(f"no memory for a stack of {len(blocks)} layers of width {width}")
        for index, block in enumerate(blocks):
            linears = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
            vectors = [tensor for norm in (block.ln_1, block.ln_2) for tensor in (norm.weight, norm.bias)]
            done = self._library.sonant_gpt2_layer(
                self.handle,
                index,
                *(linear.handle for linear in linears),
                self._pointers(*vectors, *(linear.bias for linear in linears)),
            )
            check_done(done, f"layer {index}")

    @classmethod
    def of(
        cls, blocks: Sequence[Any], norms: Sequence[nn.LayerNorm], head: nn.Module, *, heads: int
    ) -> NativeGpt2 | None:
        """The steps of these parts, or None when one of them is not in C or C does not take its kind.

        blocks have ln_1, attn (c_attn, c_proj), ln_2 and mlp (c_fc, c_proj); two norms precede the head.
        """
        linears = [
            part
            for block in blocks
            for name, part in block.named_modules()
            if name.split(".")[-1][:2] == "c_"
        ]
        if not isinstance(head, NativeLinear) or not all(isinstance(part, NativeLinear) for part in linears):
            return None
        sizes = [size for part in linears for size in (part.in_features, part.out_features)]
        every = [*norms, *(norm for block in blocks for norm in (block.ln_1, block.ln_2))]
        if any(size % TILE for size in sizes) or len(norms) != 2 or len({norm.eps for norm in every}) != 1:
            return None
        return cls(blocks, norms, head, heads=heads)

    def _pointers(self, *vectors: Tensor | None) -> Any:
        kept = [None if vector is None else vector.detach().float().contiguous() for vector in vectors]
        pointers = (ctypes.c_void_p * len(kept))(*(None if v is None else v.data_ptr() for v in kept))
        self._kept.append((kept, pointers))
        return pointers

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._library.sonant_gpt2_free(self.handle)

    def __call__(self, x: Tensor, rows: CacheRows) -> Tensor:
        """Scores [B, V], float32, of one new position x [B, D] of each row."""
        cache, count = rows.cache, len(rows.slots)
        assert rows.new == 1, "a step is one position"
        assert cache.origins is not None, "rows may share positions"
        integers = ctypes.c_int32 * count
        slots, places = integers(*rows.slots), integers(*rows.starts)
        keys, values = self._where(cache)
        x = x.float().contiguous()
        scores = torch.empty(count, self._scores)
        for start in range(0, count, BLOCK):
            done = self._library.sonant_gpt2_run(
                self.handle,
                min(BLOCK, count - start),
                x.data_ptr() + 4 * x.shape[1] * start,
                ctypes.addressof(slots) + 4 * start,
                ctypes.addressof(places) + 4 * start,
                cache.origins.ctypes.data,
                keys,
                values,
                len(cache.lengths),
                cache.capacity,
                scores.data_ptr() + 4 * self._scores * start,
                torch.get_num_threads(),
            )
            check_done(done, f"rows {rows.slots} that end at {rows.total}")
        rows.commit()
        return scores

    def _where(self, cache: KVCache) -> tuple[Any, Any]:
        if self._cache is None or self._cache() is not cache:
            self._storage, self._cache = cache.pointers(), weakref.ref(cache)
        return self._storage
