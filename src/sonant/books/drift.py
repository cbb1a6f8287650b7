"""Does a voice stay itself over hours? The first third of a reading against the last, as numbers and a plot.

For each role with enough lines: articulation rate, pitch, loudness, and likeness to its own beginning where a
speaker encoder is installed (resemblyzer). Lines are taken evenly; the interval is that of the difference of
the two means (95 %, Welch), so a small change of few lines is not called a drift.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sonant.audio.measure import measure
from sonant.books.narration import Heard
from sonant.request.audio import Audio, Samples

LEAST_SECONDS = 1.2
"""Shorter lines have no pace or pitch worth a number."""
LEAST_LINES = 8
"""Of each third; with fewer nothing is said of a role."""
MOST_LINES = 40
"""Of each third that are measured: the interval is then narrow enough, and a long book takes seconds."""
NORMAL = 1.96


@dataclass(frozen=True)
class Trait:
    """What is watched of a voice."""

    name: str
    unit: str
    limit: float
    """The change that a listener may notice; smaller ones are no drift, however certain."""


TRAITS = (
    Trait("articulation_rate", "letters a second of speech", 0.05),  # of itself: 5 %
    Trait("pitch", "semitones from the first third", 1.0),
    Trait("loudness", "LUFS", 2.0),
    Trait("likeness", "cosine to the voice's beginning", 0.05),
)


@dataclass(frozen=True)
class Change:
    """One trait of one role."""

    role: str
    trait: str
    unit: str
    first: float
    last: float
    change: float
    """last - first; of the rate as a share of the first."""
    interval: tuple[float, float]
    """In which the change lies, 95 %."""
    drifts: bool


@dataclass(frozen=True)
class _Measured:
    place: float
    """Where in the reading, 0 to 1."""
    third: int
    values: dict[str, float]


@dataclass(frozen=True)
class Drift:
    """Of a whole reading."""

    changes: tuple[Change, ...]
    points: tuple[tuple[str, float, dict[str, float]], ...]
    """Role, place and traits of every line that was measured."""
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return {
            "changes": [asdict(change) for change in self.changes],
            "drifts": [f"{c.role}: {c.trait}" for c in self.changes if c.drifts],
            "remarks": list(self.remarks),
            "measured_lines": len(self.points),
        }


def drift_of(heard: Sequence[Heard], samples_of: Callable[[Any], Samples], sample_rate: int) -> Drift:
    """How each role changes from the first third of its lines to the last."""
    encode = _encoder()
    changes: list[Change] = []
    points: list[tuple[str, float, dict[str, float]]] = []
    remarks = [] if encode is not None else ["likeness needs a speaker encoder: pip install resemblyzer"]
    whole = heard[-1].end if heard else 0.0
    for role in dict.fromkeys(one.line.role for one in heard):
        mine = [h for h in heard if h.line.role == role and h.end - h.start >= LEAST_SECONDS]
        if len(mine) < 3 * LEAST_LINES:
            remarks.append(f"{role} has {len(mine)} lines long enough; {3 * LEAST_LINES} are needed")
            continue
        cut = len(mine) // 3
        thirds = (mine[:cut], mine[cut : len(mine) - cut], mine[len(mine) - cut :])
        measured: list[_Measured] = []
        vectors: list[npt.NDArray[np.float32] | None] = []
        for number, third in enumerate(thirds):
            for one in _evenly(third, MOST_LINES):
                samples = samples_of(one.line)
                values = _traits(one.line.text, samples, sample_rate)
                if values is None:
                    continue
                measured.append(_Measured(one.start / whole, number, values))
                vectors.append(encode(Audio(samples, sample_rate)) if encode is not None else None)
        _from_the_first_third(measured, "pitch")
        _add_likeness(measured, vectors)
        changes += _changes(role, measured)
        points += [(role, one.place, one.values) for one in measured]
    return Drift(tuple(changes), tuple(points), tuple(remarks))


def _evenly(lines: Sequence[Heard], most: int) -> list[Heard]:
    if len(lines) <= most:
        return list(lines)
    return [lines[round(n * (len(lines) - 1) / (most - 1))] for n in range(most)]


def _traits(text: str, samples: Samples, sample_rate: int) -> dict[str, float] | None:
    """The traits of one line; None of one in which no voice is found."""
    found = measure(samples, sample_rate)
    spoken = found.seconds * (1 - found.silence_share)
    letters = sum(map(str.isalnum, text))
    if found.pitch is None or not np.isfinite(found.loudness) or spoken <= 0 or not letters:
        return None
    return {
        "articulation_rate": letters / spoken,
        "pitch": 12 * float(np.log2(found.pitch)),
        "loudness": found.loudness,
    }


def _encoder() -> Callable[[Audio], npt.NDArray[np.float32] | None] | None:
    from sonant.voices.speakers import load_encoder, voice_vector

    encoder = load_encoder()
    return None if encoder is None else lambda audio: voice_vector(audio, encoder)


def _from_the_first_third(measured: Sequence[_Measured], trait: str) -> None:
    """Make a trait relative to its mean over the first third."""
    first = [one.values[trait] for one in measured if one.third == 0]
    for one in measured:
        one.values[trait] -= float(np.mean(first)) if first else 0.0


def _add_likeness(measured: Sequence[_Measured], vectors: Sequence[npt.NDArray[np.float32] | None]) -> None:
    """The cosine of each line to the mean of every other line of the first third; the line itself not among
    those it is held against."""
    first = [n for n, one in enumerate(measured) if one.third == 0 and vectors[n] is not None]
    reference = first[::2]
    known = [vector for n in reference if (vector := vectors[n]) is not None]
    if not known:
        return
    mean = np.mean(known, axis=0)
    mean /= np.linalg.norm(mean)
    for n, (one, vector) in enumerate(zip(measured, vectors, strict=True)):
        if vector is not None and n not in reference:
            one.values["likeness"] = float(vector @ mean)


def _changes(role: str, measured: Sequence[_Measured]) -> list[Change]:
    changes = []
    for trait in TRAITS:
        first, last = (
            np.array(
                [one.values[trait.name] for one in measured if one.third == n and trait.name in one.values]
            )
            for n in (0, 2)
        )
        if min(len(first), len(last)) < 3:
            continue
        scale = float(first.mean()) if trait.name == "articulation_rate" else 1.0
        change = float(last.mean() - first.mean()) / scale
        spread = (
            NORMAL * float(np.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last))) / scale
        )
        is_certain = abs(change) > spread
        changes.append(
            Change(
                role=role,
                trait=trait.name,
                unit=trait.unit,
                first=round(float(first.mean()), 4),
                last=round(float(last.mean()), 4),
                change=round(change, 4),
                interval=(round(change - spread, 4), round(change + spread, 4)),
                drifts=is_certain and abs(change) > trait.limit,
            )
        )
    return changes


WIDTH, HEIGHT, MARGIN = 720, 150, 44
_COLOURS = ("#0969a2", "#b3541e", "#3c7d3c", "#8a3ea8", "#a8283e", "#666666")


def plot(drift: Drift, title: str) -> str:
    """An SVG picture: each trait over the length of the reading, a dot for each line, bars for thirds."""
    roles = list(dict.fromkeys(role for role, _, _ in drift.points))
    colours = {role: _COLOURS[n % len(_COLOURS)] for n, role in enumerate(roles)}
    rows, top = [], 40
    for trait in TRAITS:
        points = [(role, place, v[trait.name]) for role, place, v in drift.points if trait.name in v]
        if points:
            rows.append(_row(trait, points, colours, top))
            top += HEIGHT + 24
    names = "  ".join(f'<tspan fill="{colours[role]}">● {html.escape(role)}</tspan>' for role in roles)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{MARGIN}" y="18" font-size="14">{html.escape(title)}</text>'
        f'<text x="{MARGIN}" y="34">{names}</text>{"".join(rows)}</svg>\n'
    )


def _row(trait: Trait, points: Sequence[tuple[str, float, float]], colours: dict[str, str], top: int) -> str:
    values = [value for _, _, value in points]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def x(place: float) -> float:
        return MARGIN + place * (WIDTH - 2 * MARGIN)

    def y(value: float) -> float:
        return top + 18 + (HEIGHT - 18) * (1 - (value - low) / span)

    parts = [
        f'<text x="{MARGIN}" y="{top + 10}">{trait.name.replace("_", " ")} ({trait.unit})</text>',
        f'<rect x="{MARGIN}" y="{top + 18}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 18}" fill="none" '
        'stroke="#ccc"/>',
    ]
    parts += [
        f'<text x="{MARGIN - 4}" y="{y(value) + 4:.0f}" text-anchor="end" fill="#555">{value:.3g}</text>'
        for value in (low, high)
    ]
    for role, colour in colours.items():
        mine = [(place, value) for who, place, value in points if who == role]
        parts += [
            f'<circle cx="{x(p):.1f}" cy="{y(v):.1f}" r="2" fill="{colour}" fill-opacity="0.4"/>'
            for p, v in mine
        ]
        for third in np.array_split(np.array(mine), 3) if len(mine) >= 3 else ():
            (begin, _), (end, _) = third[0], third[-1]
            level = y(float(third[:, 1].mean()))
            parts.append(
                f'<line x1="{x(begin):.1f}" x2="{x(end):.1f}" y1="{level:.1f}" y2="{level:.1f}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
    return "".join(parts)
