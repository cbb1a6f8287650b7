"""What a checkpoint folder holds, read from headers alone: no weights are loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonant.errors import CheckpointError, SonantError

WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
GRAPHS = (".onnx",)
CONFIGS = ("config.json", "config.yaml", "{family}.yaml")
"""Where a release keeps its config, the first that is there."""


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of weights; a graph's tensors are not counted."""

    path: str
    bytes: int
    tensors: int = 0
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    read: int | None = None
    """Of the parameters, those that inference reads; None where the family does not tell."""
    is_opened: bool = True
    """Whether inference opens the file at all."""
    problem: str = ""
    """Why its header could not be read."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A checkpoint folder from the outside."""

    family: str
    folder: str
    config: Mapping[str, Any]
    weights: tuple[WeightFile, ...]

    @property
    def parameters(self) -> int:
        """Numbers in all tensors that inference reads."""
        return sum(file.parameters if file.read is None else file.read for file in self.weights)


def inspect_folder(family: str, folder: Path, read: Mapping[str, int] | None = None) -> Inspection:
    """Config and weight files of a checkpoint, its subfolders included.

    `read`: of each file that inference opens, how many numbers it reads (`registry.numbers_read`).
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "." + path.parts[-1] != path.name)
    weights = [
        _weights(path, path.relative_to(folder).as_posix(), read)
        for path in files
        if path.suffix in WEIGHTS + GRAPHS
        and not any(part.startswith(".") for part in path.parts[len(folder.parts) :])
    ]
    return Inspection(
        family=family, folder=str(folder), config=_config(family, folder), weights=tuple(weights)
    )


def _weights(path: Path, name: str, read: Mapping[str, int] | None) -> WeightFile:
    size = path.stat().st_size
    is_opened = read is None or name in read
    try:
        if path.suffix in GRAPHS:
            return WeightFile(path=name, bytes=size, is_opened=is_opened)
        shapes = _safetensors_shapes(path) if path.suffix == ".safetensors" else _pickle_shapes(path)
    except SonantError as error:
        return WeightFile(path=name, bytes=size, problem=str(error), is_opened=is_opened)
    return WeightFile(
        path=name,
        bytes=size,
        tensors=len(shapes),
        parameters=sum(math.prod(shape) for _, shape in shapes),
        dtypes=tuple(sorted({dtype for dtype, _ in shapes})),
        read=None if read is None else read.get(name, 0),
        is_opened=is_opened,
    )


def _safetensors_shapes(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor, from the JSON header."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(path.stat().st_size, 1 << 27):
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(file.read(length))
        entries = [entry for key, entry in header.items() if key != "__metadata__"]
        return [(str(entry["dtype"]).lower(), tuple(map(int, entry["shape"]))) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path.name} is no readable safetensors file ({error}); expected a whole one. Fetch it again."
        ) from error


def _pickle_shapes(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor, with the storages left on disk."""
    from sonant.checkpoints.files import read_pickle

    data = read_pickle(path, device="meta")
    return [(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for tensor in _tensors(data)]


def _tensors(data: Any) -> list[Any]:
    import torch

    if isinstance(data, torch.Tensor):
        return [data]
    values = data.values() if isinstance(data, Mapping) else data if isinstance(data, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _config(family: str, folder: Path) -> dict[str, Any]:
    """The plain data of the folder's config; empty where it needs the family's own reader."""
    import yaml

    for name in CONFIGS:
        path = folder / name.format(family=family)
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            data = json.loads(text) if path.suffix == ".json" else yaml.load(text, _plain_loader())
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return data if isinstance(data, dict) else {}
    return {}


def _plain_loader() -> Any:
    """YAML's safe loader that reads whatever a tag stands on as plain data, and never acts on the tag."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        pass

    def plain(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return node.value

    PlainLoader.add_multi_constructor("!", plain)
    return PlainLoader
