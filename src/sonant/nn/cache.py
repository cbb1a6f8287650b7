"""Key-value cache with fixed slots: one row per running utterance, each of its own age.

Storage is allocated once, [slots, H, capacity, D] a layer; lengths live on the host, so a step never
waits for the device. `rows(...)` gives the view that one forward pass works with.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Rows(Protocol):
    """What a decoder stack needs of a cache during one forward pass."""

    positions: Tensor
    mask: Tensor | None

    def windowed(self, window: int) -> Tensor | None: ...
    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...
    def commit(self) -> None: ...


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take memory only where they are written: a cache is as large as the longest utterance
    may become, and few become that long. On a CPU torch would write them all."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)).view(dtype).view(shape)


class KVCache:
    """Keys and values of `layers` attention layers for `slots` rows of up to `capacity` positions.

    A cache that `shares` keeps for each row and position the row whose storage holds it, and `reorder` moves
    these numbers instead of keys and values. A place of the storage is written by its own row, and not again
    before that row is freed: rows that were one stay right as they part, and have to be freed together.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        shares: bool = False,
    ) -> None:
        shape = (slots, heads, capacity, head_dim)
        self.keys = [_zeros(shape, dtype, torch.device(device)) for _ in range(layers)]
        self.values = [_zeros(shape, dtype, torch.device(device)) for _ in range(layers)]
        self.lengths = [0] * slots
        self.capacity = capacity
        self.origins = np.zeros((slots, capacity), np.int32) if shares else None
        """[slots, capacity]: the row that holds each position of a row, or None: its own, always."""

    def pointers(self) -> tuple[Any, Any]:
        """Where the keys and the values of each layer lie, for C."""
        pointers = ctypes.c_void_p * len(self.keys)
        return tuple(  # type: ignore[return-value]
            pointers(*(storage.data_ptr() for storage in stored)) for stored in (self.keys, self.values)
        )

    def grown(self, capacity: int) -> KVCache:
        """A cache of longer rows, with what is in these; this one holds nothing any more."""
        assert capacity >= self.capacity
        like, longest = self.keys[0], max(self.lengths)
        made = KVCache(
            layers=len(self.keys),
            slots=len(self.lengths),
            heads=like.shape[1],
            head_dim=like.shape[3],
            capacity=capacity,
            dtype=like.dtype,
            device=like.device,
            shares=self.origins is not None,
        )
        if self.origins is not None and made.origins is not None:
            made.origins[:, :longest] = self.origins[:, :longest]
        for old, new in ((self.keys, made.keys), (self.values, made.values)):
            for layer, fresh in enumerate(new):
                fresh[:, :, :longest] = old[layer][:, :, :longest]
                old[layer] = fresh[:, :, :0]  # the old storage goes layer by layer
        made.lengths = list(self.lengths)
        self.lengths = [0] * len(self.lengths)
        return made

    def free(self, slot: int) -> None:
        """Forget a row; its storage is used again by the next utterance."""
        length, self.lengths[slot] = self.lengths[slot], 0
        if length and self.keys[0].device.type != "cpu":
            # Steps of fixed shape look beyond a row's end with weight 0; 0 times no number is no number.
            for storage in (*self.keys, *self.values):
                storage[slot, :, :length] = 0

    def rows(self, slots: Sequence[int], new: int) -> CacheRows:
        """The rows `slots`, about to receive `new` positions each in one forward pass."""
        rows = CacheRows(self, slots, new)
        if self.origins is not None:
            for slot, start in zip(rows.slots, rows.starts, strict=True):
                self.origins[slot, start : start + new] = slot
        return rows

    def reorder(self, slots: Sequence[int], sources: Sequence[int], *, start: int = 0) -> None:
        """Row slots[i] becomes a copy of row sources[i], all at once (beam search).

        Positions before `start` are known to be equal in all of these rows, and are left alone.
        """
        moved = [(to, source) for to, source in zip(slots, sources, strict=True) if to != source]
        if not moved:
            return
        lengths = [self.lengths[source] for _, source in moved]
        stop = max(lengths)
        if self.origins is not None:
            self.origins[list(slots), start:stop] = self.origins[list(sources), start:stop]
        else:
            self._copy(moved, start, stop)
        for (to, _), length in zip(moved, lengths, strict=True):
            self.lengths[to] = length

    def _copy(self, moved: Sequence[tuple[int, int]], start: int, stop: int) -> None:
        targets = {to for to, _ in moved}
        for storage in (*self.keys, *self.values):
            # What is overwritten before it was read is set aside.
            fresh = [storage[source, :, start:stop] for _, source in moved]
            fresh = [
                x.clone() if source in targets else x for x, (_, source) in zip(fresh, moved, strict=True)
            ]
            for (to, _), x in zip(moved, fresh, strict=True):
                storage[to, :, start:stop] = x


class CacheRows:
    """Some rows of a cache during one forward pass of `new` positions a row.

    `positions` [B, new] are the places the new positions take (row age + 0, 1, ...). `mask`
    [B, 1, new, past + new] is True where a query may look, or None when everything is visible.
    Call `append` once a layer, then `commit` once after the last layer.
    """

    def __init__(self, cache: KVCache, slots: Sequence[int], new: int) -> None:
        self.cache = cache
        self.slots = list(slots)
        self.new = new
        self.starts = [cache.lengths[slot] for slot in self.slots]
        self.total = max(self.starts) + new
        if self.total > cache.capacity:
            raise ValueError(f"{self.total} positions do not fit a cache of {cache.capacity}")
        first = self.slots[0]
        self._is_range = self.slots == list(range(first, first + len(self.slots)))
        self._is_even = len(set(self.starts)) == 1

    @cached_property
    def positions(self) -> Tensor:
        """[B, new]"""
        device = self.cache.keys[0].device
        return torch.tensor(self.starts, device=device)[:, None] + torch.arange(self.new, device=device)

    @cached_property
    def mask(self) -> Tensor | None:
        """[B, 1, new, total], or None"""
        if self._is_even and self.new == 1:
            return None
        seen = torch.arange(self.total, device=self.positions.device)
        return (seen[None, None, :] <= self.positions[:, :, None])[:, None]

    @cached_property
    def _index(self) -> Tensor:
        return torch.tensor(self.slots, device=self.cache.keys[0].device)

    def windowed(self, window: int) -> Tensor | None:
        """`mask` narrowed so that a query sees itself and `window - 1` earlier positions."""
        if self.total <= window and self.mask is None:
            return None
        seen = torch.arange(self.total, device=self.positions.device)
        distance = self.positions[:, :, None] - seen[None, None, :]
        return ((distance >= 0) & (distance < window))[:, None]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, H, new, D] of one layer; all of the rows' [B, H, total, D]."""
        return (
            self._write(self.cache.keys[layer], keys),
            self._write(self.cache.values[layer], values),
        )

    @cached_property
    def _holders(self) -> Tensor | None:
        """[B, total]: the row that holds each position, where it is not the row itself."""
        origins = self.cache.origins
        if origins is None or not any(self.starts):
            return None
        return torch.from_numpy(origins[self.slots, : self.total].astype(np.int64))

    def _write(self, storage: Tensor, fresh: Tensor) -> Tensor:
        if self._holders is not None:
            for row, (slot, start) in enumerate(zip(self.slots, self.starts, strict=True)):
                storage[slot, :, start : start + self.new] = fresh[row]
            return storage[self._holders, :, torch.arange(self.total)].transpose(1, 2)  # from [B, T, H, D]
        if self._is_range:
            first, count = self.slots[0], len(self.slots)
            view = storage[first : first + count]
            if self._is_even:
                start = self.starts[0]
                view[:, :, start : start + self.new] = fresh
            else:
                for row, start in enumerate(self.starts):
                    view[row, :, start : start + self.new] = fresh[row]
            return view[:, :, : self.total]
        for row, (slot, start) in enumerate(zip(self.slots, self.starts, strict=True)):
            storage[slot, :, start : start + self.new] = fresh[row]
        return storage[:, :, : self.total].index_select(0, self._index)

    def commit(self) -> None:
        """The rows have grown by `new`."""
        for slot in self.slots:
            self.cache.lengths[slot] += self.new


class WindowRows:
    """Keys and values of a stream that looks back `window - 1` positions, for one forward pass.

    Like `CacheRows`, for a stack with sliding attention that is fed in pieces without end. `past` holds
    keys and values of each layer, [B, H, n, D] with n below `window`, and `start` is how many positions
    came before; after the pass `new` is the next piece's past. None is the start.
    """

    def __init__(
        self, past: Sequence[tuple[Tensor, Tensor]] | None, *, start: int, new: int, window: int, like: Tensor
    ) -> None:
        self._past = past
        self._window = window
        kept = min(start, window - 1) if past is not None else 0
        self.positions = torch.arange(start, start + new, device=like.device)[None]
        seen = torch.arange(start - kept, start + new, device=like.device)
        distance = self.positions[0, :, None] - seen[None, :]
        self.mask: Tensor | None = ((distance >= 0) & (distance < window))[None, None]
        self.new: list[tuple[Tensor, Tensor]] = []

    def windowed(self, window: int) -> Tensor | None:
        """The mask [1, 1, new, kept + new]; the window is the one these rows were made for."""
        assert window == self._window
        return self.mask

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [B, H, kept + new, D] that the new positions may look at."""
        if self._past is not None:
            keys = torch.cat((self._past[layer][0], keys), dim=2)
            values = torch.cat((self._past[layer][1], values), dim=2)
        first = max(0, keys.shape[2] - (self._window - 1))
        self.new.append((keys[:, :, first:], values[:, :, first:]))
        return keys, values

    def commit(self) -> None:
        """Nothing to do: `new` is complete."""


class PaddedWindow:
    """`WindowRows` whose shapes never change: the past is `window - 1` long from the start.

    `start` [] says on the device how many positions came before; what the past holds of places before the
    first is not looked at. After the pass `new` is the next piece's past, as long again.
    """

    def __init__(
        self, past: Sequence[tuple[Tensor, Tensor]], *, start: Tensor, new: int, window: int
    ) -> None:
        self._past, self._window = past, window
        self.positions = (start + torch.arange(new, device=start.device))[None]
        seen = start + torch.arange(1 - window, new, device=start.device)
        distance = self.positions[0, :, None] - seen[None, :]
        self.mask: Tensor | None = ((distance >= 0) & (distance < window) & (seen >= 0))[None, None]
        self.new: list[tuple[Tensor, Tensor]] = []

    def windowed(self, window: int) -> Tensor | None:
        """The mask [1, 1, new, window - 1 + new]; the window is the one these rows were made for."""
        assert window == self._window
        return self.mask

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [B, H, window - 1 + new, D], what lies before the first position included."""
        both = tuple(torch.cat(pair, dim=2) for pair in zip(self._past[layer], (keys, values), strict=True))
        first = keys.shape[2]
        self.new.append((both[0][:, :, first:], both[1][:, :, first:]))
        return both[0], both[1]

    def commit(self) -> None:
        """Nothing to do: `new` is complete."""
