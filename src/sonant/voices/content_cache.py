"""A small memory of what was already worked out, by content: the oldest use is forgotten first."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from sonant.request.audio import Audio

T = TypeVar("T")


def audio_key(audio: Audio) -> str:
    """Identity of a clip: its samples and rate, wherever they came from."""
    state = hashlib.sha256(np.ascontiguousarray(audio.samples).tobytes())
    state.update(str(audio.sample_rate).encode())
    return state.hexdigest()


class ContentCache(Generic[T]):
    """At most `capacity` results. Holds pure functions of their key, so it changes no answer."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The result for a key, worked out by `make` when it is not remembered."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            self._kept.move_to_end(key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return made
