"""Pages to look at and listen to, everything inside one HTML file: the frame, tables, players, pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sonant.audio.encode import open_encoder
from sonant.audio.picture import png, spectrogram
from sonant.request.audio import Audio

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: 1rem 0; }
h2 { margin: 0; font-size: 1.1rem; } p { margin: .25rem 0; }
img, audio, svg { width: 100%; display: block; margin: .5rem 0; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
td, th { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid #8884; }
td:first-child, th:first-child { text-align: left; }
.error { color: #c22; } .note { color: #a60; } .scroll { overflow-x: auto; }
.chosen { border-left: 4px solid #283; padding-left: .75rem; margin: .75rem 0; }
"""

Columns = Sequence[tuple[str, str, str]]
"""Key, title and format of each column."""


def document(title: str, body: str) -> str:
    """A whole page."""
    shown = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{shown}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head><body>\n<h1>{shown}</h1>\n{body}\n</body></html>\n"
    )


def table(
    first: str,
    columns: Columns,
    rows: Iterable[tuple[str, Mapping[str, Any] | None]],
    *,
    linked: bool = False,
) -> str:
    """A table with a row for each name; one without values failed. `linked` leads to the sections by name."""
    head = "".join(f"<th>{html.escape(title)}</th>" for _, title, _ in columns)
    body = []
    for name, values in rows:
        shown = html.escape(name)
        label = f'<a href="#{shown}">{shown}</a>' if linked else shown
        if values is None:
            cells = f'<td colspan="{len(columns)}" class="error">failed</td>'
        else:
            cells = "".join(f"<td>{_shown(values.get(key), form)}</td>" for key, _, form in columns)
        body.append(f"<tr><td>{label}</td>{cells}</tr>")
    top = f"<tr><th>{html.escape(first)}</th>{head}</tr>"
    return f'<div class="scroll"><table>{top}{"".join(body)}</table></div>'


def _shown(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def player(audio: Audio) -> str:
    """A player with the sound inside, as mp3."""
    encoder = open_encoder("mp3", audio.sample_rate)
    sound = base64.b64encode(encoder.encode(audio.samples) + encoder.finish()).decode()
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>'


def spectrogram_image(audio: Audio, name: str) -> str:
    """The spectrogram as a picture."""
    picture = base64.b64encode(png(spectrogram(audio.samples, audio.sample_rate))).decode()
    about = f"spectrogram of {name}: time to the right, 0 to {audio.sample_rate / 2000:g} kHz upwards"
    return f'<img alt="{html.escape(about)}" src="data:image/png;base64,{picture}">'
