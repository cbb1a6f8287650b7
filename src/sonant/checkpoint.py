"""Checkpoint files -> modules: read tensors, rename keys by rules, fold weight norm, load strictly.

Everything is read as plain tensors: safetensors by memory map, foreign pickles only with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonant.errors import CheckpointError, ConfigError
from sonant.nn.mapped import give_back, trim

Rules = Sequence[tuple[str, str]]

_ALIGNMENT = 64  # bytes; torch's own tensors begin at a multiple, in memory and in its zip files
_SMALL = 1 << 20  # bytes; copied without a thought for memory
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Named tensors of one safetensors file, memory mapped where the file allows it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
            "download it again, for example with: sonant pull NAME"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); its size is "
            f"{path.stat().st_size} bytes. It is probably truncated: download it again."
        ) from error


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file in which large tensors begin at multiples of 64 bytes.

    The library's own writer starts them anywhere; here the header is padded, and tensors that would push
    others off come last. Views and shared storages are written out one by one.
    """
    keys = sorted(tensors, key=lambda key: (tensors[key].nbytes % _ALIGNMENT != 0, -tensors[key].nbytes, key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in keys:
        tensor = tensors[key]
        begin, end = end, end + tensor.nbytes
        header[key] = {
            "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.write(tensors[key].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """Content of a foreign `.pt`, `.pth` or `.bin` file, tensors and plain containers only.

    Nothing in the file is executed: anything but tensors, numbers, strings, lists and dicts raises
    CheckpointError. The only place in Sonant where a pickle is opened.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
            "download it again, for example with: sonant pull NAME"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} was refused ({first}); expected a file of plain tensors. It is damaged, or holds "
            "objects that would run code, which Sonant never does. Use the official file."
        ) from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
            "download it again, for example with: sonant pull NAME"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error}). Download the checkpoint again."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}; expected a JSON object.")
    return data


def rename(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """The tensors under the names that the rules give: every regex rule is applied in order to every key.

    Two keys that end up with one name raise CheckpointError.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key
        for pattern, replacement in compiled:
            name = pattern.sub(replacement, name)
        if name in renamed:
            raise CheckpointError(
                f"two tensors of the checkpoint map to {name!r} (one is {key!r}). "
                "The file mixes two formats; use the official one."
            )
        renamed[name] = tensor
    return renamed


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight-normed pairs replaced by their product: w = g * v / ||v|| over all dims but the first.

    Both spellings of torch are known: `X.weight_g`/`X.weight_v` and
    `X.parametrizations.weight.original0`/`original1`. Source: arXiv 1602.07868, eq. 2.
    """
    folded = dict(tensors)
    for gain_suffix, direction_suffix in (
        (".weight_g", ".weight_v"),
        (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    ):
        for key in [name for name in folded if name.endswith(gain_suffix)]:
            stem = key[: -len(gain_suffix)]
            partner = stem + direction_suffix
            if partner not in folded:
                raise CheckpointError(f"{key} has no partner {partner}; the file is incomplete.")
            gain, direction = folded.pop(key), folded.pop(partner)
            if direction.ndim < 1 or gain.shape != (len(direction), *[1] * (direction.ndim - 1)):
                # Asked before torch is: its kernel reads whatever lies behind a gain that is too short.
                raise CheckpointError(
                    f"{key} {tuple(gain.shape)} and {partner} {tuple(direction.shape)} are no weight and its "
                    "norm. The file is damaged: download it again."
                )
            # The same kernel torch's own parametrization runs, so folded weights are bit equal.
            folded[f"{stem}.weight"] = torch._weight_norm(direction, gain, 0)
            give_back(direction)
    return folded


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    rules: Rules = (),
    ignored: Iterable[str] = (),
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    where: str = "checkpoint",
) -> None:
    """Put the tensors into `module` (which may be on `meta`), strictly, and set it to eval mode.

    `ignored` are regexes of source keys that inference never reads, each listed with a reason by its
    family. Floating tensors are cast to `dtype` when given. Missing, unexpected, misshapen and mistyped keys
    are reported together in one CheckpointError.
    """
    skip = [re.compile(pattern) for pattern in ignored]
    used = {key: t for key, t in tensors.items() if not any(p.search(key) for p in skip)}
    named = rename(used, rules)
    expected = module.state_dict()
    missing = sorted(expected.keys() - named.keys())
    unexpected = sorted(named.keys() - expected.keys())
    misshapen = [
        f"{key}: found {tuple(named[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & named.keys())
        if named[key].shape != expected[key].shape
    ]
    mistyped = [
        f"{key}: found {named[key].dtype}, expected {expected[key].dtype}"
        for key in sorted(expected.keys() & named.keys())
        if named[key].is_floating_point() != expected[key].is_floating_point()
    ]
    if missing or unexpected or misshapen or mistyped:
        parts = [
            _listing(title, names)
            for title, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("wrong shape", misshapen),
                ("wrong type", mistyped),
            )
            if names
        ]
        raise CheckpointError(
            f"{where} does not fit {type(module).__name__}:\n"
            + "\n".join(parts)
            + "\nThe weights and the config are of different models, or a file is damaged."
        )
    trim()  # what the parts loaded before this one have left
    placed: dict[str, Tensor] = {}
    for key, tensor in named.items():
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        placed[key] = _aligned(tensor.to(device=device or tensor.device, dtype=cast))
        if placed[key] is not tensor:
            give_back(tensor)
    module.load_state_dict(placed, strict=True, assign=True)
    module.requires_grad_(False)
    module.eval()


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, moved to where torch would put it if it is small and a mapped file has it elsewhere.

    A matrix product on a CPU rounds otherwise at another address. Large tensors stay mapped; what
    `write_tensors` writes needs no move, so a converted checkpoint gives the very samples of its original.
    """
    is_moved = tensor.device.type == "cpu" and tensor.nbytes <= _SMALL and tensor.data_ptr() % _ALIGNMENT
    return tensor.clone() if is_moved else tensor


def _listing(title: str, names: Sequence[str]) -> str:
    return f"  {len(names)} {title}:\n" + "\n".join(f"    {name}" for name in names)


def build(make: Callable[[], nn.Module]) -> Any:
    """A module built without memory for its weights (on `meta`); fill it with `load_strict`.

    Modules that compute tables in their constructor keep them as plain attributes made on first use.
    Raises ConfigError for sizes that no network can have.
    """
    try:
        with torch.device("meta"):
            return make()
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the sizes in the checkpoint's config make no network ({error}). Compare them with the official "
            "config, or download the checkpoint again."
        ) from error


def fingerprint(folder: str | os.PathLike[str], names: Iterable[str]) -> str:
    """A short identity of a checkpoint: 16 hex digits over the named files that exist.

    JSON, YAML and text count whole; of larger files the size and the first and last megabyte count, so
    that a checkpoint of gigabytes is known in milliseconds. It tells checkpoints apart; it is no checksum.
    """
    edge = 1 << 20
    state = hashlib.sha256()
    for name in sorted(names):
        path = Path(folder) / name
        if not path.is_file():
            continue
        size = path.stat().st_size
        state.update(f"{name}:{size}:".encode())
        with path.open("rb") as file:
            if size <= 4 * edge:
                state.update(file.read())
            else:
                state.update(file.read(edge))
                file.seek(-edge, os.SEEK_END)
                state.update(file.read(edge))
    return state.hexdigest()[:16]
