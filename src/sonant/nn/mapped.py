"""Memory that loading a model leaves behind: pages of a mapped file that were copied, and what the allocator
keeps of what was freed."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

from torch import Tensor

WORTH = 1 << 20
"""Bytes; smaller tensors are left alone."""


def works() -> bool:
    """True where `give_back` does anything."""
    return sys.platform == "linux"


def give_back(*tensors: Tensor) -> None:
    """Let the system have the pages of tensors that were copied and will hardly be read again.

    Pages of a mapped file that were read count as this process's memory until the whole file is let go,
    that is until its last tensor is gone; a model is then in memory twice while it loads. The tensors stay
    good: what is read again comes from the file again. Tensors in memory of their own are left alone, and
    so is everything on systems other than Linux.
    """
    if not works():
        return
    large = [t for t in tensors if t.device.type == "cpu" and t.nbytes >= WORTH and _is_dense(t)]
    if not large:
        return
    mapped = _mapped_files()
    page = mmap.PAGESIZE
    for tensor in large:
        begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if any(low <= begin and end <= high for low, high in mapped):
            first, last = -(-begin // page) * page, end // page * page  # whole pages: neighbours share others
            _library().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def trim() -> None:
    """Let the system have what was freed and the allocator keeps; nothing where it has no such call."""
    release = getattr(_library(), "malloc_trim", None) if works() else None
    if release is not None:
        release(0)


def _is_dense(tensor: Tensor) -> bool:
    """True when the values fill one stretch of memory, in any order."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return reach + 1 == tensor.numel()


def _mapped_files() -> list[tuple[int, int]]:
    """First and last address of each file mapped for this process alone."""
    found = []
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                parts = line.split(maxsplit=5)
                if len(parts) == 6 and parts[1].endswith("p") and parts[5].startswith("/"):
                    low, _, high = parts[0].partition("-")
                    found.append((int(low, 16), int(high, 16)))
    except OSError:
        pass
    return found


@cache
def _library() -> Any:
    return ctypes.CDLL(None, use_errno=True)
