"""docs/server-options.md, written from the table: python -m sonant.server.options_page"""

from __future__ import annotations

import sys
from typing import get_args

from sonant.server.options import OPTIONS, Option, Panel

HEAD = """# Options of the server

Every option of `sonant serve`; those with *studio* are `sonant studio`'s too, and those with *cluster* are
also said as NAME=VALUE [on a cluster](server.md#on-a-cluster), several values with commas. This page is
written from the table in `sonant.server.options`.
"""
_VALUES = {
    "text": "text",
    "texts": "text, may be repeated",
    "pairs": "may be repeated",
    "path": "a path",
    "switch": "",
    "whole": "a whole number",
    "number": "a number",
    "level": "",
}


def options_page() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    for panel in get_args(Panel):
        parts.append(f"## {panel}\n")
        parts.append("| option | values | default | also on | what it does |")
        parts.append("| --- | --- | --- | --- | --- |")
        parts += [_line(row) for row in OPTIONS if row.panel == panel]
        parts.append("")
    return "\n".join(parts)


def _line(row: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in row.flags or (f"--{row.name.replace('_', '-')}",))
    values = ", ".join(word for word in (row.metavar, _VALUES[row.kind], row.range) if word)
    has_default = row.default not in (None, False, (), {}) and row.default != ""
    default = f"`{row.default:g}`" if isinstance(row.default, float) else f"`{row.default}`"
    others = ", ".join(where for where in row.on if where != "serve")
    return f"| {' | '.join((flags, values, default if has_default else '', others, row.help))} |"


if __name__ == "__main__":
    sys.stdout.write(options_page())
