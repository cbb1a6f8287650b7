"""Traces: the recorded stages of one run, in order, and readers for the forms that other ports write.

A plain safetensors file, `.npz` or `.pt` with documented stage names is a trace; so is a folder of `.npy`
files, or of raw `.bin` files with JSON beside them. `names` maps foreign names to documented ones.
"""

from __future__ import annotations

import fnmatch
import json
import math
import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sonant.errors import RequestError
from sonant.parity.budgets import PRECISIONS
from sonant.parity.layout import joined_parts
from sonant.parity.reference.tracefile import (
    FORMAT,
    KINDS,
    METADATA_KEY,
    TraceWriter,
    sample_positions,
    split_key,
    statistics,
    tensor_hash,
)
from sonant.parity.stages import guess_family, stage_table
from sonant.parity.stages.table import StageTable, pattern_of, resolve

_RAW_TYPES = {
    "f64": torch.float64,
    "float64": torch.float64,
    "f32": torch.float32,
    "float32": torch.float32,
    "float": torch.float32,
    "f16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "i64": torch.int64,
    "int64": torch.int64,
    "i32": torch.int32,
    "int32": torch.int32,
    "i16": torch.int16,
    "int16": torch.int16,
    "u8": torch.uint8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}

MOST_ELEMENTS = 1 << 33
"""A larger tensor is a damaged description, not a stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One occurrence of one stage. `stored` is the tensor itself, or its samples when `sampled` is set."""

    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    stored: Tensor
    sampled: int | None = None
    statistics: Mapping[str, float] = field(default_factory=dict)
    hash: str = ""

    @property
    def name(self) -> str:
        """The stage's name without the number of the occurrence."""
        return split_key(self.key)[0]

    @property
    def occurrence(self) -> int:
        """How many times the stage had been computed before."""
        return split_key(self.key)[1]

    @property
    def elements(self) -> int:
        """Elements of the whole tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Trace:
    """The entries of one run in the order of computation, and what is known about the run."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was odd about the file that it was read from."""

    @property
    def family(self) -> str:
        """Name of the model family, "" when unknown."""
        return str(self.metadata.get("family", ""))

    @property
    def dtype(self) -> str:
        """Precision the run was computed in; float32 when nothing says otherwise."""
        return str(self.metadata.get("dtype", "float32"))

    @property
    def is_foreign(self) -> bool:
        """True of what another program wrote without a record of its run."""
        return bool(self.metadata.get("foreign"))

    def computed(self, entry: Entry) -> str:
        """Precision that an entry was computed in, which may be finer than what it is stored in."""
        said = self.metadata.get("computed")
        if isinstance(said, Mapping):
            fitting = (str(v) for k, v in said.items() if fnmatch.fnmatchcase(entry.name, str(k)))
            return next(fitting, self.dtype)
        return str(said) if said else self.dtype

    @cached_property
    def by_key(self) -> dict[str, Entry]:
        """Entries by key."""
        return {entry.key: entry for entry in self.entries}

    def length(self, key: str, axis: int = 0) -> int:
        """Size of an entry's axis; 0 where there is no such entry or axis."""
        entry = self.by_key.get(key)
        return entry.shape[axis] if entry is not None and len(entry.shape) > axis else 0

    def tokens_hash(self) -> str:
        """Identity of all discrete decisions of the run."""
        tokens = [entry.hash for entry in self.entries if entry.kind == "token"]
        return ":".join(tokens) and tensor_hash(torch.tensor(list("".join(tokens).encode())))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        writer = TraceWriter()
        writer.tensors = {entry.key: entry.stored for entry in self.entries}
        writer.entries = [
            {
                "key": entry.key,
                "kind": entry.kind,
                "shape": list(entry.shape),
                "dtype": entry.dtype,
                "statistics": dict(entry.statistics),
                "hash": entry.hash,
                **({"sampled": entry.sampled} if entry.sampled is not None else {}),
            }
            for entry in self.entries
        ]
        writer.save(path, dict(self.metadata))


def from_writer(writer: TraceWriter, metadata: Mapping[str, Any]) -> Trace:
    """The trace that a writer has collected."""
    return Trace(tuple(_entry(item, writer.tensors[item["key"]]) for item in writer.entries), dict(metadata))


def _entry(item: Mapping[str, Any], stored: Tensor) -> Entry:
    return Entry(
        key=item["key"],
        kind=item["kind"],
        shape=tuple(item["shape"]),
        dtype=item["dtype"],
        stored=stored,
        sampled=item.get("sampled"),
        statistics=item.get("statistics", {}),
        hash=item.get("hash", ""),
    )


def read_trace(
    path: str | os.PathLike[str], *, names: Mapping[str, str] | None = None, family: str = ""
) -> Trace:
    """A trace from a file of Sonant's own, or from what another port wrote.

    Raises RequestError when nothing there can be read as tensors.
    """
    path = Path(path)
    said: Mapping[str, Any] = {}
    if path.is_dir():
        if any(path.glob("*.npy")):
            tensors = _read_npy_folder(path)
        else:
            tensors, said = _read_raw_folder(path)
    elif not path.is_file():
        raise RequestError(f"{path} does not exist; expected a trace. Make one with: sonant parity record")
    elif path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix == ".npy":
        tensors = {path.stem: _read_npy(path)}
    elif path.suffix in {".pt", ".pth", ".bin"}:
        tensors = _read_pickle(path)
    else:
        return _read_safetensors(path, names, family)
    return _foreign(tensors, path, names, family, said)


def _read_npy(path: Path) -> Tensor:
    try:
        return _from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, TypeError, OSError, EOFError, AttributeError) as error:
        raise RequestError(
            f"{path} is not a readable .npy of a plain array ({error}). Write it with numpy.save."
        ) from error


def _read_npy_folder(folder: Path) -> dict[str, Tensor]:
    """Every `.npy` below a folder; a name is the path without its suffix, in the order of the names."""
    return {
        path.relative_to(folder).with_suffix("").as_posix(): _read_npy(path)
        for path in sorted(folder.rglob("*.npy"))
    }


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.byteorder not in "=|" and array.dtype.byteorder != "<":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "c":
        array = np.stack((array.real, array.imag), axis=-1)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Tensors of a torch file, and nothing else that a pickle may hold: no code is run."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, OSError, EOFError) as error:
        reason = str(error).split("\n")[0][:200] or f"it ends too early, {type(error).__name__}"
        raise RequestError(
            f"{path} is not a readable torch file of plain tensors ({reason}). "
            "Write a dictionary of tensors with torch.save, or a safetensors file."
        ) from error
    except Exception as error:  # a damaged pickle may fail in any way
        raise RequestError(
            f"{path} is a damaged torch file ({type(error).__name__}). Write it again with torch.save."
        ) from error
    found: dict[str, Tensor] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach()
            if plain.is_quantized or plain.layout != torch.strided:
                return
            found[name or path.stem] = torch.view_as_real(plain) if plain.is_complex() else plain.contiguous()
        elif isinstance(value, Mapping):
            for key, item in value.items():
                visit(f"{name}.{key}" if name else str(key), item)
        elif isinstance(value, (list, tuple)):
            # A list is what a stage was each time.
            for index, item in enumerate(value):
                visit(name if index == 0 or not name else f"{name}@{index}", item)

    visit("", data)
    return found


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: _from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # zlib, zipfile and numpy each have their own ways to fail on damage
        raise RequestError(
            f"{path} is not a readable .npz of plain arrays ({error}). Write it with numpy.savez."
        ) from error


def read_json(path: Path) -> Any:
    """Data of a JSON file. Raises RequestError when it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} is not readable JSON ({error}). Correct the file.") from error


def read_names(path: Path) -> dict[str, str]:
    """A mapping of foreign stage names to documented ones. Raises RequestError when it is none."""
    data = read_json(path)
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        raise RequestError(
            f"{path} maps no names; expected a JSON object such as "
            '{"blk{n}_q": "talker.layer.{n}.query"}. '
            "Documented names are printed by: sonant parity stages FAMILY"
        )
    for theirs in data:
        try:
            pattern_of(theirs)
        except re.error as error:
            raise RequestError(
                f"{path} has the name {theirs!r} with placeholders that are not understood ({error}); "
                "expected each once, a word in braces. Correct it."
            ) from error
    return data


def _read_safetensors(path: Path, names: Mapping[str, str] | None, family: str) -> Trace:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            record = said.get(METADATA_KEY)
            keys = list(file.offset_keys())
            tensors = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError) as error:
        raise RequestError(
            f"{path} is not a readable safetensors file ({error}). Give a trace (.safetensors, .npz) or a "
            "folder of .bin files with JSON."
        ) from error
    if record is None:
        return _foreign(tensors, path, names, family, said)
    try:
        metadata = json.loads(record)
        version = metadata.get("format")
        if version == FORMAT:
            entries = tuple(_checked(item, tensors[item["key"]]) for item in metadata.pop("entries"))
            if not isinstance(metadata.get("request", {}), dict):
                raise TypeError("the request is no object")
            for key in {entry.key for entry in entries}:
                tensors.pop(key)
            return Trace(entries, metadata, tuple(_oddities(path, entries, tensors)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"{path} is a damaged trace ({error!r}); expected a record of each tensor. Record it again."
        ) from error
    raise RequestError(
        f"{path} has the trace format {version!r}; this version reads {FORMAT!r}. Record it again."
    )


def _checked(item: Mapping[str, Any], stored: Tensor) -> Entry:
    """The entry of a record. Raises ValueError or KeyError where it does not fit the stored tensor."""
    if item["kind"] not in KINDS:
        raise ValueError(f"kind {item['kind']!r} of {item['key']}")
    shape = [int(size) for size in item["shape"]]
    sampled = item.get("sampled")
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise ValueError(f"shape {shape} of {item['key']}")
    if sampled is not None and (isinstance(sampled, bool) or not isinstance(sampled, int) or sampled < 1):
        raise ValueError(f"{sampled!r} samples of {item['key']}")
    expected = math.prod(shape) if sampled is None else min(sampled, math.prod(shape))
    if stored.numel() != expected:
        raise ValueError(f"{stored.numel()} stored elements of {item['key']}, its record says {expected}")
    if not isinstance(item["dtype"], str) or not isinstance(item.get("statistics", {}), dict):
        raise TypeError(f"the record of {item['key']}")
    entry = _entry(item, stored)
    return entry if sampled is not None else replace(entry, stored=stored.reshape(shape))


def _oddities(path: Path, entries: Iterable[Entry], unlisted: Mapping[str, Tensor]) -> Iterator[str]:
    wrong = [e.key for e in entries if e.sampled is None and e.hash and tensor_hash(e.stored) != e.hash]
    if wrong:
        yield (
            f"{len(wrong)} tensors of {path.name} are not what was recorded (stored hashes do not fit), "
            f"first {wrong[0]}"
        )
    if unlisted:
        yield f"{len(unlisted)} tensors of {path.name} are not in its record, first {next(iter(unlisted))}"


def _foreign(
    tensors: Mapping[str, Tensor],
    path: Path,
    names: Mapping[str, str] | None,
    family: str,
    said: Mapping[str, Any] | None = None,
) -> Trace:
    """Entries of plain named tensors, in documented order; undocumented names keep their place at the end.

    `said` is what the file tells of itself: "computed", the precision of its arithmetic.
    """
    renamed: dict[str, Tensor] = {}
    mapped: dict[str, Tensor] = {}
    used: set[str] = set()
    for theirs, tensor in tensors.items():
        ours, rule = _rename(theirs, names or {})
        used.add(rule)
        if ours in renamed:
            raise RequestError(
                f"{path} has two tensors for {ours}, one of them {theirs!r}; expected one. Correct the names."
            )
        renamed[ours] = tensor
        if rule:
            mapped[ours] = tensor
    renamed = {k: v for k, v in renamed.items() if k not in mapped} | joined_parts(mapped, str(path))
    if not renamed:
        raise RequestError(f"{path} holds no tensors; expected stages by their documented names. Write some.")
    family = family or guess_family([split_key(key)[0] for key in renamed])
    table = stage_table(family)
    entries = [
        Entry(
            key=key,
            kind=table.kind(split_key(key)[0]),
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            stored=tensor,
            statistics=statistics(tensor),
            hash=tensor_hash(tensor),
        )
        for key, tensor in renamed.items()
    ]

    def place(entry: Entry) -> tuple[int, ...]:
        part, *rest = table.place(entry.name)
        return part, entry.occurrence, *rest

    entries.sort(key=place)
    floats = [entry.dtype for entry in entries if entry.stored.is_floating_point()]
    # Storing in few bits says nothing of the arithmetic: what was computed is said, or float32.
    computed = "float64" if floats and set(floats) == {"float64"} else "float32"
    metadata: dict[str, Any] = {"family": family, "made_by": path.name, "foreign": True, "dtype": computed}
    if said and said.get("computed"):
        metadata["computed"] = _precisions(said["computed"], path)
        if isinstance(metadata["computed"], str):
            metadata["dtype"] = metadata["computed"]
    notes = [f"{rule!r} of --names fits no tensor of {path.name}" for rule in names or {} if rule not in used]
    return Trace(tuple(entries), metadata, (*notes, *_misspelt(entries, table)))


def _precisions(said: Any, path: Path) -> Any:
    """The "computed" of a file: one precision, or one for each pattern of names."""
    if isinstance(said, str) and said.lstrip().startswith("{"):
        try:
            said = json.loads(said)
        except ValueError:
            said = {"*": said}
    wrong = [v for v in (said.values() if isinstance(said, dict) else [said]) if v not in PRECISIONS]
    if wrong:
        raise RequestError(
            f"{path} says that it was computed in {wrong[0]!r}; expected one of {', '.join(PRECISIONS)}, or "
            "a mapping of patterns of names to these. Correct it."
        )
    return said


def _misspelt(entries: Iterable[Entry], table: StageTable) -> Iterator[str]:
    """Undocumented names that are nearly documented ones."""
    known = {re.sub(r"\{\w+\}", "0", stage.name): stage.name for stage in table}
    for name in dict.fromkeys(e.name for e in entries if e.kind == "stage"):
        if table.find(name) is None:
            near = get_close_matches(re.sub(r"\d+", "0", name), known, n=1, cutoff=0.85)
            if near:
                yield f"{name} is no documented name; did you mean {known[near[0]]}?"


def _rename(key: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The documented name of a foreign one, and the rule that says so.

    Names may hold placeholders, such as "blk{layer}_out".
    """
    dotted = key.replace("/", ".")
    for theirs, ours in names.items():
        if theirs.replace("/", ".") == dotted:
            return ours, theirs
    for theirs, ours in names.items():
        if "{" not in theirs:
            continue
        match = pattern_of(theirs.replace("/", ".")).fullmatch(dotted)
        if match:
            made = resolve(ours, {k: int(v) for k, v in match.groupdict().items()})
            return (made or dotted).removesuffix("@0"), theirs
    return dotted, ""


def _read_raw_folder(folder: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Raw little-endian `.bin` files, described by one manifest or by one JSON file beside each.

    A manifest maps names to {file, shape, dtype} (at the top or under "tensors"), or lists such objects
    with a "name".
    """
    described: list[tuple[str, Path, Mapping[str, Any]]] = []
    computed: dict[str, Any] = {}
    for path in sorted(folder.glob("*.json")):
        data = read_json(path)
        beside = path.with_suffix(".bin")
        if isinstance(data, dict) and "shape" in data:
            described.append((str(data.get("name", path.stem)), beside, data))
            continue
        if not isinstance(data, (dict, list)):
            continue
        items = data.get("tensors", data) if isinstance(data, dict) else data
        if isinstance(data, dict) and isinstance(data.get("computed"), (str, dict)):
            said = data["computed"]
            computed |= said if isinstance(said, dict) else {"*": said}
        if not isinstance(items, (dict, list)):
            raise RequestError(f"{path} lists no tensors ({type(items).__name__}). Correct the file.")
        for name, item in items.items() if isinstance(items, dict) else _named(items):
            if isinstance(item, dict) and "shape" in item:
                described.append((name, folder / str(item.get("file", f"{name}.bin")), item))
    if not described:
        raise RequestError(
            f"{folder} describes no tensors; expected .bin files with a JSON of shape and dtype beside each, "
            "or one manifest that lists name, file, shape and dtype."
        )
    own = {name: item["computed"] for name, _, item in described if item.get("computed")}
    said = {"computed": {**own, **computed}} if own or computed else {}
    return {name: _read_raw(path, item) for name, path, item in described}, said


def _named(items: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(str(item["name"]), item) for item in items if isinstance(item, dict) and "name" in item]


def _read_raw(path: Path, item: Mapping[str, Any]) -> Tensor:
    kind = str(item.get("dtype", "f32")).lower().removeprefix("torch.")
    try:
        shape = [int(size) for size in item["shape"]]
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(
            f"{path.name} has the shape {item['shape']!r}; expected whole numbers. Correct its JSON."
        ) from error
    if any(size < 0 for size in shape) or math.prod(shape) > MOST_ELEMENTS:
        raise RequestError(f"{path.name} has the impossible shape {shape}. Correct its JSON.")
    if kind not in _RAW_TYPES:
        raise RequestError(
            f"{path.name} has dtype {kind!r}; expected one of {', '.join(_RAW_TYPES)}. Convert it."
        )
    dtype = _RAW_TYPES[kind]
    if not path.is_file():
        raise RequestError(
            f"{path.name} is missing in {path.parent}; expected it beside the JSON that describes it. "
            "Write the file, or take it out of the JSON."
        )
    raw = bytearray(path.read_bytes())
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise RequestError(
            f"{path.name} has {len(raw)} bytes; its JSON says {kind} {shape}, which is {expected}. "
            "Write raw little-endian elements without a header."
        )
    return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.zeros(shape, dtype=dtype)


def stored_pair(a: Entry, b: Entry) -> tuple[Tensor, Tensor]:
    """The elements that both entries of equally large tensors hold, flat, in one order."""
    left, right = a.stored.flatten(), b.stored.flatten()
    if a.sampled == b.sampled:
        return left, right
    at_a = sample_positions(a.elements, a.sampled if a.sampled is not None else a.elements)
    at_b = sample_positions(b.elements, b.sampled if b.sampled is not None else b.elements)
    _, in_a, in_b = np.intersect1d(at_a.numpy(), at_b.numpy(), return_indices=True)
    return left[torch.from_numpy(in_a)], right[torch.from_numpy(in_b)]
