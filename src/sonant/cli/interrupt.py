"""Ctrl-C that never tears a file: it breaks off waiting at once, and writing after the chunk in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class CtrlC:
    """While entered, an interrupt raises KeyboardInterrupt inside `waiting()` and nowhere else."""

    def __init__(self) -> None:
        self._is_waiting = False
        self._was_pressed = False
        self._before: Any = None

    def __enter__(self) -> CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around whatever may be broken off at any point."""
        self._is_waiting = True
        try:
            if self._was_pressed:
                raise KeyboardInterrupt
            yield
        finally:
            self._is_waiting = False

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        self._was_pressed = True
        if self._is_waiting:
            raise KeyboardInterrupt
