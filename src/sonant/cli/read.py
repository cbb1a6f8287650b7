"""sonant read: a book in, an audiobook out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.completions import model_names
from sonant.cli.flags import job_settings, with_settings

if TYPE_CHECKING:
    from sonant.books.document import Book, Chapter
    from sonant.books.narration import Line
    from sonant.readings.job import Job

Output = partial(typer.Option, rich_help_panel="Output")
Machine = partial(typer.Option, rich_help_panel="Model and machine")


@with_settings
def read(
    book: Annotated[Path, typer.Argument(help="txt, md, html, epub, docx or pdf; srt or vtt is dubbed.")],
    output: Annotated[
        Path | None,
        Output(
            "--output",
            "-o",
            help="m4b, m4a, mp3, opus, flac or wav; a name without an ending is a folder of chapters.",
        ),
    ] = None,
    chapters: Annotated[
        str | None, Output(help="Which chapters, as --list numbers them: 1,3-5.", metavar="LIST")
    ] = None,
    paragraphs: Annotated[
        str | None, Output(help="Which paragraphs of them, counted from 1: 1-10.", metavar="RANGE")
    ] = None,
    everything: Annotated[
        bool, Output("--everything", help="Also copyright pages, contents, index and other matter around it.")
    ] = False,
    show: Annotated[bool, Output("--list", help="Print the chapters and stop.")] = False,
    dry_run: Annotated[
        bool, Output("--dry-run", help="Print what would be read and how long it gets, and stop.")
    ] = False,
    subtitles: Annotated[Path | None, Output(help="Write subtitles too: NAME.srt or NAME.vtt.")] = None,
    report: Annotated[
        Path | None, Output(help="Write a JSON report of chapters, times and warnings.")
    ] = None,
    model: Annotated[
        str, Machine(help="Checkpoint folder or known name (sonant models).", autocompletion=model_names)
    ] = DEFAULT_MODEL,
    device: Annotated[str, Machine(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    dtype: Annotated[str, Machine(help="auto, float32, bfloat16, float16, float64.")] = "auto",
    precision: Annotated[
        str, Machine(help="Weights on a CPU: auto, full, lossless, int8, mixed, int4.")
    ] = "auto",
    **given: Any,
) -> None:
    """Read a book aloud: chapters, cover, subtitles; go on where it was stopped by running it again."""
    from sonant.errors import DependencyError
    from sonant.readings.job import Job

    try:
        from sonant.books import formats  # noqa: F401
    except ImportError as error:
        raise DependencyError(f'books need {error.name}. Install it: pip install "sonant[books]"') from error
    if given["seed"] is None:
        given["seed"] = 0
    loudness = given.pop("loudness", None)  # of the whole book, once it is there
    job = Job(
        text="", model=model, device=device, dtype=dtype, precision=precision, in_pieces=True,
        **job_settings(given),
    )  # fmt: skip
    if subtitles is not None:
        from sonant.books.subtitles import check_subtitles

        check_subtitles(subtitles)
    if book.suffix.lower() in (".srt", ".vtt"):
        _dub(book, output or book.with_suffix(".wav"), job, subtitles=subtitles, report=report)
        return
    _read(
        book, output, job, chosen=chapters, paragraphs=paragraphs, everything=everything, show=show,
        dry_run=dry_run, subtitles=subtitles, report=report, loudness=loudness,
    )  # fmt: skip


def _read(
    path: Path, output: Path | None, job: Job, *, chosen: str | None, paragraphs: str | None,
    everything: bool, show: bool, dry_run: bool, subtitles: Path | None, report: Path | None,
    loudness: float | None,
) -> None:  # fmt: skip
    from sonant.books.binding import bind, bind_folder, chapter_marks, check_binding, sound_of
    from sonant.books.formats import read_book
    from sonant.books.narration import lines_of, narrate
    from sonant.books.report import book_report, level_gain
    from sonant.books.subtitles import cues_of, write_subtitles

    whole = read_book(path)
    numbered = list(enumerate(whole.chapters, 1))
    picked = _picked(numbered, chosen, everything=everything)
    lines = lines_of([c for _, c in picked], paragraphs=_range(paragraphs, "--paragraphs"))
    if show or dry_run:
        _print_plan(whole, picked, lines, everything=everything or chosen is not None)
        return
    target = output or path.with_suffix(".m4b")
    check_binding(target)
    if not lines:
        _refuse(f"nothing is left to read of {path.name} with this choice of chapters and paragraphs")
    titles = [chapter.title for _, chapter in picked]
    with _engine(job, target) as (store, spec, _can), _progress(lines) as on_line:
        job_rate = spec.sample_rate
        with _going_on(target):
            reading = narrate(lines, store, job_rate, on_line=on_line)

        def samples_of(line: Line) -> Any:
            return store.tell(line.text).samples

        gain = level_gain((samples_of(one.line) for one in reading.heard), job_rate, loudness)
        marks = chapter_marks(titles, reading.heard, reading.seconds)
        if target.suffix:
            pieces = sound_of(reading.heard, samples_of, job_rate, gain=gain, until=reading.seconds)
            written = bind(target, pieces, job_rate, marks, whole)
        else:
            written = bind_folder(target, reading.heard, samples_of, job_rate, titles, whole, gain=gain)
    if subtitles is not None:
        write_subtitles(subtitles, cues_of(reading.heard))
    if report is not None:
        data = book_report(whole, job, spec, reading, marks, titles, written)
        report.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    _tell(whole, reading, written)


def _dub(path: Path, target: Path, job: Job, *, subtitles: Path | None, report: Path | None) -> None:
    from sonant.books.binding import bind, check_binding, sound_of
    from sonant.books.document import Book
    from sonant.books.dubbing import dub
    from sonant.books.report import dub_report
    from sonant.books.subtitles import cues_of, read_subtitles, write_subtitles
    from sonant.cli.speaking import warn

    cues = read_subtitles(path)
    check_binding(target)
    with _engine(job, target) as (store, spec, can_hurry), _progress([cue.text for cue in cues]) as on_line:
        with _going_on(target):
            reading, fitted, speeds = dub(cues, store, spec.sample_rate, can_hurry=can_hurry, on_line=on_line)
        ends = {one.line: one for one in reading.heard}

        def samples_of(line: Line) -> Any:
            samples = store.tell(line.text, speed=speeds[line]).samples
            return samples[: round((ends[line].end - ends[line].start) * spec.sample_rate)]

        pieces = sound_of(reading.heard, samples_of, spec.sample_rate, until=reading.seconds)
        written = bind(target, pieces, spec.sample_rate, (), Book(title=path.stem, chapters=()))
    if subtitles is not None:
        write_subtitles(subtitles, cues_of(reading.heard))
    if report is not None:
        data = dub_report(job, spec, reading, fitted, written)
        report.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    for one in fitted:
        if one.over > 0.01:
            warn(f"the line at {one.cue.start:.2f} s is {one.over:.2f} s too long for its slot and was cut")
    _tell(None, reading, written)


def _picked(
    numbered: Sequence[tuple[int, Chapter]], chosen: str | None, *, everything: bool
) -> list[tuple[int, Chapter]]:
    if chosen is None:
        return [(n, c) for n, c in numbered if everything or c.part == "body"] or list(numbered)
    wanted: set[int] = set()
    for part in chosen.split(","):
        numbers = _range(part, "--chapters") or range(0)
        last = numbers.start if part.strip().endswith("-") else numbers.stop - 1
        if last > len(numbered):
            _refuse(f"there is no chapter {last}; the book has {len(numbered)} (sonant read BOOK --list)")
        wanted |= set(numbers)
    return [(n, c) for n, c in numbered if n in wanted]


def _range(text: str | None, flag: str) -> range | None:
    if text is None:
        return None
    first, dash, last = text.strip().partition("-")
    try:
        start = int(first)
        stop = (int(last) if last.strip() else 10**9) if dash else start
    except ValueError:
        start = stop = 0
    if start < 1 or stop < start:
        _refuse(f"{flag} {text!r} is no range; expected numbers from 1 such as 3 or 2-5")
    return range(start, stop + 1) if stop < 10**9 else range(start, 10**6)


def _refuse(message: str) -> None:
    from sonant.errors import RequestError

    raise RequestError(f"{message}.")


def _print_plan(
    book: Book, picked: Sequence[tuple[int, Chapter]], lines: Sequence[Line], *, everything: bool
) -> None:
    from sonant.books.report import estimate_seconds

    typer.echo(f"{book.title}" + (f", by {book.author}" if book.author else ""))
    taken = {number for number, _ in picked}
    mine = {number: index for index, (number, _) in enumerate(picked)}
    for number, chapter in enumerate(book.chapters, 1):
        said = [line for line in lines if number in mine and line.chapter == mine[number]]
        seconds = estimate_seconds(said)
        note = (
            ""
            if number in taken
            else f"   ({chapter.part} matter, left out)"
            if not everything
            else "   (left out)"
        )
        typer.echo(f"{number:4d}  {seconds / 60:6.1f} min  {chapter.title[:70]}{note}")
    total = estimate_seconds(lines)
    size = total * 96_000 / 8 / 1e6
    typer.echo(f"{len(lines)} lines, about {total / 3600:.1f} h of speech, {size:.0f} MB as m4b")
    for left in book.left_out:
        typer.echo(f"left out: {left}")


@contextmanager
def _engine(job: Job, target: Path) -> Iterator[tuple[Any, Any, bool]]:
    """The store that speaks, the model's spec, and whether it can be hurried."""
    from sonant.cli.speaking import job_voice, load_engine
    from sonant.readings.pieces import PieceStore

    engine = load_engine(job.model, device=job.device, dtype=job.dtype, precision=job.precision)
    with engine:
        voice = job_voice(job, engine)
        folder = target.with_name(f"{target.name}.pieces")
        yield PieceStore(engine, job, voice, folder), engine.spec, "speed" in engine.spec.capabilities


@contextmanager
def _going_on(target: Path) -> Iterator[None]:
    """A Ctrl-C says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"stopped; what was spoken is kept in {target.name}.pieces. Run the same command again to go on.",
            err=True,
        )
        raise typer.Exit(130) from None


@contextmanager
def _progress(lines: Sequence[Any]) -> Iterator[Callable[[Any, bool], None]]:
    """A bar with the time left on a terminal; a line for every tenth in a pipe."""
    sizes = [len(line if isinstance(line, str) else line.text) for line in lines]
    total = sum(sizes)
    if not sys.stderr.isatty():
        done, tenth = 0, 0

        def count(line: Any, kept: bool) -> None:
            nonlocal done, tenth
            done += len(line.text)
            if total and done * 10 // total > tenth:
                tenth = done * 10 // total
                typer.echo(f"{tenth * 10} %", err=True)

        yield count
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("reading"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)
        yield lambda line, kept: bar.advance(task, len(line.text))


def _tell(book: Book | None, reading: Any, written: Sequence[Path]) -> None:
    from sonant.cli.speaking import warn

    for failure in reading.failures[:10]:
        warn(f"left out: {failure.line.text[:60]!r} ({failure.reason})")
    if len(reading.failures) > 10:
        warn(f"and {len(reading.failures) - 10} more lines were left out; see --report")
    for line, _, message in reading.guards[:10]:
        warn(f"{line.text[:40]!r}: {message}")
    if len(reading.guards) > 10:
        warn(f"and {len(reading.guards) - 10} more remarks; see --report")
    if sys.stdout.isatty():
        hours, rest = divmod(round(reading.seconds), 3600)
        kept = f", {reading.kept} lines kept from before" if reading.kept else ""
        place = written[0] if len(written) == 1 else f"{written[0].parent} ({len(written)} files)"
        typer.echo(f"{place}  {hours}:{rest // 60:02d}:{rest % 60:02d}{kept}")
    else:
        for path in written:
            typer.echo(str(path))
