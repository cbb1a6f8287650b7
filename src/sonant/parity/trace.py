"""Traces: the recorded stages of one run, in order, and readers for the forms that other ports write.

A plain safetensors file or `.npz` with documented stage names is a trace; so is a folder of raw `.bin`
files with JSON beside them. `names` maps foreign names to documented ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from sonant.errors import RequestError
from sonant.parity.budgets import coarser
from sonant.parity.reference.tracefile import (
    FORMAT,
    METADATA_KEY,
    TraceWriter,
    sample_positions,
    split_key,
    statistics,
    tensor_hash,
)
from sonant.parity.stages import guess_family, stage_table
from sonant.parity.stages.table import pattern_of, resolve

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
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Trace:
    """The entries of one run in the order of computation, and what is known about the run."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """Name of the model family, "" when unknown."""
        return str(self.metadata.get("family", ""))

    @property
    def dtype(self) -> str:
        """Precision the run was made in; float32 when nothing says otherwise."""
        return str(self.metadata.get("dtype", "float32"))

    @cached_property
    def by_key(self) -> dict[str, Entry]:
        """Entries by key."""
        return {entry.key: entry for entry in self.entries}

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
    if path.is_dir():
        return _foreign(_read_raw_folder(path), path, names, family)
    if not path.is_file():
        raise RequestError(f"{path} does not exist; expected a trace. Make one with: sonant parity record")
    if path.suffix == ".npz":
        return _foreign(_read_npz(path), path, names, family)
    return _read_safetensors(path, names, family)


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, BadZipFile, AttributeError) as error:
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
    return data


def _read_safetensors(path: Path, names: Mapping[str, str] | None, family: str) -> Trace:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            record = (file.metadata() or {}).get(METADATA_KEY)
            keys = list(file.offset_keys())
            tensors = {key: file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise RequestError(
            f"{path} is not a readable safetensors file ({error}). Give a trace (.safetensors, .npz) or a "
            "folder of .bin files with JSON."
        ) from error
    if record is None:
        return _foreign(tensors, path, names, family)
    try:
        metadata = json.loads(record)
        version = metadata.get("format")
        if version == FORMAT:
            entries = tuple(_entry(item, tensors[item["key"]]) for item in metadata.pop("entries"))
            return Trace(entries, metadata)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{path} is a damaged trace ({error!r}); expected a record of each tensor. Record it again."
        ) from error
    raise RequestError(
        f"{path} has the trace format {version!r}; this version reads {FORMAT!r}. Record it again."
    )


def _foreign(
    tensors: Mapping[str, Tensor], path: Path, names: Mapping[str, str] | None, family: str
) -> Trace:
    """Entries of plain named tensors, in documented order; undocumented names keep their place at the end."""
    renamed: dict[str, Tensor] = {}
    for theirs, tensor in tensors.items():
        ours = _rename(theirs, names or {})
        if ours in renamed:
            raise RequestError(
                f"{path} has two tensors for {ours}, one of them {theirs!r}; expected one. Correct the names."
            )
        renamed[ours] = tensor
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
    precision = reduce(coarser, floats, "float64") if floats else "float32"
    metadata = {"family": family, "made_by": path.name, "foreign": True, "dtype": precision}
    return Trace(tuple(entries), metadata)


def _rename(key: str, names: Mapping[str, str]) -> str:
    """The documented name of a foreign one; names may hold placeholders, such as "blk{layer}_out"."""
    if key in names:
        return names[key]
    for theirs, ours in names.items():
        if "{" not in theirs:
            continue
        match = pattern_of(theirs).fullmatch(key)
        if match:
            return resolve(ours, {k: int(v) for k, v in match.groupdict().items()}) or key
    return key.replace("/", ".")


def _read_raw_folder(folder: Path) -> dict[str, Tensor]:
    """Raw little-endian `.bin` files, described by one manifest or by one JSON file beside each.

    A manifest maps names to {file, shape, dtype} (at the top or under "tensors"), or lists such objects
    with a "name".
    """
    described: list[tuple[str, Path, Mapping[str, Any]]] = []
    for path in sorted(folder.glob("*.json")):
        data = read_json(path)
        beside = path.with_suffix(".bin")
        if isinstance(data, dict) and "shape" in data:
            described.append((str(data.get("name", path.stem)), beside, data))
            continue
        items = data.get("tensors", data) if isinstance(data, dict) else data
        for name, item in items.items() if isinstance(items, dict) else _named(items):
            if isinstance(item, dict) and "shape" in item:
                described.append((name, folder / str(item.get("file", f"{name}.bin")), item))
    if not described:
        raise RequestError(
            f"{folder} describes no tensors; expected .bin files with a JSON of shape and dtype beside each, "
            "or one manifest that lists name, file, shape and dtype."
        )
    return {name: _read_raw(path, item) for name, path, item in described}


def _named(items: Iterable[Any]) -> list[tuple[str, Any]]:
    return [(str(item["name"]), item) for item in items if isinstance(item, dict) and "name" in item]


def _read_raw(path: Path, item: Mapping[str, Any]) -> Tensor:
    kind = str(item.get("dtype", "f32")).lower().removeprefix("torch.")
    try:
        shape = [int(size) for size in item["shape"]]
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"{path.name} has the shape {item['shape']!r}; expected whole numbers. Correct its JSON."
        ) from error
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
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
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
