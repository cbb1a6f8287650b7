"""A comparison as one HTML page: stages with bars, error over decoding steps, the worst tensor in colours."""

from __future__ import annotations

import base64
import html
import math
import os
import struct
import zlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sonant.parity.trace import Entry, Trace
from sonant.parity.verdicts import SINGLE, Comparison, StageResult, describe

Pixels = npt.NDArray[np.uint8]

PICTURE_ROWS, PICTURE_COLUMNS = 120, 360

_SCRIPT = """
document.querySelector("#copy").addEventListener("click", async (event) => {
  await navigator.clipboard.writeText(document.querySelector("#command").textContent);
  event.target.textContent = "Copied";
});
"""


def write_report(
    path: str | os.PathLike[str], found: Comparison, reference: Trace, other: Trace, *, command: str
) -> None:
    """Write the page. `command` is what reproduces it."""
    Path(path).write_text(report_page(found, reference, other, command=command), encoding="utf-8")


def report_page(found: Comparison, reference: Trace, other: Trace, *, command: str) -> str:
    """The page as text; it needs nothing but itself."""
    style = files("sonant.parity").joinpath("report.css").read_text(encoding="utf-8")
    bad = "bad" if found.first_failed else ""
    parts = [
        f"<h1>Parity of {_text(reference.family or 'two traces')}</h1>",
        f'<p class="soft">{_text(found.other)} judged against {_text(found.reference)}, by the budgets of '
        f"{_text(found.precision)}</p>",
        f'<div class="headline {bad}" id="headline">{_text(found.headline)}</div>',
        _cards(found),
        _warnings(found),
        "<h2>Command</h2>",
        f'<div class="command"><pre id="command">{_text(command)}</pre>'
        '<button id="copy" type="button">Copy</button></div>',
        _worst(found, reference, other),
        _steps(found),
        _stages(found),
        _runs(reference, other),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Parity report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body>\n"
        + "\n".join(parts)
        + f"\n<script>{_SCRIPT}</script></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _cards(found: Comparison) -> str:
    titles = {
        "single_forward": "Single forward",
        "teacher_forced": "Teacher-forced decode",
        "free_decode": "Free decode",
    }
    cards = []
    for name, verdict in found.verdicts.items():
        colour = {"equal": "good", "in budget": "good", "out of budget": "bad", "differs": "bad"}.get(
            verdict.status, "none"
        )
        counts = f" · {verdict.failed} of {verdict.stages} out of budget" if verdict.failed else ""
        cards.append(
            f'<div class="card"><b>{titles[name]}</b><span class="status {colour}">{_text(verdict.status)}'
            f'</span>{_text(counts)}<br><span class="soft">{_text(verdict.detail)}</span></div>'
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _warnings(found: Comparison) -> str:
    notes = list(found.warnings)
    if found.missing:
        notes.append(f"{len(found.missing)} entries are only in the reference, first {found.missing[0]}")
    return f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>" if notes else ""


# -- the worst tensor -------------------------------------------------------------------------


def _worst(found: Comparison, reference: Trace, other: Trace) -> str:
    """Pictures of the first failed tensor, or of the one nearest to its budget."""
    shown = [
        r
        for r in found.stages
        if r.kind == "stage" and r.distance.status in {"ok", "over"} and r.distance.max_abs > 0
    ]
    failed = [r for r in shown if r.key == found.first_failed]
    if not shown:
        return "<h2>Tensors</h2><p>No tensor of equal shape differs.</p>"
    result = failed[0] if failed else max(shown, key=lambda r: r.distance.over)
    a, b = reference.by_key[result.key], other.by_key[result.key]
    title = f"<h2>{'First out of' if failed else 'Nearest to its'} budget: {_text(result.key)}</h2>"
    left, right = _matrix(a), _matrix(b)
    if left is None or right is None or left.shape != right.shape:
        return f"{title}<p>It is stored as samples; no picture.</p>"
    limit = float(max(np.abs(left).max(initial=0), np.abs(right).max(initial=0), 1e-30))
    difference = np.abs(left - right)
    peak = float(difference.max(initial=0)) or 1.0
    rows, columns = left.shape
    figures = [
        ("reference", _diverging(left / limit)),
        ("found", _diverging(right / limit)),
        (f"absolute difference, white is 0, darkest {peak:.2e}", _sequential(difference / peak)),
    ]
    body = "".join(
        f'<figure><img alt="{_text(caption)}" src="{_png(pixels)}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for caption, pixels in figures
    )
    return (
        f"{title}<p>{_text(describe(result.distance))}. Shape "
        f"{_text(list(result.shape))}, shown as {rows} x {columns}; red is positive, blue negative, "
        f"full colour {limit:.2e}.</p>{body}"
    )


def _matrix(entry: Entry) -> npt.NDArray[np.float64] | None:
    """The tensor as rows and columns that fit a picture, finite; None when only samples are stored."""
    if entry.sampled is not None:
        return None
    values = entry.stored.double().numpy()
    if values.ndim == 0:
        values = values.reshape(1, 1)
    if values.size > values.shape[-1]:
        values = values.reshape(-1, values.shape[-1])
    else:
        flat = values.reshape(-1)
        columns = min(len(flat), PICTURE_COLUMNS)
        rows = math.ceil(len(flat) / columns)
        values = np.pad(flat, (0, rows * columns - len(flat))).reshape(rows, columns)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    down, across = math.ceil(values.shape[0] / PICTURE_ROWS), math.ceil(values.shape[1] / PICTURE_COLUMNS)
    return _peaks(values, max(down, 1), max(across, 1))


def _peaks(values: npt.NDArray[np.float64], down: int, across: int) -> npt.NDArray[np.float64]:
    """Each block of down x across elements by its value of greatest magnitude."""
    rows, columns = (math.ceil(n / step) for n, step in zip(values.shape, (down, across), strict=True))
    padded = np.pad(values, ((0, rows * down - values.shape[0]), (0, columns * across - values.shape[1])))
    blocks = padded.reshape(rows, down, columns, across).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    place = np.abs(blocks).argmax(axis=-1)[..., None]
    return np.take_along_axis(blocks, place, axis=-1)[..., 0]


def _diverging(values: npt.NDArray[np.float64]) -> Pixels:
    """-1 blue, 0 white, 1 red."""
    strength = np.abs(values).clip(0, 1)[..., None] ** 0.6
    ends = np.where(values[..., None] >= 0, np.array([178, 24, 43]), np.array([33, 102, 172]))
    return (255 + (ends - 255) * strength).round().astype(np.uint8)


def _sequential(values: npt.NDArray[np.float64]) -> Pixels:
    """0 white, 1 dark purple."""
    strength = values.clip(0, 1)[..., None] ** 0.6
    return (255 + (np.array([63, 0, 90]) - 255) * strength).round().astype(np.uint8)


def _png(pixels: Pixels) -> str:
    """A PNG as a data address. Pixels [rows, columns, 3] are enlarged to whole multiples first."""
    scale = max(1, min(720 // pixels.shape[1], 240 // max(pixels.shape[0], 1), 12))
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width, _ = pixels.shape
    raw = b"".join(b"\x00" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


# -- decoding steps ---------------------------------------------------------------------------


def _steps(found: Comparison) -> str:
    """The greatest error of each decoding step in units of its budget, on a logarithmic axis."""
    by_step: dict[int, float] = {}
    for result in found.stages:
        if result.kind == "stage" and (result.group != SINGLE or result.step == 0):
            by_step[result.step] = max(by_step.get(result.step, 0.0), min(result.distance.over, 1e6))
    if len(by_step) < 2:
        return ""
    points = sorted(by_step.items())
    width, height, left, bottom = 1100, 220, 60, 30
    low, high = -4.0, max(1.0, *(math.log10(max(v, 1e-4)) for _, v in points))
    last = max(step for step, _ in points) or 1

    def x(step: int) -> float:
        return left + (width - left - 12) * step / last

    def y(value: float) -> float:
        share = (math.log10(max(value, 1e-4)) - low) / (high - low)
        return 10 + (height - bottom - 10) * (1 - share)

    line = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
    dots = "".join(
        f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3" fill="var(--{"bad" if v > 1 else "bar"})">'
        f"<title>step {s}: {v:.2e} of the budget</title></circle>"
        for s, v in points
    )
    marks = "".join(
        f'<line x1="{left}" x2="{width - 12}" y1="{y(10.0**p):.1f}" y2="{y(10.0**p):.1f}" '
        f'stroke="var(--{"bad" if p == 0 else "line"})" stroke-dasharray="{"5 4" if p == 0 else "none"}"/>'
        f'<text x="{left - 8}" y="{y(10.0**p) + 4:.1f}" text-anchor="end">{10.0**p:g}</text>'
        for p in range(math.ceil(low), math.floor(high) + 1)
    )
    every = max(1, last // 12)
    labels = "".join(
        f'<text x="{x(s):.1f}" y="{height - 10}" text-anchor="middle">{s}</text>'
        for s in range(0, last + 1, every)
    )
    return (
        "<h2>Error over decoding steps</h2>"
        '<p class="soft">Greatest error of each step in units of its budget (dashed line); step 0 is the '
        "prefill.</p>"
        f'<svg id="steps" viewBox="0 0 {width} {height}" width="100%" role="img" '
        f'aria-label="Error over decoding steps">{marks}<polyline points="{line}" fill="none" '
        f'stroke="var(--bar)" stroke-width="1.5"/>{dots}{labels}</svg>'
    )


# -- the table --------------------------------------------------------------------------------


def _stages(found: Comparison) -> str:
    """One row a stage name: its worst occurrence, and how many there are."""
    groups: dict[str, list[StageResult]] = {}
    for result in found.stages:
        groups.setdefault(result.key.split("@")[0], []).append(result)
    rows = "".join(_row(results, found.first_failed) for results in groups.values())
    return (
        "<h2>Stages in the order of computation</h2>"
        '<p class="soft">The worst occurrence of each stage. Bars are logarithmic; the dashed line is the '
        "budget.</p>"
        '<div class="scroll"><table id="stages"><thead><tr><th>stage<th>shape<th>dtype<th>times<th>max abs'
        "<th>mean abs<th>relative<th>cosine<th>budget<th>of budget<th>inputs</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(results: Sequence[StageResult], first_failed: str | None) -> str:
    judged = [r for r in results if r.has_failed] or results
    worst = max(judged, key=lambda r: r.distance.over)
    d = worst.distance
    is_first = any(r.key == first_failed for r in results)
    kinds = " ".join(
        word for word, holds in (("fail", any(r.has_failed for r in results)), ("first", is_first)) if holds
    )
    share = (math.log10(min(max(d.over, 1e-5), 1e5)) + 5) / 10 if d.max_abs or d.over else 0.0
    differed = {None: "", True: "differ", False: "agree"}[worst.inputs_differed]
    figures = (
        [_text(d.note)] + [""] * 3
        if d.status in {"shape", "nonfinite"}
        else [f"{d.max_abs:.2e}", f"{d.mean_abs:.2e}", f"{d.relative:.2e}", f"{d.cosine:.6f}"]
    )
    cells = "".join(f'<td class="number">{figure}' for figure in (*figures, f"{d.allowed:.2e}"))
    title = f' title="{_text(d.note)}"' if d.note else ""
    return (
        f'<tr class="{kinds}"{title}><td>{_text(worst.key)}<td>{"x".join(map(str, worst.shape))}'
        f'<td>{_text(worst.dtype)}<td class="number">{len(results)}{cells}'
        f'<td class="track"><i></i><span class="bar" style="width:{150 * share:.0f}px"></span>'
        f"<td>{differed}</tr>"
    )


def _runs(reference: Trace, other: Trace) -> str:
    names = ("made_by", "family", "model", "fingerprint", "dtype", "seed", "forced", "threads", "versions")
    rows = "".join(
        f"<tr><td>{name.replace('_', ' ')}<td>{_text(_plain(reference, name))}"
        f"<td>{_text(_plain(other, name))}</tr>"
        for name in names
        if name in reference.metadata or name in other.metadata
    )
    text = reference.metadata.get("request", {}).get("text", "")
    said = f'<p class="soft">Text: {_text(text)}</p>' if text else ""
    return (
        f'<h2>The two runs</h2>{said}<div class="scroll"><table><thead><tr><th><th>reference<th>judged</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _plain(trace: Trace, name: str) -> str:
    value = trace.metadata.get(name, "")
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
