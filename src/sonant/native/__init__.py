"""The C kernels: decoder stacks with narrow weights, and convolutions. Compiled on first use, then cached.

`library()` gives the loaded library or None; nothing here runs at import. SONANT_NATIVE=0 switches the
kernel off, and the plain torch path in `sonant.nn.quantized` does the same arithmetic.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

log = logging.getLogger(__name__)

P, N, F, S = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_size_t

SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "sonant_best_path": (N, ()),
    "sonant_choose_path": (None, (N,)),
    "sonant_limit_threads": (None, (N,)),
    "sonant_weight_bytes": (S, (N, N, N)),
    "sonant_scale_count": (S, (N, N, N, N)),
    "sonant_linear_new": (P, (N, N, N, N)),
    "sonant_linear_free": (None, (P,)),
    "sonant_linear_weights": (P, (P,)),
    "sonant_linear_scales": (P, (P,)),
    "sonant_linear_pack": (None, (P, P)),
    "sonant_linear_run": (N, (P, N, P, P, P, N)),
    "sonant_stack_new": (P, (N, N, N, N, N, N, F, F, N)),
    "sonant_stack_free": (None, (P,)),
    "sonant_stack_layer": (None, (P, N, P, P, P, P, P, P, P, P, P)),
    "sonant_stack_norm": (None, (P, P)),
    "sonant_frame_run": (N, (P, N, N, N, N, *(P,) * 8, N, *(P,) * 8, N)),
    "sonant_stack_run": (None, (P, N, P, P, P, P, P, N, P, P, P, N)),
    "sonant_conv_has_bfloat16": (N, ()),
    "sonant_conv_new": (P, (N, N, N, N, N, P)),
    "sonant_conv_free": (None, (P,)),
    "sonant_conv_run": (N, (P, N, *(P,) * 8, N)),
    "sonant_oversampled_snake": (N, (N, N, *(P,) * 6, N)),
}

SOURCES = ("memory.h", "memory.c", "snake.h", "stack.c", "conv.c", "oversampled.c")

PATHS = ("plain C", "AVX2", "AVX512-VNNI")


def _flags() -> list[str]:
    # Finite-math assumptions stay off: scores may be -inf. -march=native is right because the result is
    # cached for this machine only.
    flags = ["-O3", "-std=gnu11", "-ffast-math", "-fno-finite-math-only", "-fopenmp", "-fPIC", "-shared"]
    if platform.machine() in ("x86_64", "AMD64"):
        return [*flags, "-march=native"]
    return [*flags, "-mcpu=native"] if platform.machine() in ("aarch64", "arm64") else flags


def cache_folder() -> Path:
    """Where compiled kernels and quantised weights are kept: SONANT_CACHE, or the user's cache folder."""
    given = os.environ.get("SONANT_CACHE")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("sonant"))


@cache
def library() -> ctypes.CDLL | None:
    """The kernel, compiled if need be; None when switched off or when it cannot be compiled here."""
    if os.environ.get("SONANT_NATIVE") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if compiler is None:
        log.warning("no C compiler found: models run on the slower torch path. Install gcc or clang.")
        return None
    folder = resources.files("sonant.native")
    sources = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES}
    key = hashlib.sha256(
        "\n".join([*sources.values(), compiler, *_flags(), platform.machine(), _processor()]).encode()
    ).hexdigest()[:16]
    target = cache_folder() / "native" / f"sonant-{key}.so"
    if not target.exists() and not _compile(compiler, sources, target):
        return None
    import torch  # noqa: F401  torch's OpenMP runtime is loaded first, so both share one thread pool

    loaded = ctypes.CDLL(str(target))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def path_in_use() -> str | None:
    """Which of PATHS the kernel takes on this processor; None when no model has asked for the kernel."""
    loaded = library() if library.cache_info().currsize else None
    return None if loaded is None else PATHS[loaded.sonant_best_path()]


def limit_threads(count: int) -> None:
    """Threads that the kernel and torch use for what the calling thread begins; other threads keep theirs.

    Without the kernel nothing changes: only its results are the same for every number of threads.
    """
    loaded = library()
    if loaded is not None:
        loaded.sonant_limit_threads(count)


def _processor() -> str:
    """The processor's feature flags, so that a shared home folder never serves another machine's code."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()


def _compile(compiler: str, sources: Mapping[str, str], target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "made.so"
        codes = [str(Path(folder) / name) for name in sources if name.endswith(".c")]
        for name, source in sources.items():
            (Path(folder) / name).write_text(source, encoding="utf-8")
        command = [compiler, *_flags(), "-o", str(made), *codes, "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.SubprocessError) as error:
            detail = getattr(error, "stderr", "") or str(error)
            log.warning("the kernel did not compile (%s); models run on the slower torch path", detail[:400])
            return False
        os.replace(made, target)
    return True
