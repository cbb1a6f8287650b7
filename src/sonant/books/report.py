"""How a reading went, as plain data for JSON; estimates before it, and one gain for the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sonant.audio.loudness import gain_to, measure_loudness
from sonant.books.document import Book
from sonant.books.narration import Line, Reading
from sonant.readings.job import Job
from sonant.request.audio import Samples
from sonant.request.speech import ModelSpec

if TYPE_CHECKING:  # they load a model's libraries, which a report has no need of
    from sonant.books.binding import Mark
    from sonant.books.drift import Drift
    from sonant.books.dubbing import Fitted

LETTERS_A_SECOND, SIGNS_A_SECOND = 15.0, 4.5
"""Ordinary pace of reading aloud, of alphabets and of East Asian writing."""


def estimate_seconds(lines: Sequence[Line]) -> float:
    """About how long the lines take to say, pauses included."""
    total = 0.0
    for line in lines:
        east = sum("\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7a3" for letter in line.text)
        total += east / SIGNS_A_SECOND + (len(line.text) - east) / LETTERS_A_SECOND + line.pause_after
    return total


def level_gain(pieces: Iterable[Samples], sample_rate: int, loudness: float | None) -> float:
    """One factor that brings a recording to a loudness in LUFS, or as near as its peak allows; 1 without one.

    The loudness of the whole is that of its pieces, by energy and length; silence between does not count.
    """
    if loudness is None:
        return 1.0
    energy = seconds = peak = 0.0
    for samples in pieces:
        found = measure_loudness(samples, sample_rate)
        if np.isfinite(found):
            energy += len(samples) / sample_rate * 10 ** (found / 10)
            seconds += len(samples) / sample_rate
            peak = max(peak, float(np.abs(samples).max()))
    if not seconds:
        return 1.0
    return gain_to(loudness, 10 * float(np.log10(energy / seconds)), peak)


def book_report(
    book: Book, job: Job, specs: Sequence[ModelSpec], reading: Reading, marks: Sequence[Mark],
    titles: Sequence[str], written: Sequence[Path], drift: Drift | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Chapters with their times, every line with its own, what was left out and why."""
    return {
        "title": book.title,
        "author": book.author,
        "files": [path.name for path in written],
        "left_out": list(book.left_out),
        "chapters": [asdict(mark) for mark in marks],
        **_common(job, specs, reading),
        "roles": _roles(reading),
        "drift": drift.as_dict() if drift is not None else None,
        "lines": [
            {
                "chapter": titles[one.line.chapter],
                "paragraph": one.line.paragraph,
                "start": round(one.start, 3),
                "end": round(one.end, 3),
                "role": one.line.role,
                "manner": one.line.manner,
                "text": one.line.text,
            }
            for one in reading.heard
        ],
    }


def dub_report(
    job: Job, spec: ModelSpec, reading: Reading, fitted: Sequence[Fitted], written: Sequence[Path]
) -> dict[str, Any]:
    """Each line with its slot, its pace, and by how much it was too long."""
    return {
        "files": [path.name for path in written],
        **_common(job, [spec], reading),
        "lines": [
            {
                "start": one.cue.start,
                "end": one.cue.end,
                "text": one.cue.text,
                "speed": one.speed,
                "over": round(one.over, 3),
            }
            for one in fitted
        ],
    }


def _roles(reading: Reading) -> list[dict[str, Any]]:
    """Who spoke, how many lines and for how long."""
    lines: Counter[str] = Counter(one.line.role for one in reading.heard)
    seconds: Counter[str] = Counter()
    for one in reading.heard:
        seconds[one.line.role] += one.end - one.start  # type: ignore[assignment]
    return [{"name": n, "lines": count, "seconds": round(seconds[n], 3)} for n, count in lines.most_common()]


def _common(job: Job, specs: Sequence[ModelSpec], reading: Reading) -> dict[str, Any]:
    models = [{"name": s.name, "family": s.family, "fingerprint": s.fingerprint} for s in specs]
    return {
        "model": models[0],
        "models": models,
        "seed": job.get("seed"),
        "seconds": round(reading.seconds, 3),
        "kept_lines": reading.kept,
        "failures": [{"text": f.line.text, "reason": f.reason} for f in reading.failures],
        "guards": [{"text": line.text, "kind": kind, "message": text} for line, kind, text in reading.guards],
    }
