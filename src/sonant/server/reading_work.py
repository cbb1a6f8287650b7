"""A reading as its thread does it: everything said, bound, and described; progress told as it goes."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from sonant.books.binding import bind, chapter_marks, sound_of
from sonant.books.document import Book
from sonant.books.drift import drift_of
from sonant.books.dubbing import dub, dubbed
from sonant.books.narration import Line
from sonant.books.narration import Reading as Heard
from sonant.books.report import book_report, dub_report, estimate_seconds, level_gain
from sonant.books.stage import Stage
from sonant.books.subtitles import cues_of, read_subtitles, write_subtitles
from sonant.files import sweep_parts, write_atomically
from sonant.server.bookshelf import Reading, read_json

TOLD_FAILURES = 20


@dataclass
class Running:
    """A reading under way."""

    stage: Stage
    task: asyncio.Task[None] | None = None
    left: float = 0.0
    """Estimated seconds of speech that are still to be said."""
    spoken: float = 0.0
    """Estimated seconds of speech that were said in this run, and not found kept."""
    began: float | None = None
    line: str | None = None
    ends: str | None = None
    """Why it is being stopped."""


def speak_book(
    reading: Reading, running: Running, folder: Path, lines: list[Line], titles: list[str], book: Book
) -> None:
    """Say everything, bind it into the reading's folder, and write what belongs to it."""
    sweep_parts(folder)
    stage = running.stage
    running.began = time.monotonic()

    def on_line(line: Line, kept: bool) -> None:
        _count(reading, running, line, kept)

    heard = stage.speak(lines, on_line=on_line)
    _tell(reading, heard)
    loudness = stage.base.loudness
    gain = level_gain((stage.samples_of(one.line) for one in heard.heard), stage.sample_rate, loudness)
    marks = chapter_marks(titles, heard.heard, heard.seconds)
    pieces = sound_of(heard.heard, stage.samples_of, stage.sample_rate, gain=gain, until=heard.seconds)
    written = bind(folder / f"book.{reading.format}", pieces, stage.sample_rate, marks, book)
    write_subtitles(folder / "book.srt", cues_of(heard.heard))
    drift = drift_of(heard.heard, stage.samples_of, stage.sample_rate)
    report = book_report(book, stage.base, list(stage.specs.values()), heard, marks, titles, written, drift)
    write_atomically(folder / "report.json", json.dumps(report).encode())


def dub_book(reading: Reading, running: Running, folder: Path, book: Path) -> None:
    """The same for subtitles that lie in the folder `book`, each line in its slot."""
    sweep_parts(folder)
    about = read_json(book / "about.json") or {}
    cues = read_subtitles(book / about["name"])
    stage = running.stage
    running.left = sum(estimate_seconds([Line(0, 1, cue.text, 0.0)]) for cue in cues)
    running.began = time.monotonic()

    def on_line(line: Line, kept: bool) -> None:
        _count(reading, running, line, kept)

    with stage.store([cue.text for cue in cues]) as (store, spec):
        rate = spec.sample_rate
        can_hurry = "speed" in spec.capabilities
        heard, fitted, speeds = dub(cues, store, rate, can_hurry=can_hurry, on_line=on_line)
        _tell(reading, heard)
        samples_of = dubbed(heard, speeds, store, rate)
        gain = level_gain((samples_of(one.line) for one in heard.heard), rate, stage.base.loudness)
        pieces = sound_of(heard.heard, samples_of, rate, gain=gain, until=heard.seconds)
        whole = Book(title=about["title"], chapters=())
        written = bind(folder / f"book.{reading.format}", pieces, rate, (), whole)
    write_subtitles(folder / "book.srt", cues_of(heard.heard))
    report = dub_report(stage.base, spec, heard, fitted, written)
    write_atomically(folder / "report.json", json.dumps(report).encode())


def _count(reading: Reading, running: Running, line: Line, kept: bool) -> None:
    """A line is done."""
    seconds = estimate_seconds([line])
    if running.began is None:
        running.began = time.monotonic()
    reading.done += 1
    reading.seconds += seconds
    running.left -= seconds
    running.spoken += 0.0 if kept else seconds
    running.line = line.text


def _tell(reading: Reading, heard: Heard) -> None:
    """What became of the lines."""
    reading.seconds = heard.seconds
    reading.failed, reading.guards = len(heard.failures), len(heard.guards)
    reading.failures = [
        {"text": failure.line.text[:200], "reason": failure.reason}
        for failure in heard.failures[:TOLD_FAILURES]
    ]
