"""Checkpoint files -> modules: read tensors, rename keys by rules, fold weight norm, load strictly.

Everything is read as plain tensors: safetensors by memory map, foreign pickles only with `weights_only`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sonant.errors import CheckpointError, ConfigError, few
from sonant.nn.mapped import give_back, trim

log = logging.getLogger(__name__)

Rules = Sequence[tuple[str, str]]
Unread = dict[str, dict[str, int]]
"""File -> key -> bytes of tensors that nothing reads."""
_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What torch raises while it reads a file that is no whole one of its own."""
_POINTER = b"version https://git-lfs"
_PACKED = (
    "\nIts matrices are whole numbers, as another program packs them: take the released files, which Sonant "
    "narrows itself (--precision)."
)
_opening = Lock()
"""What torch may take out of a pickle is one list of the whole process."""
_collected: ContextVar[Unread | None] = ContextVar("sonant_unread_tensors", default=None)

_ALIGNMENT = 64  # bytes; torch's own tensors begin at a multiple, in memory and in its zip files
_SMALL = 1 << 20  # bytes; copied without a thought for memory
_WRAPPERS = ("model", "state_dict", "module")
_DEEPEST = 8  # wrappers within wrappers; a pickle may hold itself
_TRAINED_IN = ((r"(^|\.)(?:(?:module|_orig_mod)\.)+", r"\1"),)
_WEIGHT_NORM = re.compile(r"\.(weight_[gv]|parametrizations\.weight\.original[01])$")
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


def read_pickle(path: str | os.PathLike[str], *, device: str = "cpu") -> Any:
    """Content of a foreign `.pt`, `.pth` or `.bin` file, tensors and plain containers only.

    Nothing in the file is executed: anything but tensors, numbers, strings, lists and dicts raises
    CheckpointError. On the `device` "meta" tensors have shapes and no values. The only place in Sonant where
    a pickle is opened.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
            "download it again, for example with: sonant pull NAME"
        )
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


def own_table(data: Mapping[str, Any], *wrappers: str, where: str = "the checkpoint") -> Mapping[str, Any]:
    """The network's own table in what a program saved: `data`, or what lies there under a name for it.

    `wrappers` are asked for first, then the names that training programs use, and again within; an empty
    table is none. Tables beside it (optimizer states, averages) and numbers are left without a word; tensors
    are told to a surrounding `collecting_unread`.
    """
    for _ in range(_DEEPEST):
        tables = (data.get(name) for name in (*wrappers, *_WRAPPERS))
        own = next((table for table in tables if isinstance(table, Mapping) and table), None)
        if own is None:
            break
        leave_unread(where, {str(key): value for key, value in data.items() if isinstance(value, Tensor)})
        data = own
    return data


def without_training(named: Iterable[tuple[str, Tensor]], where: str = "the checkpoint") -> dict[str, Tensor]:
    """Names and tensors without what training puts before parts of a name (`module.`, `_orig_mod.`).

    Two that are then of one name raise CheckpointError.
    """
    pairs = list(named)
    tensors = dict(pairs)
    sources = _sources((name for name, _ in pairs), _TRAINED_IN, where)
    return {name: tensors[key] for name, key in sources.items()}


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
    return {name: tensors[key] for name, key in _sources(tensors, rules).items()}


def _sources(keys: Iterable[str], rules: Rules, where: str = "the checkpoint") -> dict[str, str]:
    """Name after the rules -> the file's key."""
    found: dict[str, str] = {}
    for key in keys:
        name = _renamed(key, rules)
        if name in found:
            raise CheckpointError(
                f"two tensors of {where} map to {name!r} (one is {key!r}). "
                "The file mixes two formats; use the official one."
            )
        found[name] = key
    return found


def _renamed(key: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def used(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    rules: Rules = (),
    ignored: Iterable[str] = (),
    where: str = "checkpoint",
) -> dict[str, Tensor]:
    """Those tensors of a file that `load_strict` would put into `module`, under the file's own names.

    Both halves of a weight-normed pair count as their weight. What is missing is not looked for here; what
    would be left out is told to a surrounding `collecting_unread`.
    """
    skip = [re.compile(pattern) for pattern in ignored]
    expected = module.state_dict().keys()
    wanted = {key: t for key, t in tensors.items() if not any(pattern.search(key) for pattern in skip)}
    kept = {
        key: tensor
        for key, tensor in wanted.items()
        if _renamed(_WEIGHT_NORM.sub(".weight", key), rules) in expected
    }
    leave_unread(where, {key: wanted[key] for key in wanted.keys() - kept.keys()})
    return kept


def leave_unread(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Tell a surrounding `collecting_unread` that nothing reads these tensors of a file."""
    found = _collected.get()
    if found is not None and tensors:
        found.setdefault(where, {}).update({key: tensor.nbytes for key, tensor in tensors.items()})


def within(
    module: nn.Module, parts: Iterable[nn.Module], tensors: Mapping[str, Tensor], *, rules: Rules = ()
) -> dict[str, Tensor]:
    """Those tensors of a file that are the weights of linear layers and convolutions inside `parts`.

    `parts` are submodules of `module`, which may be on `meta`; both halves of a weight-normed pair count.
    """
    layers = {id(m) for part in parts for m in part.modules() if isinstance(m, nn.Linear | nn.Conv1d)}
    names = {f"{name}.weight" for name, layer in module.named_modules() if id(layer) in layers}
    return {
        key: t for key, t in tensors.items() if _renamed(_WEIGHT_NORM.sub(".weight", key), rules) in names
    }


@contextmanager
def collecting_unread() -> Iterator[Unread]:
    """What `load_strict` or `used` find in files beyond what modules read, gathered over a whole checkpoint.

    Outside of this, `load_strict` logs each file's as it is loaded.
    """
    found: Unread = {}
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def told_unread(found: Unread) -> str:
    """The tensors by name and size, the largest first; a long list is cut."""
    parts = []
    for where, tensors in found.items():
        names = sorted(tensors, key=lambda key: (-tensors[key], key))
        listing = ", ".join(few([f"{key} ({_size(tensors[key])})" for key in names]))
        parts.append(f"{where} holds {len(names)} ({_size(sum(tensors.values()))}): {listing}")
    return "; ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"


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
            if partner not in folded or not _is_weight_and_norm(folded[partner], folded[key]):
                continue  # where it is read, its weight will be found missing
            gain, direction = folded.pop(key), folded.pop(partner)
            # The same kernel torch's own parametrization runs, so folded weights are bit equal. Narrow pairs
            # are widened first, as a network of float32 that loads them has them.
            wide = torch.promote_types(torch.promote_types(direction.dtype, gain.dtype), torch.float32)
            folded[f"{stem}.weight"] = torch._weight_norm(direction.to(wide), gain.to(wide), 0)
            give_back(direction)
    return folded


def _is_weight_and_norm(direction: Tensor, gain: Tensor) -> bool:
    """Asked before torch is: its kernel reads whatever lies behind a gain that is too short, and divides by
    the size of an empty weight."""
    rows = (len(direction), *[1] * (direction.ndim - 1)) if direction.ndim else None
    floats = direction.is_floating_point() and gain.is_floating_point()
    return floats and gain.shape == rows and direction.numel() > 0


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
    family. Floating tensors are cast to `dtype` when given. Missing, misshapen and mistyped keys are reported
    together in one CheckpointError, counted and the first few of each by name, and with them what was not
    expected. Unexpected keys alone are left out and told (`collecting_unread`): a head that only training
    used stops nobody.
    """
    skip = [re.compile(pattern) for pattern in ignored]
    wanted = [key for key in tensors if not any(pattern.search(key) for pattern in skip)]
    sources = _sources(wanted, rules)
    named = {name: tensors[key] for name, key in sources.items()}
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
    if missing or misshapen or mistyped:
        parts = [
            _listing(title, names)
            for title, names in (
                ("missing", missing),
                ("unexpected", [f"{name} {tuple(named[name].shape)}" for name in unexpected]),
                ("wrong shape", misshapen),
                ("wrong type", mistyped),
            )
            if names
        ]
        raise CheckpointError(
            f"{where} does not fit {type(module).__name__}:\n"
            + "\n".join(parts)
            + "\nThe weights and the config are of different models, or a file is damaged."
            + (_PACKED if any(_is_packed(named[line.partition(":")[0]]) for line in mistyped) else "")
        )
    if unexpected:
        _tell_unread(where, {sources[name]: named.pop(name).nbytes for name in unexpected})
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


def _is_packed(tensor: Tensor) -> bool:
    return tensor.ndim > 1 and not tensor.is_floating_point()


def _tell_unread(where: str, tensors: dict[str, int]) -> None:
    found = _collected.get()
    if found is not None:
        found.setdefault(where, {}).update(tensors)
    else:
        log.warning("tensors that nothing reads are left out: %s", told_unread({where: tensors}))


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, moved to where torch would put it if it is small and a mapped file has it elsewhere.

    A matrix product on a CPU rounds otherwise at another address. Large tensors stay mapped; what
    `write_tensors` writes needs no move, so a converted checkpoint gives the very samples of its original.
    """
    is_moved = tensor.device.type == "cpu" and tensor.nbytes <= _SMALL and tensor.data_ptr() % _ALIGNMENT
    return tensor.clone() if is_moved else tensor


def _listing(title: str, names: Sequence[str]) -> str:
    """How many there are and the first of them: a config of another size misfits every tensor."""
    return f"  {len(names)} {title}:\n" + "\n".join(f"    {line}" for line in few(names))


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
