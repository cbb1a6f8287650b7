"""A book -> the pieces to say and their pauses; saying them; and when each is heard.

A piece is a sentence (short ones join a neighbour), so a changed sentence costs one sentence. What cannot be
spoken is told and left out: the book goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sonant.books.cast import NARRATOR, Cast
from sonant.books.document import Block, Chapter
from sonant.books.script import Span, spans_of
from sonant.errors import CancelledError, GenerationError, RequestError, SonantError, StorageError
from sonant.text.segment import sentences

log = logging.getLogger(__name__)

SHORT = 25
"""Characters; a shorter sentence is said together with its neighbour in the paragraph."""
TURN, SENTENCE, ITEM, PARAGRAPH, HEADING, BREAK, CHAPTER = 0.1, 0.25, 0.4, 0.6, 1.0, 1.5, 2.0
"""Seconds of silence after each, on top of the model's own; TURN where another goes on inside a sentence."""
MOST_FAILURES = 20
"""Pieces that fail one after another before the reading is given up: then the model is broken."""


@dataclass(frozen=True)
class Line:
    """One piece of a book to say."""

    chapter: int
    """Index of its chapter among those read."""
    paragraph: int
    """Number of its block in the chapter, from 1."""
    text: str
    pause_after: float
    role: str = NARRATOR
    """Who says it."""
    manner: str = ""
    """How, in the words of the script."""
    number: int = 0
    """Its place in the reading: the same words may be said twice."""


@dataclass(frozen=True)
class Heard:
    """A line and when it is heard, in seconds from the beginning."""

    line: Line
    start: float
    end: float


@dataclass(frozen=True)
class Failure:
    """A line that could not be spoken."""

    line: Line
    reason: str


@dataclass
class Reading:
    """How a reading went."""

    heard: list[Heard] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    guards: list[tuple[Line, str, str]] = field(default_factory=list)
    """Line, kind and message."""
    kept: int = 0
    """Lines that an earlier run had spoken."""
    seconds: float = 0.0


def lines_of(
    chapters: Sequence[Chapter], *, paragraphs: range | None = None, cast: Cast | None = None
) -> list[Line]:
    """What is said of the chapters, in order; only of the paragraphs with these numbers, from 1, if given.

    Without a cast the narrator says all that no voice mark gives to another.
    """
    lines: list[Line] = []
    for index, chapter in enumerate(chapters):
        first = len(lines)
        number = 0
        for block, spans in zip(chapter.blocks, spans_of(chapter, cast), strict=True):
            if block.text:
                number += 1
            elif lines[first:]:
                _pause(lines, BREAK)
                continue
            if block.text and (paragraphs is None or number in paragraphs):
                lines.extend(_block_lines(block, spans, index, number))
        if lines[first:]:
            _pause(lines, CHAPTER)
    return [replace(line, number=number) for number, line in enumerate(lines)]


def _pause(lines: list[Line], seconds: float) -> None:
    lines[-1] = replace(lines[-1], pause_after=max(lines[-1].pause_after, seconds))


def _block_lines(block: Block, spans: Sequence[Span], chapter: int, number: int) -> Iterator[Line]:
    """The sentences of a block. What has no letter or digit is not said and only keeps its pause."""
    lines: list[Line] = []
    for place, span in enumerate(spans):
        is_last = place + 1 == len(spans)
        text = span.text.lstrip(" ,;") if place else span.text
        if is_last and block.kind in ("heading", "item") and text.rstrip()[-1:] not in ".!?:;…。！？：；":
            text = text.rstrip() + "."
        said = _sentences(text)
        for piece in said:
            lines.append(Line(chapter, number, piece, SENTENCE, span.role, span.manner))
        if said and not is_last and said[-1].rstrip("\"'”’»“」』)")[-1:] not in ".!?…。！？":
            lines[-1] = replace(lines[-1], pause_after=TURN)  # another goes on inside the sentence
    yield from lines[:-1]
    if lines:
        yield replace(lines[-1], pause_after={"heading": HEADING, "item": ITEM}.get(block.kind, PARAGRAPH))


def _sentences(text: str) -> list[str]:
    """Sentences to say one at a time; short ones join a neighbour."""
    pieces: list[str] = []
    for sentence in sentences(text):
        if pieces and (len(pieces[-1].strip()) < SHORT or not any(map(str.isalnum, sentence))):
            pieces[-1] += sentence
        else:
            pieces.append(sentence)
    if len(pieces) > 1 and len(pieces[-1].strip()) < SHORT:
        last = pieces.pop()
        pieces[-1] += last
    return [piece.strip() for piece in pieces if any(map(str.isalnum, piece))]


@dataclass(frozen=True)
class Said:
    """What is known of a line that was spoken, without its samples."""

    frames: int
    guards: tuple[tuple[str, str], ...]
    """Kind and message of each."""
    is_kept: bool


def say_all(
    lines: Sequence[Line], say: Callable[[Line], Said], *, on_line: Callable[[Line, bool], None]
) -> list[Said | Failure]:
    """Say the lines one after another; what cannot be spoken is a Failure in its place.

    `on_line` is told each that is done, and whether it was there before. Raises CancelledError when stopped,
    StorageError when nothing can be kept, and GenerationError after MOST_FAILURES failures in a row.
    """
    done: list[Said | Failure] = []
    in_a_row = 0
    for line in lines:
        try:
            said = say(line)
        except (CancelledError, StorageError):
            raise
        except SonantError as error:
            in_a_row += 1
            done.append(Failure(line, str(error)))
            log.warning("left out: %r (%s)", line.text[:60], error)
            if in_a_row >= MOST_FAILURES:
                raise GenerationError(
                    f"{in_a_row} pieces in a row could not be spoken; the last: {error} "
                    "What was spoken before is kept. Check the model and the language, then run it again."
                ) from error
            on_line(line, False)
            continue
        in_a_row = 0
        done.append(said)
        on_line(line, said.is_kept)
    return done


def arrange(lines: Sequence[Line], said: Sequence[Said | Failure], sample_rate: int) -> Reading:
    """When each line is heard. Raises RequestError where nothing was spoken."""
    reading = Reading()
    for line, one in zip(lines, said, strict=True):
        if isinstance(one, Failure):
            reading.failures.append(one)
            reading.seconds += line.pause_after
            continue
        reading.kept += one.is_kept
        reading.guards += [(line, kind, message) for kind, message in one.guards]
        end = reading.seconds + one.frames / sample_rate
        reading.heard.append(Heard(line, reading.seconds, end))
        reading.seconds = end + round(line.pause_after * sample_rate) / sample_rate
    if not reading.heard:
        raise RequestError("nothing of the book could be spoken; see the warnings. Check its language.")
    return reading
