"""A spoken book -> one audiobook file with chapters and cover, or a folder of chapters. Memory stays flat.

Chapters are QuickTime's in m4b and m4a, ID3v2's in mp3, Vorbis comments in opus, all by FFmpeg,
which gives flac none; wav has no place for them.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from sonant.audio.encode import AudioWriter, find_format, format_of_path
from sonant.audio.loudness import unclipped
from sonant.books.document import Book
from sonant.books.narration import Heard, Line
from sonant.errors import RequestError
from sonant.files import FULL, written_beside
from sonant.request.audio import Samples

COVERED = {".m4b", ".m4a", ".mp3"}
"""Endings whose files can carry a picture."""
QUICK = {"aac_coder": "fast"}
"""FFmpeg's other search for AAC takes six times as long (three hours of speech: five minutes), no nearer:
at 96 kbit/s of a voice 23.0 dB above its error against 24.8, 2.2 dB of spectral distance against 2.4."""
BLOCK = 1 << 16
"""Samples of silence written at a time."""


SamplesOf = Callable[[Line], Samples]


@dataclass(frozen=True)
class Mark:
    """Where a chapter begins and ends, in seconds."""

    title: str
    start: float
    end: float


@dataclass(frozen=True)
class _Container:
    format: str
    codec: str
    rates: tuple[int, ...]
    bit_rate: int
    sample_format: str


def _container(path: Path) -> _Container | None:
    """How FFmpeg writes a file of this ending; None for wav, which has no chapters."""
    ending = path.suffix.lower()
    form = find_format("m4a") if ending == ".m4b" else format_of_path(path)
    if form.name in ("wav", "pcm"):
        return None
    if form.name == "aac":
        raise RequestError(f"{path} would have no chapters, as raw AAC has none; expected .m4b. Name it so.")
    kind = {"flac": "s16", "opus": "flt"}.get(form.name, "fltp")
    return _Container(form.container, form.codec, form.rates, form.bit_rate, kind)


def check_binding(path: Path) -> None:
    """Raise RequestError for a file name that no audiobook can be written to."""
    if path.suffix == "" or path.is_dir():
        return
    _container(path)
    check_place(path)


def check_place(path: Path) -> None:
    """Raise RequestError where a file cannot be written, before hours go into what it should hold."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder} for {path.name}. Make it first.")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise RequestError(f"{path} cannot be written; expected a place for a file. Choose another.")


def chapter_marks(titles: Sequence[str], heard: Sequence[Heard], seconds: float) -> list[Mark]:
    """When each chapter that was heard begins; it ends where the next begins."""
    starts: dict[int, float] = {}
    for one in heard:
        starts.setdefault(one.line.chapter, one.start)
    order = sorted(starts.items(), key=lambda item: item[1])
    ends = [start for _, start in order[1:]] + [seconds]
    return [Mark(titles[index], start, end) for (index, start), end in zip(order, ends, strict=True)]


def sound_of(
    heard: Sequence[Heard],
    samples_of: SamplesOf,
    sample_rate: int,
    *,
    gain: float = 1.0,
    until: float | None = None,
) -> Iterator[Samples]:
    """The samples of lines with the silence between them, in order; `samples_of(line)` gives a line's."""
    position = 0

    def silence(to: float) -> Iterator[Samples]:
        nonlocal position
        missing = round(to * sample_rate) - position
        while missing > 0:
            part = np.zeros(min(missing, BLOCK), np.float32)
            position += len(part)
            missing -= len(part)
            yield part

    for one in heard:
        yield from silence(one.start)
        samples = samples_of(one.line)
        if gain != 1.0 or np.abs(samples).max(initial=0.0) > 1.0:  # a role's own gain may go beyond
            samples = unclipped(samples * np.float32(gain))
        position += len(samples)
        if len(samples):  # FFmpeg makes no empty frame
            yield samples
    if until is not None:
        yield from silence(until)


def bind(
    path: Path, pieces: Iterator[Samples], sample_rate: int, marks: Sequence[Mark], book: Book
) -> list[Path]:
    """Write the book into one file, whole or not at all. Returns its path in a list."""
    container = _container(path)
    try:
        with written_beside(path) as part:
            if container is None:
                with AudioWriter(part, sample_rate, format=format_of_path(path).name) as writer:
                    for samples in pieces:
                        writer.write(samples)
            else:
                has_cover = path.suffix.lower() in COVERED
                _encode(part, container, pieces, sample_rate, marks, book, has_cover=has_cover)
    except av.FFmpegError as error:
        if error.errno in FULL:  # as Python itself says it
            raise OSError(error.errno, os.strerror(error.errno)) from error
        raise
    return [path]


def _encode(
    part: Path,
    container: _Container,
    pieces: Iterator[Samples],
    sample_rate: int,
    marks: Sequence[Mark],
    book: Book,
    *,
    has_cover: bool,
) -> None:
    rate = next((r for r in container.rates if r >= sample_rate), sample_rate)
    options = {"fflags": "+bitexact"}
    if container.format == "mp4":  # "ipod" is the same without PNG covers
        options |= {"movflags": "+faststart", "brand": "M4B "}
    with av.open(str(part), "w", format=container.format, options=options) as file:
        file.metadata.update(_facts(book))
        coder = QUICK if container.codec == "aac" else {}
        stream: Any = file.add_stream(container.codec, rate=rate, layout="mono", options=coder)
        stream.codec_context.format = container.sample_format
        stream.codec_context.thread_count = 1
        if container.bit_rate:
            stream.codec_context.bit_rate = min(container.bit_rate, 5 * rate)
        picture = _picture(file, book.cover) if has_cover else None
        file.set_chapters(
            [
                {
                    "id": number,
                    "start": _milliseconds(mark.start, container.format),
                    "end": round(mark.end * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": mark.title},
                }
                for number, mark in enumerate(marks, 1)
            ]
        )
        if picture is not None:
            file.mux(picture)
        resampler = av.AudioResampler(format=container.sample_format, layout="mono", rate=rate)
        position = 0
        for samples in pieces:
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = sample_rate
            frame.pts = position
            frame.time_base = Fraction(1, sample_rate)
            position += len(samples)
            for ready in resampler.resample(frame):
                file.mux(stream.encode(ready))
        for ready in resampler.resample(None):
            file.mux(stream.encode(ready))
        file.mux(stream.encode(None))


def _milliseconds(seconds: float, format: str) -> int:
    """A chapter's start. In Vorbis comments FFmpeg rounds the seconds up from a half on while it keeps the
    thousandths, so such a chapter begins up to half a second earlier, in the silence before it."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return whole * 1000 + (min(rest, 499) if format == "ogg" else rest)


def _facts(book: Book) -> dict[str, str]:
    facts = {"title": book.title, "album": book.title, "artist": book.author, "genre": "Audiobook"}
    return {name: value for name, value in facts.items() if value}


def _picture(file: Any, cover: bytes | None) -> Any:
    """The cover's packet, its stream added to the file; None without a cover that can be read."""
    if cover is None:
        return None
    try:
        with av.open(io.BytesIO(cover), "r") as source:
            video = source.streams.video[0]
            packet = next(packet for packet in source.demux(video) if packet.size)
            stream = file.add_stream_from_template(video)
    except (av.FFmpegError, IndexError, StopIteration, ValueError):
        return None
    stream.disposition = Disposition.attached_pic
    packet.stream = stream
    packet.pts = packet.dts = 0
    return packet


def bind_folder(
    folder: Path,
    heard: Sequence[Heard],
    samples_of: SamplesOf,
    sample_rate: int,
    titles: Sequence[str],
    book: Book,
    *,
    ending: str = ".mp3",
    gain: float = 1.0,
) -> list[Path]:
    """Write each chapter to a file of its own, named by number and title. Returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, index in enumerate(dict.fromkeys(one.line.chapter for one in heard), 1):
        mine = [one for one in heard if one.line.chapter == index]
        offset = mine[0].start
        moved = [Heard(one.line, one.start - offset, one.end - offset) for one in mine]
        path = folder / f"{number:02d} {_file_name(titles[index])}{ending}"
        chapter = Book(title=titles[index], author=book.author, chapters=(), cover=book.cover)
        pieces = sound_of(moved, samples_of, sample_rate, gain=gain)
        written += bind(path, pieces, sample_rate, (), chapter)
    return written


def _file_name(title: str) -> str:
    """A title that every system takes as the name of a file."""
    return re.sub(r"[^\w .,'()-]+", "_", title).strip(" ._")[:80] or "chapter"
