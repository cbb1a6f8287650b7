"""The suite's page: one HTML file with players and spectrograms inside, readable anywhere, offline."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sonant.audio.encode import open_encoder
from sonant.audio.picture import png, spectrogram
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec

if TYPE_CHECKING:
    from sonant.readings.takes import Material, Take

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: 1rem 0; }
h2 { margin: 0; font-size: 1.1rem; } p { margin: .25rem 0; }
img, audio { width: 100%; display: block; margin: .5rem 0; border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
td, th { text-align: right; padding: .2rem .5rem; border-bottom: 1px solid #8884; }
td:first-child, th:first-child { text-align: left; }
.error { color: #c22; } .note { color: #a60; } .scroll { overflow-x: auto; }
"""

COLUMNS = (
    ("seconds", "s", ".2f"), ("loudness", "LUFS", ".1f"), ("peak", "peak", ".2f"),
    ("clipping_share", "clipped", ".2%"), ("dc_offset", "offset", "+.4f"), ("rumble_share", "rumble", ".1%"),
    ("silence_share", "silence", ".0%"), ("pitch", "pitch Hz", ".0f"), ("syllable_rate", "syllables", ".1f"),
)  # fmt: skip


def page(spec: ModelSpec, material: Material, takes: Sequence[Take], folder: Path) -> str:
    """The HTML of a suite whose clips lie in `folder`."""
    sections = "\n".join(_section(take, folder) for take in takes)
    title = html.escape(f"{spec.name}: every mode")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        f"<p>{html.escape(spec.family)} {html.escape(spec.fingerprint)}, seed {material.seed}</p>\n"
        f"<p><q>{html.escape(material.text)}</q></p>\n{_table(takes)}\n{sections}\n</body></html>\n"
    )


def _table(takes: Sequence[Take]) -> str:
    head = "".join(f"<th>{title}</th>" for _, title, _ in COLUMNS)
    rows = []
    for take in takes:
        if take.measurement is None:
            cells = f'<td colspan="{len(COLUMNS) + 2}" class="error">failed</td>'
        else:
            values = take.measurement.as_dict()
            shown = ("-" if values[name] is None else format(values[name], form) for name, _, form in COLUMNS)
            cells = "".join(f"<td>{value}</td>" for value in shown)
            cells += f"<td>{take.first_audio:.2f}</td><td>{take.total / max(take.seconds, 1e-9):.2f}</td>"
        rows.append(f"<tr><td>{html.escape(take.mode.name)}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><tr><th>mode</th>{head}<th>first sound s</th><th>real time x</th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def _section(take: Take, folder: Path) -> str:
    name, about = html.escape(take.mode.name), html.escape(take.mode.about)
    lines = [f'<section id="{name}"><h2>{name}</h2><p>{about}</p>']
    if take.error:
        lines.append(f'<p class="error">{html.escape(take.error)}</p>')
    else:
        audio = Audio.read(folder / take.file)
        encoder = open_encoder("mp3", audio.sample_rate)
        sound = base64.b64encode(encoder.encode(audio.samples) + encoder.finish()).decode()
        picture = base64.b64encode(png(spectrogram(audio.samples, audio.sample_rate))).decode()
        lines.append(f'<audio controls preload="none" src="data:audio/mpeg;base64,{sound}"></audio>')
        alt = f"spectrogram of {name}: time to the right, 0 to {audio.sample_rate / 2000:g} kHz upwards"
        lines.append(f'<img alt="{alt}" src="data:image/png;base64,{picture}">')
        lines.append(f'<p><a href="{html.escape(take.file)}">{html.escape(take.file)}</a></p>')
        problems = take.measurement.problems() if take.measurement is not None else ()
        lines += [f'<p class="note">{html.escape(note)}</p>' for note in (*take.guards, *problems)]
    return "\n".join([*lines, "</section>"])
