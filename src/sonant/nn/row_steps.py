"""One id for each of some rows of a cache -> scores of the next, as one piece of work on the device.

    ids [B] --embedding--> x [B, D] --layers over the cache--> hidden --head--> scores [B, V]

On CUDA it is recorded for each size of batch and reach of the attention (nn/replay.py), elsewhere it runs as
it is. The host looks at the scores once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sonant.nn.cache import KVCache
from sonant.nn.replay import Replay
from sonant.nn.step_stack import Reach, batch_sizes, reaches

Work = Callable[[Tensor, Tensor, Reach], Tensor]
"""Float32 scores [B, V] from ids [B] and their places [B] (whatever a network counts)."""


class RowSteps:
    """Steps of up to `slots` rows of a cache, which has one position more than rows may fill: those that
    rest write there. `scores` is how many a row gives."""

    def __init__(self, work: Work, cache: KVCache, *, slots: int, scores: int) -> None:
        self._work, self._cache, self._slots = work, cache, slots
        device = cache.keys[0].device
        self.replay = Replay(device)
        self._rest = cache.capacity - 1
        self._control = torch.zeros(slots, 3, dtype=torch.int64, device=device)
        self._host_control = torch.zeros(slots, 3, dtype=torch.int64, pin_memory=device.type == "cuda")
        wide = torch.float64 if cache.keys[0].dtype == torch.float64 else torch.float32
        self._scores = torch.zeros(slots, scores, dtype=wide, device=device)

    def __call__(self, ids: Sequence[int], places: Sequence[int], slots: Sequence[int]) -> Tensor:
        """Scores [n, V], on the CPU, after one more id in each of the rows `slots`."""
        lengths = self._cache.lengths
        rows = next(size for size in batch_sizes(self._slots) if size > max(slots))
        needed = max(lengths[slot] for slot in slots) + 1
        reach = next(reach for reach in reaches(self._rest) if reach >= needed)
        if not self.replay.has((rows, reach)):
            self._record(rows, reach)
        self._rest_all()
        for slot, chosen, place in zip(slots, ids, places, strict=True):
            self._host_control[slot] = torch.tensor((lengths[slot], chosen, place))
        self._control.copy_(self._host_control, non_blocking=True)
        self.replay.run((rows, reach), lambda: self._step(rows, reach))
        for slot in slots:
            lengths[slot] += 1
        return self._scores[:rows].cpu()[list(slots)]

    def warm_up(self) -> None:
        """Record every size of batch and reach, where steps are recorded."""
        for reach in reaches(self._rest):
            for rows in batch_sizes(self._slots):
                if not self.replay.has((rows, reach)):
                    self._record(rows, reach)

    def _rest_all(self) -> None:
        self._host_control.zero_()
        self._host_control[:, 0] = self._rest

    def _record(self, rows: int, reach: int) -> None:
        """While every row rests, a step changes nothing but the place where they write."""
        self._rest_all()
        self._control.copy_(self._host_control)
        self.replay.record((rows, reach), lambda: self._step(rows, reach), self._scores)

    def _step(self, rows: int, reach: int) -> None:
        positions, ids, places = self._control[:rows].unbind(dim=1)
        self._scores[:rows] = self._work(ids, places, Reach.of(self._cache, positions, reach))
