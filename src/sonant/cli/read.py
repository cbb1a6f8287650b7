"""sonant read: a book in, an audiobook out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.flags import job_settings, with_settings

if TYPE_CHECKING:
    from sonant.books.cast import Cast
    from sonant.books.document import Book, Chapter
    from sonant.books.narration import Line
    from sonant.books.stage import Stage
    from sonant.cli.speaking import Fitting
    from sonant.engine.engine import Engine
    from sonant.readings.job import Job
    from sonant.request.speech import ModelSpec

Output = partial(typer.Option, rich_help_panel="Output")


@with_settings
def read(
    *,
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
    cast: Annotated[
        Path | None,
        typer.Option(
            help="Who speaks: a TOML or YAML file of roles, voices and models; sonant cast BOOK writes one.",
            rich_help_panel="How it sounds",
        ),
    ] = None,
    carry: Annotated[
        bool,
        typer.Option(
            "--carry",
            help="Let a line go on from the one before in its paragraph, where the model can.",
            rich_help_panel="How it sounds",
        ),
    ] = False,
    drift: Annotated[
        Path | None,
        Output(help="Plot pace, pitch, loudness and likeness of each voice over the book: NAME.svg."),
    ] = None,
    model: str = DEFAULT_MODEL,
    device: str,
    dtype: str,
    precision: str,
    memory_limit: str | None,
    strict: bool,
    **given: Any,
) -> None:
    """Read a book aloud: chapters, cover, subtitles; go on where it was stopped by running it again."""
    from sonant.cli.speaking import Fitting
    from sonant.readings.job import Job

    _need_books()
    if given["seed"] is None:
        given["seed"] = 0
    job = Job(
        text="", model=model, device=device, dtype=dtype, precision=precision, in_pieces=True,
        **job_settings(given),
    )  # fmt: skip
    fitting = Fitting(memory_limit, strict=strict)
    from sonant.books.binding import check_place

    if subtitles is not None:
        from sonant.books.subtitles import check_subtitles

        check_subtitles(subtitles)
    for beside in (subtitles, report, drift):
        if beside is not None:
            check_place(beside)
    if book.suffix.lower() in (".srt", ".vtt"):
        for name, value in (
            ("--cast", cast), ("--carry", carry), ("--drift", drift), ("--chapters", chapters),
            ("--paragraphs", paragraphs), ("--everything", everything),
        ):  # fmt: skip
            if value:
                _refuse(
                    f"{name} was given with subtitles, which one voice dubs; it is for books. Leave it out"
                )
        if show or dry_run:
            _print_cues(book)
            return
        target = output or book.with_suffix(".wav")
        _dub(book, target, job, subtitles=subtitles, report=report, fitting=fitting)
        return
    _read(
        book, output, job, chosen=chapters, paragraphs=paragraphs, everything=everything, show=show,
        dry_run=dry_run, subtitles=subtitles, report=report, cast_file=cast, fitting=fitting,
        drift_file=drift, carries=carry,
    )  # fmt: skip


def cast(
    book: Annotated[Path, typer.Argument(help="A book or a script: txt, md, html, epub, docx or pdf.")],
    output: Annotated[
        Path | None, Output("--output", "-o", help="Write a cast file to begin with: NAME.toml.")
    ] = None,
    cast_file: Annotated[
        Path | None, typer.Option("--cast", help="Show who says what under this cast file.")
    ] = None,
    lines: Annotated[bool, Output("--lines", help="Print every line with who says it.")] = False,
    chapters: Annotated[
        str | None, Output(help="Which chapters, as sonant read --list numbers them.", metavar="LIST")
    ] = None,
) -> None:
    """List who speaks in a book or a script, and write a cast file to begin with."""
    _need_books()
    from sonant.books.cast import read_cast, starter_toml
    from sonant.books.choice import pick_chapters
    from sonant.books.formats import read_book
    from sonant.books.narration import lines_of
    from sonant.books.script import find_roles, roles_found

    if output is not None and output.suffix.lower() != ".toml":
        _refuse(f"{output.name} would hold TOML; expected a name that ends in .toml")
    if output is not None and output.exists():
        _refuse(f"{output} is there already, perhaps with your changes; expected a new name. Remove it first")
    picked = [chapter for _, chapter in pick_chapters(read_book(book).chapters, chapters)]
    found = read_cast(cast_file) if cast_file is not None else find_roles(picked)
    said = lines_of(picked, cast=found)
    roles = roles_found(((line.role, line.text) for line in said), found)
    if lines:
        for line in said:
            manner = f" ({line.manner})" if line.manner else ""
            typer.echo(f"{line.role}{manner}: {line.text}")
    else:
        for role in roles:
            named = f"{role.name} ({', '.join(role.aliases)})" if role.aliases else role.name
            typer.echo(f"{role.lines:6d} lines {role.characters:8,d} characters  {named}")
    if output is not None:
        from sonant.files import write_atomically

        write_atomically(output, starter_toml(roles).encode(), is_private=False)
        command = ["sonant", "read", str(book), "--cast", str(output)]
        typer.echo(f"{output}: give the roles voices, then: {shlex.join(command)}", err=True)


def _need_books() -> None:
    from sonant.errors import DependencyError

    try:
        from sonant.books import formats  # noqa: F401
    except ImportError as error:
        raise DependencyError(f'books need {error.name}. Install it: pip install "sonant[books]"') from error


def _read(
    path: Path, output: Path | None, job: Job, *, chosen: str | None, paragraphs: str | None,
    everything: bool, show: bool, dry_run: bool, subtitles: Path | None, report: Path | None,
    cast_file: Path | None, fitting: Fitting, drift_file: Path | None, carries: bool,
) -> None:  # fmt: skip
    from sonant.books.binding import bind, bind_folder, chapter_marks, check_binding, sound_of
    from sonant.books.cast import Cast, read_cast
    from sonant.books.choice import pick_chapters, range_of
    from sonant.books.formats import read_book
    from sonant.books.narration import lines_of
    from sonant.books.report import book_report, level_gain
    from sonant.books.subtitles import cues_of, write_subtitles

    cast = read_cast(cast_file) if cast_file is not None else None
    whole = read_book(path)
    picked = pick_chapters(whole.chapters, chosen, everything=everything)
    lines = lines_of([c for _, c in picked], paragraphs=range_of(paragraphs, "paragraphs"), cast=cast)
    if show or dry_run:
        _print_plan(whole, picked, lines, everything=everything or chosen is not None)
        return
    target = output or path.with_suffix(".m4b")
    check_binding(target)
    if drift_file is not None and drift_file.suffix.lower() != ".svg":
        _refuse(f"the plot {drift_file.name} would be a picture in SVG; expected a name that ends in .svg")
    if not lines:
        _refuse(f"nothing is left to read of {path.name} with this choice of chapters and paragraphs")
    titles = [chapter.title for _, chapter in picked]
    stage = _stage(job, cast or Cast(), target, fitting, carries=carries)
    with _going_on(target), _progress(lines) as on_line:
        _check(stage, lines)
        reading = stage.speak(lines, on_line=on_line)
        _tell_verdicts(stage)
        rate = stage.sample_rate
        gain = level_gain((stage.samples_of(one.line) for one in reading.heard), rate, job.loudness)
        marks = chapter_marks(titles, reading.heard, reading.seconds)
        if target.suffix:
            pieces = sound_of(reading.heard, stage.samples_of, rate, gain=gain, until=reading.seconds)
            written = bind(target, pieces, rate, marks, whole)
        else:
            written = bind_folder(target, reading.heard, stage.samples_of, rate, titles, whole, gain=gain)
        if subtitles is not None:
            write_subtitles(subtitles, cues_of(reading.heard))
        drift = None
        if report is not None or drift_file is not None:
            from sonant.books.drift import drift_of, plot

            drift = drift_of(reading.heard, stage.samples_of, stage.sample_rate)
            if drift_file is not None:
                _write(drift_file, plot(drift, whole.title))
        if report is not None:
            data = book_report(whole, job, list(stage.specs.values()), reading, marks, titles, written, drift)
            _write(report, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    _tell(whole, reading, written)


def _stage(job: Job, cast: Cast, target: Path, fitting: Fitting, *, carries: bool = False) -> Stage:
    """The stage of a reading on this machine: one model at a time, each below the memory limit."""
    from sonant.books.stage import Stage
    from sonant.cli.speaking import job_voice
    from sonant.readings.job import Job as AnyJob

    voices: dict[str, Any] = {}

    @contextmanager
    def open_engine(job: AnyJob) -> Iterator[Engine]:
        with fitting.engine(job) as engine:
            yield engine

    def voice_of(job: AnyJob, spec: ModelSpec) -> Any:
        key = json.dumps(job.to_data(), sort_keys=True)
        if key not in voices:  # a designed voice is made once
            voices[key] = job_voice(job, spec)
        return voices[key]

    folder = target.with_name(f"{target.name}.pieces")
    return Stage(
        job, cast, folder, open_engine=open_engine, voice_of=voice_of, fitted=fitting, carries=carries
    )


def _tell_verdicts(stage: Stage) -> None:
    """What --verify found and cost, over all voices."""
    from sonant.cli.speaking import tell_verdicts

    tell_verdicts(stage.verdicts, stage.timings)


def _check(stage: Stage, lines: Sequence[Line]) -> None:
    """Wrong voices and settings of a cast are told before any model is loaded."""
    from sonant.catalogue import registry

    if stage.cast.roles:
        specs = {name: registry.describe(name) for name in {stage.job(line.role).model for line in lines}}
        stage.check(lines, specs.get)


def _dub(
    path: Path,
    target: Path,
    job: Job,
    *,
    subtitles: Path | None,
    report: Path | None,
    fitting: Fitting,
) -> None:
    from sonant.books.binding import bind, check_binding, sound_of
    from sonant.books.cast import Cast
    from sonant.books.document import Book
    from sonant.books.dubbing import dub, dubbed
    from sonant.books.report import dub_report, level_gain
    from sonant.books.subtitles import cues_of, read_subtitles, write_subtitles
    from sonant.cli.speaking import warn

    cues = read_subtitles(path)
    check_binding(target)
    stage = _stage(job, Cast(), target, fitting)
    texts = [cue.text for cue in cues]
    with _going_on(target), stage.store(texts) as (store, spec), _progress(texts) as on_line:
        can_hurry = "speed" in spec.capabilities
        reading, fitted, speeds = dub(cues, store, spec.sample_rate, can_hurry=can_hurry, on_line=on_line)
        rate = spec.sample_rate
        samples_of = dubbed(reading, speeds, store, rate)
        gain = level_gain((samples_of(one.line) for one in reading.heard), rate, job.loudness)
        pieces = sound_of(reading.heard, samples_of, rate, gain=gain, until=reading.seconds)
        written = bind(target, pieces, rate, (), Book(title=path.stem, chapters=()))
    if subtitles is not None:
        write_subtitles(subtitles, cues_of(reading.heard))
    if report is not None:
        data = dub_report(job, spec, reading, fitted, written)
        _write(report, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    for one in fitted:
        if one.over > 0.01:
            warn(f"the line at {one.cue.start:.2f} s is {one.over:.2f} s too long for its slot and was cut")
    _tell_verdicts(stage)
    _tell(None, reading, written)


def _print_cues(path: Path) -> None:
    """What would be dubbed, and until when."""
    from sonant.books.subtitles import read_subtitles

    cues = read_subtitles(path)
    letters = sum(len(cue.text) for cue in cues)
    typer.echo(f"{path.name}: {len(cues)} lines, {letters:,} characters, until {cues[-1].end / 60:.1f} min")


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


def _going_on(target: Path) -> AbstractContextManager[None]:
    """A Ctrl-C says how to go on."""
    from sonant.cli.speaking import told_when_stopped

    return told_when_stopped(
        f"what was spoken is kept in {target.name}.pieces. Run the same command again to go on."
    )


@contextmanager
def _progress(lines: Sequence[Any]) -> Iterator[Callable[[Any, bool], None]]:
    """A bar over the letters of lines or texts."""
    from sonant.cli.speaking import bar

    with bar("reading", sum(len(line if isinstance(line, str) else line.text) for line in lines)) as advance:
        yield lambda line, kept: advance(len(line.text))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    from sonant.files import written_over

    with written_over(path) as place:
        place.write_bytes(text.encode("utf-8", "replace"))


def _tell(book: Book | None, reading: Any, written: Sequence[Path]) -> None:
    """What was made, and what of it is not as it should be; ends with status 6 where a line was left out."""
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
    if reading.failures:
        raise typer.Exit(6)
