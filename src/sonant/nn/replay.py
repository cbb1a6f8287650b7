"""Work on tensors that stay where they are: recorded once as a CUDA graph, then replayed.

A step of a small batch is thousands of short kernels; launching them one by one from Python takes several
times as long as running them. Elsewhere (CPU, MPS, XPU) the same work simply runs.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARM_UPS = 2
"""Runs before a recording, so that libraries have chosen their kernels and made their workspaces."""
MOST = 256
"""Recordings kept: each holds some megabytes of the device. Keys beyond them run unrecorded."""

_one_at_a_time = threading.Lock()
"""A process may record one graph at a time, whatever model and thread it is for."""


def free_memory() -> None:
    """Give memory that nothing uses back to the device and other programs, but not inside a recording."""
    with _one_at_a_time:
        gc.collect()  # which may find recordings
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Recorded(Protocol):
    def replay(self) -> None: ...


class Replay:
    """The recordings of one device, by key; they share one memory pool.

    A recording is checked: a replay must give what the work gave when it simply ran. Where recording
    fails or the check does, a warning says why, and the work runs unrecorded from then on.
    """

    def __init__(self, device: torch.device, *, records: bool | None = None) -> None:
        self.device = device
        self.records = device.type == "cuda" if records is None else records
        """Whether new keys are recorded."""
        self._graphs: dict[Hashable, _Recorded] = {}
        self._pool: Any = None
        self._beside: Any = None
        """The stream of all recordings: libraries keep a workspace for each stream, and graphs that share a
        pool have to share their stream."""

    def __len__(self) -> int:
        return len(self._graphs)

    def has(self, key: Hashable) -> bool:
        """True when `run` needs no recording first."""
        return not self.records or key in self._graphs or len(self._graphs) >= MOST

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do the work: replayed when `record` was called for this key, else as it is."""
        graph = self._graphs.get(key)
        if graph is None:
            work()
        else:
            graph.replay()

    def record(
        self,
        key: Hashable,
        work: Callable[[], None],
        result: Tensor,
        *,
        reset: Callable[[], None] = lambda: None,
    ) -> None:
        """Record the work, unless it is there already or nothing is recorded here.

        The work runs a few times meanwhile; `reset` is called before each, so that all of them are equal.
        `result` is a tensor that the work writes, compared between a run and a replay.
        """
        if self.has(key):
            return
        try:
            with _one_at_a_time:
                self._graphs[key] = self._checked(work, result, reset)
        except (RuntimeError, AssertionError) as error:
            self.records = False
            log.warning(
                "steps on %s run without CUDA graphs, which is slower: recording %s failed (%s)",
                self.device,
                key,
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            )

    def _checked(self, work: Callable[[], None], result: Tensor, reset: Callable[[], None]) -> _Recorded:
        result.zero_()  # it may be larger than what this work writes of it
        for _ in range(WARM_UPS):
            reset()
            work()
        expected = result.clone()
        graph = self._capture(work)
        result.zero_()
        reset()
        graph.replay()
        # What is no number stays none: a row whose weights or dtype are at fault is not the recording's.
        if not torch.allclose(result.float(), expected.float(), rtol=1e-3, atol=1e-3, equal_nan=True):
            worst = float((result.float() - expected.float()).abs().max())
            raise RuntimeError(f"a replay differs by {worst:.3g} from the work itself")
        return graph

    def _capture(self, work: Callable[[], None]) -> _Recorded:
        with torch.cuda.device(self.device):
            if self._beside is None:
                self._beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                self._pool = torch.cuda.graph_pool_handle()
            usual = torch.cuda.current_stream()
            self._beside.wait_stream(usual)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.stream(
                    self._beside
                ):  # once where it is captured: libraries keep state by stream
                    work()
                usual.wait_stream(self._beside)
                # Only what this thread does is recorded; another may be decoding.
                with (
                    _no_collection(),
                    torch.cuda.graph(
                        graph, pool=self._pool, stream=self._beside, capture_error_mode="thread_local"
                    ),
                ):
                    work()
            finally:
                torch.cuda.set_stream(usual)  # torch leaves it only where the capture ends well
        return graph


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected meanwhile: a graph found among it would be destroyed inside the recording."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
