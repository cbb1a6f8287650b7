"""Helper threads of OpenMP: each thread that ever ran a parallel loop of torch keeps some of its own.

With more helpers than processors GNU's runtime stops waiting actively, and every small parallel loop then
begins by waking a sleeper: a decoding step of two hundred loops took a quarter longer on two cores.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

SOFT = 1
"""Give helpers back, but remember settings. Source: OpenMP 5.0, omp_pause_soft."""


@cache
def _pauses() -> tuple[Any, ...]:
    """`omp_pause_resource_all` of every GNU runtime that is loaded by now, torch's own among them.

    Packages beside torch bring copies of their own, and which the system lists first is chance; one in
    which the caller has no helpers does nothing.
    """
    import torch  # noqa: F401  another thread may be at it

    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ()
    mapped = dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines)
    found = []
    for path in mapped:
        if Path(path).name.startswith("libgomp"):
            with suppress(OSError, AttributeError):  # replaced on disk since, or of a time before OpenMP 5
                found.append(ctypes.CDLL(path).omp_pause_resource_all)
    return tuple(found)


def release() -> None:
    """Let the calling thread's helpers go; its next parallel loop gets new ones.

    For threads that prepare work and then wait for another one that does it.
    """
    for pause in _pauses() if "torch" in sys.modules else ():  # without it no thread has helpers
        pause(SOFT)
