"""Tensors of a checkpoint's files that nothing reads: gathered while modules load, told by name and size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from sonant.errors import few

log = logging.getLogger(__name__)

Unread = dict[str, dict[str, int]]
"""File -> key -> bytes of tensors that nothing reads."""
_collected: ContextVar[Unread | None] = ContextVar("sonant_unread_tensors", default=None)


@contextmanager
def collecting_unread() -> Iterator[Unread]:
    """What `load_strict` or `used` find in files beyond what modules read, gathered over a whole checkpoint.

    Outside of this, `load_strict` logs each file's as it is loaded.
    """
    found: Unread = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def leave_unread(where: str, tensors: Mapping[str, Tensor], *, is_logged: bool = False) -> None:
    """Tell a surrounding `collecting_unread` that nothing reads these tensors of a file.

    Where nobody collects, they are logged if `is_logged`.
    """
    if not tensors:
        return
    sizes = {key: tensor.nbytes for key, tensor in tensors.items()}
    found = _collected.get()
    if found is not None:
        found.setdefault(where, {}).update(sizes)
    elif is_logged:
        log.warning("tensors that nothing reads are left out: %s", told_unread({where: sizes}))


def told_unread(found: Unread) -> str:
    """The tensors by name and size, the largest first; a long list is cut."""
    parts = []
    for where, tensors in found.items():
        names = sorted(tensors, key=lambda key: (-tensors[key], key))
        listing = ", ".join(few([f"{key} ({_size(tensors[key])})" for key in names]))
        parts.append(f"{where} holds {len(names)} ({_size(sum(tensors.values()))}): {listing}")
    return "; ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"
