"""Plain JSON or YAML data -> strict frozen dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from sonant.errors import ConfigError, few

T = TypeVar("T")


def from_dict(
    kind: type[T],
    data: Mapping[str, Any],
    *,
    ignored: Iterable[str] = (),
    rename: Mapping[str, str] | None = None,
    where: str = "config",
) -> T:
    """An instance of the frozen dataclass `kind` from plain data.

    `rename` maps a key of the data to a field; `ignored` lists keys that do not matter for inference.
    Unknown keys, missing fields and values of the wrong type raise ConfigError, the first few of them in one
    message. Integers are accepted for floats, lists for tuples.
    """
    rename = rename or {}
    dropped = set(ignored)
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in data.items():
        name = rename.get(key, key)
        if key in dropped:
            continue
        if name not in fields:
            problems.append(f"unknown key {key!r}")
            continue
        try:
            values[name] = _coerce(value, hints[name])
        except TypeError as error:
            problems.append(f"{key!r}: {error}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values and not any(f"'{name}'" in p for p in problems):
            sources = [old for old, new in rename.items() if new == name] or [name]
            problems.append(f"missing key {sources[0]!r}")
    if problems:
        raise ConfigError(
            f"{where} does not fit {kind.__name__}: {'; '.join(few(problems))}. "
            "Check that the folder is a complete checkpoint of a supported release."
        )
    return kind(**values)


def _coerce(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        for choice in choices:
            try:
                return _coerce(value, choice)
            except TypeError:
                continue
        raise TypeError(f"found {value!r}, expected {hint}")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"found {value!r}, expected a list")
        args = get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_coerce(item, args[0]) for item in value)
        if len(args) != len(value):
            raise TypeError(f"found {len(value)} values, expected {len(args)}")
        return tuple(_coerce(item, arg) for item, arg in zip(value, args, strict=True))
    if origin is dict or origin is Mapping:
        if not isinstance(value, dict):
            raise TypeError(f"found {value!r}, expected a mapping")
        key_hint, item_hint = get_args(hint)
        return {_coerce(k, key_hint): _coerce(v, item_hint) for k, v in value.items()}
    if origin is typing.Literal:
        if value not in get_args(hint):
            raise TypeError(f"found {value!r}, expected one of {list(get_args(hint))}")
        return value
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise TypeError(f"found {value!r}, expected an integer")
    if isinstance(hint, type) and not isinstance(value, hint):
        raise TypeError(f"found {value!r}, expected {hint.__name__}")
    return value
