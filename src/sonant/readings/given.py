"""Settings as people write them, in files and on the command line, as the fields of a job."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sonant.errors import RequestError
from sonant.readings.job import parse_emotion, parse_option, read_glossary
from sonant.request.settings import EMOTIONS, SETTINGS, Setting, check_value, read_level

_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
BY_ANY_NAME: Mapping[str, Setting] = {
    name: row
    for row in reversed(SETTINGS)
    if row.kind != "feed" and row.home != "load"
    for name in (row.field_name, row.name, row.key, row.key.replace("_", "-"))
}
"""Rows by the name of the table, of the command line (with either kind of stroke) and of HTTP."""


def setting_named(name: str, *, where: str = "") -> Setting:
    """The row of a name. Raises RequestError saying which is near."""
    row = BY_ANY_NAME.get(name.strip().lower())
    if row is None:
        near = difflib.get_close_matches(name.lower(), BY_ANY_NAME, n=1)
        hint = f"Did you mean {near[0]}?" if near else "The page of settings lists them (docs/settings.md)."
        raise RequestError(
            f"{where}there is no setting {name!r}; expected one of the table of settings. {hint}", field=name
        )
    return row


def job_fields(
    given: Mapping[str, Any], *, folder: Path | None = None, files: bool = True, where: str = ""
) -> dict[str, Any]:
    """Fields of `Job` from settings by name, each value of its kind or as text; None is not given.

    Paths are taken from `folder`; without `files` nothing may be one, as where a stranger asks. `where`
    begins each message. Raises RequestError.
    """
    fields: dict[str, Any] = {}
    homes: dict[str, dict[str, Any]] = {"settings": {}, "sampling": {}, "options": {}}
    for name, raw in given.items():
        if raw is None:
            continue
        row = setting_named(str(name), where=where)
        try:
            if not files:
                _refuse_file(row, raw)
            value = _value(row, raw, folder)
            check_value(row, value)
        except RequestError as error:
            raise RequestError(f"{where}{error}", field=row.name) from error
        if row.kind == "options":
            homes["options"] |= value
        elif row.home == "job":
            fields[row.name] = value
        else:
            homes[row.home if row.home in homes else "settings"][row.key] = value
    return {**fields, **homes}


def _refuse_file(row: Setting, raw: Any) -> None:
    if row.kind == "clip" or row.name in ("transcript", "design_model", "design_text"):
        raise RequestError(
            f"{row.field_name} is not taken here; expected a voice by name. Add the voice first.",
            field=row.name,
        )
    if row.kind == "glossary" and not isinstance(raw, Mapping):
        raise RequestError("the glossary is no mapping of words to spellings. Send one.", field="glossary")


def _value(row: Setting, raw: Any, folder: Path | None) -> Any:
    """A value of the row's kind from what was written."""
    match row.kind:
        case "level":
            return read_level(row, raw)
        case "emotions":
            return _emotions(raw)
        case "glossary":
            return read_glossary(_path(raw, folder)) if isinstance(raw, (str, Path)) else raw
        case "clip":
            return str(_path(raw, folder))
        case "options" if isinstance(raw, (list, tuple)):
            return dict(parse_option(str(item)) for item in raw)
        case "options" if isinstance(raw, str):
            return dict(parse_option(item) for item in raw.split(";") if item.strip())
        case "voice":
            return _voice(raw, folder)
    if not isinstance(raw, str):
        return raw
    try:
        if row.kind == "switch":
            return _SWITCHES[raw.strip().lower()]
        if row.kind == "whole":
            return int(raw)
        if row.kind == "number":
            return float(raw)
    except (KeyError, ValueError):
        expected = {"switch": "true or false", "whole": "a whole number"}.get(row.kind, "a number")
        raise RequestError(
            f"{row.said or row.name} is {raw!r}; expected {expected}", field=row.name
        ) from None
    return raw


def _emotions(raw: Any) -> tuple[float, ...]:
    if isinstance(raw, str):
        return parse_emotion(raw)
    if isinstance(raw, Mapping):
        return parse_emotion(",".join(f"{name}={value}" for name, value in raw.items()))
    try:
        return tuple(float(value) for value in raw)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(
            f"the emotion is {raw!r}; expected numbers by name, among {', '.join(EMOTIONS)}.",
            field="emotion_vector",
        ) from None


def _path(raw: Any, folder: Path | None) -> Path:
    if "\0" in str(raw):
        raise RequestError(f"{str(raw)[:80]!r} is no name of a file; expected one. Mend it.")
    path = Path(str(raw))
    with contextlib.suppress(RuntimeError):  # "~nobody": such a file may be there all the same
        path = path.expanduser()
    return path if folder is None or path.is_absolute() else folder / path


def _voice(raw: Any, folder: Path | None) -> Any:
    """A name as it is; a clip or a voice file that lies beside the file that names it by its path."""
    if not isinstance(raw, str):
        raise RequestError(f"the voice is {raw!r}; expected a name or a file.", field="voice")
    beside = _path(raw, folder) if folder is not None else None
    return str(beside) if beside is not None and os.path.isfile(beside) else raw
