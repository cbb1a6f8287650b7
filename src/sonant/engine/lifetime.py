"""Whose threads run in this process: all are closed when it ends, and told of a fork in the child.

A thread inside torch aborts an interpreter that ends meanwhile, so a loop is closed at exit even where its
engine was let go of.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import Protocol

from sonant.errors import GenerationError


class Running(Protocol):
    """What has threads."""

    def stop(self) -> None:
        """Ask the threads to end."""

    def close(self) -> None:
        """`stop`, and wait for them."""

    def lose_threads(self) -> None:
        """They stayed in the process that was forked."""


_begun: set[Running] = set()
_lock = threading.Lock()
_is_ending = False
"""True once the process ends: no thread begins any more, as nobody would wait for it."""


def check() -> None:
    """GenerationError once the process ends."""
    if _is_ending:
        raise GenerationError("this process ends; nothing is spoken any more")


def begin(one: Running) -> None:
    """Its threads are about to begin. Raises what `check` raises."""
    with _lock:
        check()
        _begun.add(one)


def end(one: Running) -> None:
    """Its threads have ended."""
    with _lock:
        _begun.discard(one)


def close_all() -> None:
    """Close what a process leaves open; nothing begins afterwards."""
    global _is_ending
    with _lock:
        _is_ending, begun = True, list(_begun)
    with contextlib.ExitStack() as waiting:  # all are told first; each is waited for, whatever another does
        for one in begun:
            waiting.callback(one.close)
            one.stop()


def _after_fork() -> None:
    """In a forked child: threads stayed with the parent, and the locks that one of them may have held. The
    loops are kept, with their models: onnxruntime crashes where it destroys in a child what a parent made."""
    global _lock
    _lock = threading.Lock()
    for one in list(_begun):
        one.lose_threads()


atexit.register(close_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
