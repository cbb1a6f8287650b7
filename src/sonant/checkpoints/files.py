"""Files of a checkpoint: tensors, pickles and JSON read and written, and told apart.

Everything is read as plain tensors: safetensors by memory map, foreign pickles only with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.errors import CheckpointError, few

ALIGNMENT = 64
"""Bytes; torch's own tensors begin at a multiple, in memory and in its zip files."""
_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What torch raises while it reads a file that is no whole one of its own."""
_POINTER = b"version https://git-lfs"
_opening = Lock()
"""What torch may take out of a pickle is one list of the whole process."""
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
        raise _missing(path)
    _refuse_pointer(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); its size is "
            f"{path.stat().st_size} bytes. It is probably truncated: download it again."
        ) from error


def weight_files(folder: str | os.PathLike[str], name: str = "model.safetensors") -> list[Path]:
    """The file `name`, or the shards that NAME.index.json lists where the weights are cut into several.

    Raises CheckpointError where neither is there, or a shard is missing.
    """
    folder = Path(folder)
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return [folder / name]
    shards = sorted(set(_weight_map(index).values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{index} lists {len(shards)} files of weights; missing in {folder}: {', '.join(few(missing))}. "
            "The folder is not a complete checkpoint; download it again, for example with: sonant pull NAME"
        )
    return [folder / shard for shard in shards]


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(map(_is_plain_name, found.values())):
        raise CheckpointError(
            f"{index} has no table weight_map of keys and file names in the same folder; expected one. "
            "Download the checkpoint again."
        )
    return {str(key): str(name) for key, name in found.items()}


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def read_weights(folder: str | os.PathLike[str], name: str = "model.safetensors") -> dict[str, Tensor]:
    """Named tensors of a folder's weights, whole or in shards, memory mapped."""
    return {key: tensor for path in weight_files(folder, name) for key, tensor in read_tensors(path).items()}


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file in which large tensors begin at multiples of 64 bytes.

    The library's own writer starts them anywhere; here the header is padded, and tensors that would push
    others off come last. Views and shared storages are written out one by one.
    """
    keys = sorted(tensors, key=lambda key: (tensors[key].nbytes % ALIGNMENT != 0, -tensors[key].nbytes, key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in keys:
        tensor = tensors[key]
        begin, end = end, end + tensor.nbytes
        header[key] = {
            "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            file.write(tensors[key].detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def read_pickle(path: str | os.PathLike[str], *, device: str = "cpu") -> Any:
    """Content of a foreign `.pt`, `.pth` or `.bin` file, tensors and plain containers only.

    Nothing in the file is executed: anything but tensors, numbers, strings, lists and dicts raises
    CheckpointError. On the `device` "meta" tensors have shapes and no values. The only place in Sonant where
    a pickle is opened.
    """
    path = Path(path)
    if not path.is_file():
        raise _missing(path)
    _refuse_pointer(path)
    try:
        with _opening, torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, *_DAMAGED) as error:
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's own words advise to let it run
            reason = f"it holds a {foreign[1]}" if foreign else "torch cannot read it"
        raise CheckpointError(
            f"{path} was refused ({reason}); expected a file of plain tensors. It is damaged, or holds what "
            "would run code, which Sonant never does. Use the official file, or save the tensors alone."
        ) from error


def _missing(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
        "download it again, for example with: sonant pull NAME"
    )


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise CheckpointError(
                f"{path} is a pointer of Git LFS, not the file itself; expected weights. Run git lfs pull in "
                "the folder, or fetch the model with: sonant pull NAME"
            )


@lru_cache(maxsize=1)
def _numpy_numbers() -> list[Any]:
    """What numpy's numbers are pickled as, such as the best loss that training leaves beside the weights.

    These make a number of bytes and a type; torch refuses them unless they are named.
    """
    make = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return [make, (make, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _missing(path) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not readable JSON ({error}). Download the checkpoint again."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a {type(data).__name__}; expected a JSON object.")
    return data


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
