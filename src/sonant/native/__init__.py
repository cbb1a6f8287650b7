"""The C kernels: decoder stacks with narrow weights, convolutions. From the wheel, or compiled on first use.

`library()` gives the loaded library or None; nothing here runs at import. SONANT_NATIVE=0 switches the
kernels off, SONANT_NATIVE=compile passes over those of the wheel. Without any, the plain torch path in
`sonant.nn.quantized` does the same arithmetic of a precision that is named; "auto" is lossless then.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
from functools import cache
from importlib import resources
from pathlib import Path

from sonant.native.variants import (
    FLAGS,
    SOURCES,
    CompileError,
    compile_kernels,
    find_compiler,
    native_flags,
    of_machine,
    suiting,
)

log = logging.getLogger(__name__)

P, N, F, S = ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_size_t

SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "sonant_best_path": (N, ()),
    "sonant_choose_path": (None, (N,)),
    "sonant_limit_threads": (None, (N,)),
    "sonant_weight_bytes": (S, (N, N, N)),
    "sonant_scale_count": (S, (N, N, N, N)),
    "sonant_linear_new": (P, (N, N, N, N, N)),
    "sonant_linear_free": (None, (P,)),
    "sonant_linear_weights": (P, (P,)),
    "sonant_linear_scales": (P, (P,)),
    "sonant_linear_pack": (N, (P, P)),
    "sonant_linear_run": (N, (P, N, P, P, P, N)),
    "sonant_stack_new": (P, (N, N, N, N, N, N, F, F, N)),
    "sonant_stack_free": (None, (P,)),
    "sonant_stack_layer": (N, (P, N, P, P, P, P, P, P, P, P, P)),
    "sonant_stack_norm": (None, (P, P)),
    "sonant_frame_run": (N, (P, P, N, N, N, N, N, *(P,) * 8, N, N, P, P, N, *(P,) * 6, N)),
    "sonant_stack_run": (N, (P, N, P, P, P, P, P, N, N, P, P, N, P, N)),
    "sonant_gpt2_new": (P, (N, N, N, N, N, F, N, P, P, P)),
    "sonant_gpt2_free": (None, (P,)),
    "sonant_gpt2_layer": (N, (P, N, P, P, P, P, P)),
    "sonant_gpt2_run": (N, (P, N, *(P,) * 6, N, N, P, N)),
    "sonant_fixed_new": (P, (N, N, N, P)),
    "sonant_fixed_free": (None, (P,)),
    "sonant_fixed_run": (N, (P, N, P, P, P, N)),
    "sonant_conv_has_bfloat16": (N, ()),
    "sonant_conv_new": (P, (N, N, N, N, N, P)),
    "sonant_conv_free": (None, (P,)),
    "sonant_conv_run": (N, (P, N, *(P,) * 8, N)),
    "sonant_oversampled_snake": (N, (N, N, *(P,) * 6, N)),
}

DONE, NO_MEMORY, WRONG_SIZE = 1, 0, -1
"""What a kernel answers. Source: answers.h."""

PATHS = ("plain C", "AVX2", "AVX512-VNNI")


def cache_folder() -> Path:
    """Where compiled kernels and quantised weights are kept: SONANT_CACHE, or the user's cache folder."""
    given = os.environ.get("SONANT_CACHE")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("sonant"))


@cache
def library() -> ctypes.CDLL | None:
    """The kernels: a library that came with the wheel and suits this processor, or one compiled for it.

    None when switched off, or when there is neither such a library nor a compiler.
    """
    if os.environ.get("SONANT_NATIVE") == "0":
        return None
    target = bundled_library() if os.environ.get("SONANT_NATIVE") != "compile" else None
    target = target or _compiled()
    if target is None:
        return None
    import torch  # noqa: F401  torch's OpenMP runtime is loaded first, so both share one thread pool

    loaded = ctypes.CDLL(str(target))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def bundled_library() -> Path | None:
    """The library inside this package that suits the processor, or None; an editable install has none."""
    folder = Path(str(resources.files("sonant.native").joinpath("kernels")))
    there = [variant for variant in of_machine() if (folder / variant.file).is_file()]
    suits = suiting(there, features())
    return None if suits is None else folder / suits.file


def _compiled() -> Path | None:
    """The library for just this machine, compiled unless the cache holds it."""
    compiler = find_compiler()
    if compiler is None:
        log.warning("no C compiler found: models run on the slower torch path. Install gcc or clang.")
        return None
    folder = resources.files("sonant.native")
    sources = [folder.joinpath(name).read_text(encoding="utf-8") for name in SOURCES]
    flags = native_flags()
    key = hashlib.sha256(
        "\n".join([*sources, compiler, *FLAGS, *flags, platform.machine(), _processor()]).encode()
    ).hexdigest()[:16]
    target = cache_folder() / "native" / f"sonant-{key}.so"
    if target.exists():
        return target
    try:
        with resources.as_file(folder) as place:
            compile_kernels(compiler, place, target, flags)
    except CompileError as error:
        log.warning("the kernel did not compile (%s); models run on the slower torch path", str(error)[:400])
        return None
    except OSError as error:
        log.warning(
            "the compiled kernel cannot be kept in %s (%s); models run on the slower torch path. Name a "
            "folder that may be written with SONANT_CACHE",
            target.parent,
            error.strerror,
        )
        return None
    return target


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


def check_done(status: int, what: str) -> None:
    """Raise MemoryError or ValueError for what a kernel answered; `what` it was asked for."""
    if status == WRONG_SIZE:
        raise ValueError(f"the kernel has no room for {what}; it was made for less")
    if status != DONE:
        raise MemoryError(f"no memory for {what}")


def _processor() -> str:
    """The processor's feature flags, so that a shared home folder never serves another machine's code."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()


def features() -> frozenset[str]:
    """Names of the processor's features, as Linux spells them; an Apple processor's are known."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return frozenset({"asimd", "asimddp", "fphp", "asimdhp"})  # every Apple processor since the M1
    return frozenset(_processor().partition(":")[2].split())
