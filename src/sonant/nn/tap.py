"""A named point in a network that a trace may record; one `None` check when none is active."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Sink = Callable[[str, Tensor], Tensor | None]

_sink: Sink | None = None
_scope: ContextVar[str] = ContextVar("sonant_tap_scope", default="")


def tap(name: str, tensor: Tensor) -> Tensor:
    """`tensor` itself; while a sink is active, the sink sees it first and may replace it.

    Use as `x = tap("flow.block.3.attention", x)`. Replacement is how a parity run feeds a reference's
    tensor into a stage, so the value must be used, not dropped.
    """
    if _sink is None or torch.compiler.is_compiling():
        return tensor
    replaced = _sink(_scope.get() + name, tensor)
    return tensor if replaced is None else replaced


def is_tapped() -> bool:
    """True while a sink is active, so that a shortcut past taps must not be taken."""
    return _sink is not None


@contextmanager
def tapped(sink: Sink) -> Iterator[None]:
    """Send every tap inside the block to `sink(name, tensor)`. Not reentrant; one trace at a time."""
    global _sink
    if _sink is not None:
        raise RuntimeError("a trace is already active in this process")
    _sink = sink
    try:
        yield
    finally:
        _sink = None


@contextmanager
def tap_scope(prefix: str) -> Iterator[None]:
    """Put `prefix` before every tap name inside the block, such as "step.3."."""
    token = _scope.set(_scope.get() + prefix)
    try:
        yield
    finally:
        _scope.reset(token)
