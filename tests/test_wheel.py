"""The wheel brings kernels that this processor can use, and they compute what the compiled ones do."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sonant.native import variants

ROOT = Path(__file__).parents[1]
KERNEL_TESTS = ("tests/nn/test_quantized.py", "tests/nn/test_native_conv.py")
PROBE = """
import sys, torch
from safetensors.torch import save_file
from torch import nn
from sonant import native
from sonant.nn.cache import KVCache
from sonant.nn.native_conv import NativeTimeConv
from sonant.nn.precision import PRECISIONS
from sonant.nn.quantized import NativeLinear, quantize_decoder
from sonant.nn.transformer import Decoder, DecoderConfig

library = native.library()
assert library is not None
torch.manual_seed(0)
found = {}
x = torch.randn(7, 512)
weight = torch.randn(320, 512).bfloat16().float()
config = DecoderConfig(width=128, layers=3, heads=4, kv_heads=2, head_dim=32, intermediate=192,
                       rope_theta=1e4, norm_eps=1e-6)
for name, precision in PRECISIONS.items():
    found[f"linear.{name}"] = NativeLinear(library, weight, None, precision)(x)
    torch.manual_seed(1)
    stack = Decoder(config, "toy").requires_grad_(False)
    for parameter in stack.parameters():
        parameter.data = parameter.data.bfloat16().float()
    cache = KVCache(layers=3, slots=1, heads=2, head_dim=32, capacity=40)
    narrow = quantize_decoder(stack, "toy", precision)
    parts = [narrow(torch.randn(1, n, 128), rows=cache.rows([0], n)) for n in (9, 1, 1)]
    found[f"stack.{name}"] = torch.cat(parts, dim=1)
for narrow in (False, bool(library.sonant_conv_has_bfloat16())):
    layer = NativeTimeConv(library, torch.randn(70, 3, 130), torch.randn(70), dilation=2, narrow=narrow)
    found[f"conv.{narrow}"] = layer(torch.randn(1, 50, 130))[0]
save_file(found, sys.argv[1])
print(native.bundled_library() or "")
"""


def test_the_best_variant_that_the_processor_has_is_taken():
    every = variants.of_machine("x86_64")
    whole = frozenset().union(*(variant.features for variant in every))
    assert variants.suiting(every, whole) is every[0]
    assert variants.suiting(every, whole - {"avx512_bf16"}).name == "avx512-vnni"
    assert variants.suiting(every, whole - {"avx512_vnni"}).name == "avx2"
    assert variants.suiting(every[1:], whole) is every[1]
    assert variants.suiting(every, whole - {"fma"}) is None
    assert [variant.name for variant in variants.of_machine("aarch64")] == ["dotprod", "neon"]
    assert variants.of_machine("riscv64") == []


def run(*command, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("CC", "SONANT_NATIVE", "SONANT_CACHE")}
    done = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout.strip()


def build(target, **environment):
    """The name of the wheel that the build back end writes."""
    code = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
    return run(sys.executable, "-c", code, str(target), **environment).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Wheel and the folder that it was unpacked to."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in sonant[dev]")
    if variants.find_compiler() is None or not variants.of_machine():
        pytest.skip("needs a C compiler on x86-64 or aarch64")
    folder = tmp_path_factory.mktemp("wheel")
    file = folder / build(folder, SONANT_BUILD_KERNELS="1")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "unpacked")
    return file, folder / "unpacked"


@pytest.mark.slow
def test_the_wheel_is_for_this_platform_and_holds_every_variant(wheel):
    file, folder = wheel
    assert "-py3-none-" in file.name
    assert not file.name.endswith("-none-any.whl")
    kernels = {path.name for path in (folder / "sonant" / "native" / "kernels").iterdir()}
    assert kernels == {variant.file for variant in variants.of_machine()}


@pytest.mark.slow
def test_without_a_compiler_the_wheel_speaks_through_its_own_kernels(wheel, tmp_path):
    _, folder = wheel
    own, compiled = tmp_path / "own.safetensors", tmp_path / "compiled.safetensors"
    options = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    cache = tmp_path / "cache"
    used = run(sys.executable, "-c", PROBE, str(own), PATH="", SONANT_CACHE=str(cache), **options)
    assert Path(used).parent == folder / "sonant" / "native" / "kernels"
    assert not cache.exists(), "nothing was compiled"
    run(
        sys.executable,
        "-c",
        PROBE,
        str(compiled),
        SONANT_NATIVE="compile",
        SONANT_CACHE=str(cache),
        **options,
    )
    assert list((cache / "native").iterdir())
    expected, found = load_file(compiled), load_file(own)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), f"{name}: {(found[name] - tensor).abs().max()}"


@pytest.mark.slow
def test_the_tests_of_the_kernels_pass_with_those_of_the_wheel(wheel, tmp_path):
    _, folder = wheel
    options = {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "SONANT_CACHE": str(tmp_path)}
    said = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", *KERNEL_TESTS),
        "-k", "not compiler", **{**options, "PATH": ""},
    )  # fmt: skip
    assert " passed" in said
    assert "failed" not in said


@pytest.mark.slow
def test_without_a_compiler_at_build_time_the_wheel_is_pure(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in sonant[dev]")
    git = shutil.which("git")
    path = str(Path(git).parent) if git and not variants_in(Path(git).parent) else ""
    assert build(tmp_path, PATH=path).endswith("-py3-none-any.whl")
    assert build(tmp_path, SONANT_BUILD_KERNELS="0").endswith("-py3-none-any.whl")


def variants_in(folder):
    """True where a compiler lies."""
    return any((folder / name).exists() for name in ("gcc", "clang", "cc"))


def test_an_editable_install_compiles_nothing_while_it_is_built(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in sonant[dev]")
    code = "import sys, hatchling.build; print(hatchling.build.build_editable(sys.argv[1]))"
    name = run(sys.executable, "-c", code, str(tmp_path), SONANT_BUILD_KERNELS="1").splitlines()[-1]
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert not [item for item in archive.namelist() if item.endswith(".so")]
