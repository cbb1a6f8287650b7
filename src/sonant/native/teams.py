"""Helper threads of OpenMP: each thread that ever ran a parallel loop of torch keeps some of its own.

With more helpers than processors GNU's runtime stops waiting actively, and every small parallel loop then
begins by waking a sleeper: a decoding step of two hundred loops took a quarter longer on two cores.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

SOFT = 1
"""Give helpers back, but remember settings. Source: OpenMP 5.0, omp_pause_soft."""


@cache
def _pause() -> Any:
    """GNU's `omp_pause_resource_all` as torch loaded it, or None."""
    import torch  # noqa: F401  another thread may be at it

    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    paths = [line.split(maxsplit=5)[5] for line in lines if "libgomp" in line]
    return getattr(ctypes.CDLL(paths[0]), "omp_pause_resource_all", None) if paths else None


def release() -> None:
    """Let the calling thread's helpers go; its next parallel loop gets new ones.

    For threads that prepare work and then wait for another one that does it.
    """
    pause = _pause() if "torch" in sys.modules else None  # without it no thread has helpers
    if pause is not None:
        pause(SOFT)
