"""The suite's page: one HTML file with players and spectrograms inside, readable anywhere, offline."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.readings.pages import document, player, spectrogram_image, table
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec

if TYPE_CHECKING:
    from sonant.readings.takes import Material, Take

COLUMNS = (
    ("seconds", "s", ".2f"), ("loudness", "LUFS", ".1f"), ("peak", "peak", ".2f"),
    ("clipping_share", "clipped", ".2%"), ("dc_offset", "offset", "+.4f"), ("rumble_share", "rumble", ".1%"),
    ("silence_share", "silence", ".0%"), ("pitch", "pitch Hz", ".0f"), ("syllable_rate", "syllables", ".1f"),
    ("first_audio", "first sound s", ".2f"), ("real_time", "real time x", ".2f"),
)  # fmt: skip


def page(spec: ModelSpec, material: Material, takes: Sequence[Take], folder: Path) -> str:
    """The HTML of a suite whose clips lie in `folder`."""
    sections = "\n".join(_section(take, folder) for take in takes)
    body = (
        f"<p>{html.escape(spec.family)} {html.escape(spec.fingerprint)}, seed {material.seed}</p>\n"
        f"<p><q>{html.escape(material.text)}</q></p>\n"
        f"{table('mode', COLUMNS, [(take.mode.name, _figures(take)) for take in takes])}\n{sections}"
    )
    return document(f"{spec.name}: every mode", body)


def _figures(take: Take) -> dict[str, Any] | None:
    if take.measurement is None:
        return None
    pace = {"first_audio": take.first_audio, "real_time": take.total / max(take.seconds, 1e-9)}
    return take.measurement.as_dict() | pace


def _section(take: Take, folder: Path) -> str:
    name, about = html.escape(take.mode.name), html.escape(take.mode.about)
    lines = [f'<section id="{name}"><h2>{name}</h2><p>{about}</p>']
    if take.error:
        lines.append(f'<p class="error">{html.escape(take.error)}</p>')
    else:
        audio = Audio.read(folder / take.file)
        lines += [player(audio), spectrogram_image(audio, take.mode.name)]
        lines.append(f'<p><a href="{html.escape(take.file)}">{html.escape(take.file)}</a></p>')
        problems = take.measurement.problems() if take.measurement is not None else ()
        lines += [f'<p class="note">{html.escape(note)}</p>' for note in (*take.guards, *problems)]
    return "\n".join([*lines, "</section>"])
