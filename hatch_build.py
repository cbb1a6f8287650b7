"""Build hook of the wheel: the C kernels, compiled in portable variants where there is a compiler.

A wheel with kernels is for one platform; without a compiler, or with SONANT_BUILD_KERNELS=0, it is the pure
one, which compiles them on first use. SONANT_BUILD_KERNELS=1 makes a missing compiler an error.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = "src/sonant/native"


class CustomBuildHook(BuildHookInterface):
    """Adds `sonant/native/kernels/kernels-*.so` to a wheel and names the platform in its tag."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("SONANT_BUILD_KERNELS", "auto")
        if self.target_name != "wheel" or version == "editable" or wanted == "0":
            return
        folder = Path(self.root) / KERNELS
        self._scratch = tempfile.TemporaryDirectory(prefix="sonant-kernels-")
        made = self._compile(folder, Path(self._scratch.name))
        if not made and wanted == "1":
            raise RuntimeError(
                "no kernel was compiled and SONANT_BUILD_KERNELS=1 asks for them; install gcc."
            )
        for file in made:
            build_data["force_include"][str(file)] = f"sonant/native/kernels/{file.name}"
        if made:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{self._platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()

    def _compile(self, folder: Path, target: Path) -> list[Path]:
        variants = _load(folder / "variants.py")
        compiler = variants.find_compiler()
        if compiler is None:
            self.app.display_warning("no C compiler: the wheel is pure, kernels are compiled on first use")
            return []
        made = []
        for variant in variants.of_machine():
            file = target / variant.file
            try:
                variants.compile_kernels(compiler, folder, file, variant.flags)
            except variants.CompileError as error:
                self.app.display_warning(f"no kernels for {variant.name}: {str(error)[-300:]}")
                continue
            made.append(file)
        return made

    def _platform(self) -> str:
        from packaging.tags import platform_tags

        return _plain(list(platform_tags()))


def _plain(tags: list[str]) -> str:
    """The tag of just this system: it promises nothing about older ones, `auditwheel repair` does."""
    return next((tag for tag in tags if tag.startswith("linux_")), tags[0])


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("sonant_kernel_variants", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
