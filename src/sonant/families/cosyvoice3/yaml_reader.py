"""`cosyvoice3.yaml` as plain data: nothing in the file is imported, called or evaluated.

The file is hyperpyyaml: `!new:path` builds an object, `!name:path` a partial, `!apply:path` calls a
function, `!ref <key> * <key>` computes. Here the first three become inert `Node`s and only references,
with + - * / // % on numbers, are resolved.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sonant.errors import ConfigError

MAX_BYTES = 1_000_000
"""The official file has under 10 kB; a huge one is refused before it is parsed."""

_REFERENCE = re.compile(r"<([A-Za-z_][A-Za-z0-9_.]*)>")
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Node:
    """A tagged value: `kind` is "new", "name", "apply" or another word, `path` what the file names."""

    kind: str
    path: str
    value: Any


class _Loader(yaml.SafeLoader):
    """The safe loader, with every unknown tag turned into a Node."""


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Node:
    kind, _, path = suffix.partition(":")
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.ScalarNode)
        value = loader.construct_scalar(node)
    return Node(kind, path, value)


_Loader.add_multi_constructor("!", _tagged)
# "!!python/object/apply:..." and the like: also inert.
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _tagged)


def read_yaml(path: Path) -> dict[str, Any]:
    """Top-level keys of the file, with references resolved.

    Raises ConfigError when the file is missing, too large, no YAML mapping, or refers to nothing.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ConfigError(
                f"{path} has {size} bytes; expected a config of a few kilobytes. Download it again."
            )
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path.name} is missing in {path.parent}. The checkpoint is incomplete: download it again."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{path} is not readable YAML ({first}). Download the checkpoint again.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; expected keys and values.")
    resolver = _Resolver(data, str(path))
    return {str(key): resolver.value(key) for key in data}


class _Resolver:
    """References of one file, each top-level key resolved once."""

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self._data = data
        self._where = where
        self._done: dict[str, Any] = {}
        self._open: list[str] = []

    def value(self, key: str) -> Any:
        if key in self._done:
            return self._done[key]
        if key in self._open:
            raise ConfigError(
                f"{self._where}: {' -> '.join([*self._open, key])} refer to each other. "
                "Use the official file."
            )
        self._open.append(key)
        self._done[key] = self._resolve(self._data[key])
        self._open.pop()
        return self._done[key]

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, Node):
            if value.kind == "ref":
                return self._reference(str(value.value))
            return Node(value.kind, value.path, self._resolve(value.value))
        if isinstance(value, dict):
            return {str(key): self._resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item) for item in value]
        return value

    def _reference(self, text: str) -> Any:
        names = _REFERENCE.findall(text)
        if len(names) == 1 and _REFERENCE.fullmatch(text.strip()):
            return self._lookup(names[0])
        numbers: dict[str, float] = {}

        def number(match: re.Match[str]) -> str:
            found = self._lookup(match.group(1))
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                raise ConfigError(
                    f"{self._where}: !ref {text} computes with {found!r}; expected a number. "
                    "Use the official file."
                )
            name = f"n{len(numbers)}"
            numbers[name] = found
            return name

        try:
            return _arithmetic(ast.parse(_REFERENCE.sub(number, text), mode="eval").body, numbers)
        except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError) as error:
            raise ConfigError(
                f"{self._where}: !ref {text} is no sum or product of numbers ({error}). "
                "Use the official file."
            ) from error

    def _lookup(self, name: str) -> Any:
        first, *rest = name.split(".")
        if first not in self._data:
            raise ConfigError(f"{self._where}: !ref <{name}> names no key. Use the official file.")
        found = self.value(first)
        for part in rest:
            found = found.value if isinstance(found, Node) else found
            if not isinstance(found, dict) or part not in found:
                raise ConfigError(f"{self._where}: !ref <{name}> names no key. Use the official file.")
            found = found[part]
        return found


def _arithmetic(tree: ast.expr, numbers: Mapping[str, float]) -> Any:
    """The value of a tree of numbers and + - * / // %; anything else raises ValueError."""
    if isinstance(tree, ast.Constant) and isinstance(tree.value, (int, float)):
        return tree.value
    if isinstance(tree, ast.Name):
        return numbers[tree.id]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_arithmetic(tree.operand, numbers)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
        return _OPERATORS[type(tree.op)](_arithmetic(tree.left, numbers), _arithmetic(tree.right, numbers))
    raise ValueError(f"{type(tree).__name__} is not allowed")
