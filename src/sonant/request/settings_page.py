"""docs/settings.md, written from the table: python -m sonant.request.settings_page > docs/settings.md"""

from __future__ import annotations

import sys

from sonant.request.settings import SETTINGS, Flag, Setting, settings_of

HEAD = """# Settings

Every setting of speech: its name in Python and in a receipt, its option of `sonant say`, its field in the
HTTP bodies, the values it takes, and the capabilities of which a model must have one. Where no default is
given, the model's own holds (`sonant inspect MODEL`). This page is written from the table in
`sonant.request.settings`.
"""
LOADING = """## How a model is loaded

Options of the commands that load a model, each of those that fit it (`--help`), of the server, and arguments
of `sonant.load`. They are no part of a request: who runs a server chooses them, not who asks it.
"""
_VALUES = {
    "switch": "true or false",
    "whole": "a whole number",
    "number": "a number",
    "level": "a number or off",
    "text": "text",
    "name": "a name",
    "voice": "a name",
    "clip": "sound",
    "emotions": "eight numbers, 0 to 1",
    "glossary": "words and spellings",
    "options": "names and values",
    "feed": "`TextFeed`",
}


def settings_page() -> str:
    """The page, as Markdown."""
    parts = [HEAD, LOADING]
    parts.append("| setting | option | values | default | what it does |")
    parts.append("| --- | --- | --- | --- | --- |")
    parts += [_loading(row) for row in settings_of("load")]
    parts.append("")
    for panel in ("How it sounds", "Decoding", "Output", "Switches of one family"):
        parts.append(f"## {panel}\n")
        parts.append("| setting | `sonant say` | HTTP | values | default | needs | what it does |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [_line(row) for row in SETTINGS if _panel(row) == panel]
        parts.append("")
    return "\n".join(parts)


def _loading(row: Setting) -> str:
    return _cells(f"`{row.name}`", _flag(row), row.range or _VALUES[row.kind], _default(row), row.help)


def _panel(row: Setting) -> str:
    return "Switches of one family" if row.home == "options" else (row.flag or Flag()).panel


def _line(row: Setting) -> str:
    field = "" if row.field is None else f"`{row.field_name}`"
    if row.home == "sampling":
        field = f"{field}, `sampling.{row.name}`".removeprefix(", ")
    if row.home == "options":
        field = f"`options.{row.name}`"
    values = f"{row.range or _VALUES[row.kind]} {row.unit}".strip()
    needs = " or ".join(f"`{name}`" for name in row.needs)
    return _cells(f"`{row.name}`", _flag(row), field, values, _default(row), needs, row.help)


def _flag(row: Setting) -> str:
    return "" if row.flag is None else f"`{(row.flag.names or ('--' + row.key.replace('_', '-'),))[0]}`"


def _default(row: Setting) -> str:
    return "" if row.default is None or row.default == {} else f"`{_plain(row.default)}`"


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(settings_page())
