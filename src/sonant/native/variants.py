"""Compiling the kernels: for this machine, or in portable variants that a wheel brings along.

Imports the standard library only, because the build hook of the wheel (`hatch_build.py`) uses it as well.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SOURCES = (
    *("answers.h", "memory.h", "linear.h", "bands.h", "stack.h", "snake.h", "vector.h"),
    *(
        "memory.c",
        "pack.c",
        "products.c",
        "fixed.c",
        "stack.c",
        "gpt2.c",
        "frame.c",
        "conv.c",
        "oversampled.c",
    ),
)
# Finite-math assumptions stay off: scores may be -inf.
FLAGS = ("-O3", "-std=gnu11", "-ffast-math", "-fno-finite-math-only", "-fopenmp", "-fPIC", "-shared")
X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64")


class CompileError(Exception):
    """The compiler refused; the message is its own."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The kernels for every processor that has certain features, named as in /proc/cpuinfo."""

    name: str
    machines: tuple[str, ...]
    flags: tuple[str, ...]
    features: frozenset[str]

    @property
    def file(self) -> str:
        """Name of the library in a wheel."""
        return f"kernels-{self.name}.so"


_V3 = "avx avx2 bmi1 bmi2 f16c fma movbe"
_V4 = f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni"
VARIANTS = (
    # The best first. Tuned alike, so that they differ in what they need and in nothing else.
    Variant(
        name="avx512-bf16",
        machines=X86,
        flags=("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16"),
        features=frozenset(f"{_V4} avx512_bf16".split()),
    ),
    Variant(
        name="avx512-vnni",
        machines=X86,
        flags=("-march=x86-64-v4", "-mavx512vnni"),
        features=frozenset(_V4.split()),
    ),
    Variant(name="avx2", machines=X86, flags=("-march=x86-64-v3",), features=frozenset(_V3.split())),
    Variant(
        name="dotprod",
        machines=ARM,
        flags=("-march=armv8.2-a+dotprod+fp16",),
        features=frozenset(["asimd", "asimddp", "fphp", "asimdhp"]),
    ),
    Variant(name="neon", machines=ARM, flags=("-march=armv8-a",), features=frozenset({"asimd"})),
)


def find_compiler() -> str | None:
    """The C compiler: CC, or the first of gcc, clang and cc."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")


def of_machine(machine: str | None = None) -> list[Variant]:
    """Variants for a kind of processor, by default this one's."""
    return [variant for variant in VARIANTS if (machine or platform.machine()) in variant.machines]


def suiting(variants: Iterable[Variant], features: Iterable[str]) -> Variant | None:
    """The first variant that needs no feature which is not there."""
    found = frozenset(features)
    return next((variant for variant in variants if variant.features <= found), None)


def native_flags() -> tuple[str, ...]:
    """Everything that this machine has; the library is then for this machine only."""
    machine = platform.machine()
    if machine in X86:
        return ("-march=native",)
    return ("-mcpu=native",) if machine in ARM else ()


def compile_kernels(compiler: str, folder: Path, target: Path, flags: Iterable[str]) -> None:
    """Write the library of the sources in `folder` to `target`, whole or not at all. Raises CompileError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    codes = [str(folder / name) for name in SOURCES if name.endswith(".c")]
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "made.so"
        command = [compiler, *FLAGS, *flags, "-o", str(made), *codes, "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            raise CompileError(getattr(error, "stderr", "") or str(error)) from error
        os.replace(made, target)
