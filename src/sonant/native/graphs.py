"""onnxruntime, which runs graphs in the CPU's own code, and is told to keep what it does to itself."""

from __future__ import annotations

import os
from types import ModuleType


def onnxruntime() -> ModuleType:
    """The package. Whoever calls a library that imports it (hibari, Whisper's) calls this first.

    Of late (1.31) it reports its use to its maker over the network, from a thread of its own, unless this
    variable is set before it is loaded. Source: the strings of its library; with it the thread is gone.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
