"""The page of `sonant measure --plots`: waveform, spectrogram, pitch and figures of each recording."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sonant.audio.measure import FRAME_SECONDS, HIGHEST_PITCH, LOWEST_PITCH, pitch_track
from sonant.audio.picture import PICTURE_WIDTH, waveform
from sonant.readings.pages import document, player, spectrogram_image, table
from sonant.request.audio import Audio

COLUMNS = (
    ("seconds", "s", ".2f"), ("loudness", "LUFS", ".1f"), ("peak", "peak", ".2f"),
    ("clipping_share", "clipped", ".2%"), ("dc_offset", "offset", "+.4f"), ("rumble_share", "rumble", ".1%"),
    ("silence_share", "silence", ".0%"), ("pitch", "pitch Hz", ".0f"),
    ("syllable_rate", "syllables / s", ".1f"),
    ("wer", "word errors", ".1%"), ("cer", "letter errors", ".1%"), ("dnsmos", "DNSMOS", ".2f"),
    ("similarity", "likeness", ".2f"),
)  # fmt: skip
PITCH_HEIGHT = 100


def page(recordings: Sequence[tuple[Audio, Mapping[str, Any]]]) -> str:
    """The HTML of recordings with their results, as `sonant measure --json` has them."""
    used = [column for column in COLUMNS if any(column[0] in result for _, result in recordings)]
    rows = [(str(result["file"]), result) for _, result in recordings]
    sections = "\n".join(_section(audio, result) for audio, result in recordings)
    return document("Recordings", f"{table('file', used, rows, linked=True)}\n{sections}")


def _section(audio: Audio, result: Mapping[str, Any]) -> str:
    name = html.escape(str(result["file"]))
    lines = [f'<section id="{name}"><h2>{name}</h2>', player(audio), waveform(audio.samples)]
    lines += [spectrogram_image(audio, str(result["file"])), pitch_picture(audio)]
    if result.get("heard") is not None:
        lines.append(f"<p>heard: <q>{html.escape(result['heard'])}</q></p>")
    lines += [f'<p class="error">{html.escape(run)}</p>' for run in result.get("runs", ())]
    lines += [f'<p class="note">{html.escape(problem)}</p>' for problem in result["problems"]]
    return "\n".join([*lines, "</section>"])


def pitch_picture(audio: Audio) -> str:
    """Fundamental frequency over time as an SVG, on a logarithmic scale of 60 to 500 Hz."""
    track = pitch_track(audio.samples, audio.sample_rate)
    seconds = max(audio.seconds, FRAME_SECONDS)
    dots = []
    for number in np.flatnonzero(np.isfinite(track)):
        x = (number + 0.5) * FRAME_SECONDS / seconds * PICTURE_WIDTH
        height = np.log(track[number] / LOWEST_PITCH) / np.log(HIGHEST_PITCH / LOWEST_PITCH)
        dots.append(f'<circle cx="{x:.1f}" cy="{PITCH_HEIGHT * (1 - height):.1f}" r="1.3"/>')
    lines = []
    for hertz in (100, 200, 400):
        y = PITCH_HEIGHT * (1 - np.log(hertz / LOWEST_PITCH) / np.log(HIGHEST_PITCH / LOWEST_PITCH))
        lines.append(
            f'<line x1="0" x2="{PICTURE_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
            f'stroke-opacity=".2"/><text x="2" y="{y - 2:.1f}" font-size="9">{hertz} Hz</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PICTURE_WIDTH} {PITCH_HEIGHT}" role="img" '
        f'aria-label="pitch" fill="currentColor">{"".join(lines)}{"".join(dots)}</svg>'
    )
