"""docs/settings.md, written from the table: python -m sonant.request.settings_page > docs/settings.md"""

from __future__ import annotations

import sys

from sonant.request.settings import SETTINGS, Flag, Setting

HEAD = """# Settings

Every setting of speech: its name in Python and in a receipt, its option of `sonant say`, its field in the
HTTP bodies, the values it takes, and the capabilities of which a model must have one. Where no default is
given, the model's own holds (`sonant inspect MODEL`). This page is written from the table in
`sonant.request.settings`.
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
    parts = [HEAD]
    for panel in ("How it sounds", "Decoding", "Output", "Switches of one family"):
        parts.append(f"## {panel}\n")
        parts.append("| setting | `sonant say` | HTTP | values | default | needs | what it does |")
        parts.append("| --- | --- | --- | --- | --- | --- | --- |")
        parts += [_line(row) for row in SETTINGS if _panel(row) == panel]
        parts.append("")
    return "\n".join(parts)


def _panel(row: Setting) -> str:
    return "Switches of one family" if row.home == "options" else (row.flag or Flag()).panel


def _line(row: Setting) -> str:
    flag = "" if row.flag is None else f"`{(row.flag.names or ('--' + row.key.replace('_', '-'),))[0]}`"
    field = "" if row.field is None else f"`{row.field_name}`"
    if row.home == "sampling":
        field = f"{field}, `sampling.{row.name}`".removeprefix(", ")
    if row.home == "options":
        field = f"`options.{row.name}`"
    values = row.range or _VALUES[row.kind]
    default = "" if row.default is None or row.default == {} else f"`{_plain(row.default)}`"
    needs = " or ".join(f"`{name}`" for name in row.needs)
    cells = (f"`{row.name}`", flag, field, f"{values} {row.unit}".strip(), default, needs, row.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.stdout.write(settings_page())
