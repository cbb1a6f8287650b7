"""The page of a sweep: one HTML file with the ranking, and every clip to hear and see; readable offline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.readings.pages import document, player, spectrogram_image, table
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec

if TYPE_CHECKING:
    from sonant.quality.standings import Standing
    from sonant.quality.trials import Clip, Task

COLUMNS = (
    ("points", "points", ".1f"), ("wer", "word errors", ".1%"), ("longest_wrong", "longest wrong", ".0f"),
    ("dnsmos", "DNSMOS", ".2f"), ("similarity", "likeness", ".2f"), ("syllable_rate", "syllables / s", ".1f"),
    ("loudness", "LUFS", ".1f"), ("guards", "guards", "d"), ("failed", "failed", "d"),
    ("real_time_factor", "processor x", ".2f"),
)  # fmt: skip


def page(
    spec: ModelSpec, task: Task, standings: Sequence[Standing], report: Mapping[str, Any], folder: Path
) -> str:
    """The HTML of a sweep whose clips lie in `folder`; best candidate first."""
    chosen = report["recommended"]
    said = (
        ", ".join(f"{key}={value}" for key, value in chosen["settings"].items()) or "the model's own settings"
    )
    remarks = (*report["doubts"], *report["not_judged"])
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in remarks)
    rows = [(standing.candidate.name, standing.summary) for standing in standings]
    body = (
        f"<p>{html.escape(spec.family)} {html.escape(spec.fingerprint)}, seed {task.seed}, "
        f"{len(task.sentences)} sentences, {len(standings)} candidates</p>\n"
        f'<p class="chosen">Recommended: <b>{html.escape(chosen["name"])}</b> ({html.escape(said)}): '
        f"{html.escape(chosen['reason'])}.</p>\n{notes}{table('candidate', COLUMNS, rows, linked=True)}\n"
        + "\n".join(_section(standing, folder) for standing in standings)
    )
    return document(f"{spec.name}: sweep of settings", body)


def _section(standing: Standing, folder: Path) -> str:
    name = html.escape(standing.candidate.name)
    settings = standing.candidate.settings
    told = ", ".join(f"{key} = {value}" for key, value in settings.items()) or "as the model has it"
    lines = [f'<section id="{name}"><h2>{name}</h2><p>{html.escape(told)}</p>']
    against = standing.against_default
    if against is not None:
        between = f"{against.low:+.1f} to {against.high:+.1f}" if against.is_known else "too few sentences"
        lines.append(f"<p>{against.value:+.1f} points against the default ({between})</p>")
    lines += [_clip(clip, folder) for clip in standing.clips]
    return "\n".join([*lines, "</section>"])


def _clip(clip: Clip, folder: Path) -> str:
    lines = [f"<details><summary>{clip.points:.1f} &middot; {html.escape(clip.text)}</summary>"]
    if clip.error:
        lines.append(f'<p class="error">{html.escape(clip.error)}</p>')
    else:
        audio = Audio.read(folder / clip.file)
        lines += [player(audio), spectrogram_image(audio, clip.file)]
        judged = clip.judgement
        if judged is not None and judged.heard is not None:
            lines.append(f"<p>heard: <q>{html.escape(judged.heard)}</q></p>")
        if judged is not None and judged.words is not None:
            lines += [f'<p class="error">{html.escape(str(run))}</p>' for run in judged.words.runs[:6]]
        problems = clip.measurement.problems() if clip.measurement is not None else ()
        lines += [f'<p class="note">{html.escape(note)}</p>' for note in (*clip.guards, *problems)]
    return "\n".join([*lines, "</details>"])
