"""A book -> the pieces to say and their pauses; saying them; and when each is heard.

A piece is a sentence (short ones join a neighbour), so a changed sentence costs one sentence. What cannot be
spoken is told and left out: the book goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sonant.books.document import Block, Chapter
from sonant.errors import CancelledError, GenerationError, RequestError, SonantError
from sonant.readings.pieces import PieceStore
from sonant.text.segment import sentences

log = logging.getLogger(__name__)

SHORT = 25
"""Characters; a shorter sentence is said together with its neighbour in the paragraph."""
SENTENCE, ITEM, PARAGRAPH, HEADING, BREAK, CHAPTER = 0.25, 0.4, 0.6, 1.0, 1.5, 2.0
"""Seconds of silence after each, on top of the model's own."""
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


def lines_of(chapters: Sequence[Chapter], *, paragraphs: range | None = None) -> list[Line]:
    """What is said of the chapters, in order; only of the paragraphs with these numbers, from 1, if given."""
    lines: list[Line] = []
    for index, chapter in enumerate(chapters):
        first = len(lines)
        number = 0
        for block in chapter.blocks:
            if block.text:
                number += 1
            elif lines[first:]:
                _pause(lines, BREAK)
                continue
            if block.text and (paragraphs is None or number in paragraphs):
                lines.extend(_block_lines(block, index, number))
        if lines[first:]:
            _pause(lines, CHAPTER)
    return lines


def _pause(lines: list[Line], seconds: float) -> None:
    last = lines[-1]
    lines[-1] = Line(last.chapter, last.paragraph, last.text, max(last.pause_after, seconds))


def _block_lines(block: Block, chapter: int, number: int) -> Iterator[Line]:
    """The sentences of a block. What has no letter or digit is not said and only keeps its pause."""
    ends = {"heading": HEADING, "item": ITEM}.get(block.kind, PARAGRAPH)
    text = block.text
    if block.kind in ("heading", "item") and text[-1:] not in ".!?:;…。！？：；":
        text += "."
    pieces: list[str] = []
    for sentence in sentences(text):
        if pieces and (len(pieces[-1].strip()) < SHORT or not any(map(str.isalnum, sentence))):
            pieces[-1] += sentence
        else:
            pieces.append(sentence)
    if len(pieces) > 1 and len(pieces[-1].strip()) < SHORT:
        last = pieces.pop()
        pieces[-1] += last
    said = [piece.strip() for piece in pieces if any(map(str.isalnum, piece))]
    for place, piece in enumerate(said):
        yield Line(chapter, number, piece, SENTENCE if place + 1 < len(said) else ends)


def narrate(
    lines: Sequence[Line],
    store: PieceStore,
    sample_rate: int,
    *,
    on_line: Callable[[Line, bool], None] = lambda line, kept: None,
) -> Reading:
    """Say every line into the store. `on_line` is told each that is done, and whether it was there before.

    Raises CancelledError when stopped, and GenerationError after MOST_FAILURES failures in a row.
    """
    reading = Reading()
    in_a_row = 0
    for line in lines:
        try:
            told = store.tell(line.text)
        except CancelledError:
            raise
        except SonantError as error:
            in_a_row += 1
            reading.failures.append(Failure(line, str(error)))
            log.warning("left out: %r (%s)", line.text[:60], error)
            if in_a_row >= MOST_FAILURES:
                raise GenerationError(
                    f"{in_a_row} pieces in a row could not be spoken; the last: {error} "
                    "What was spoken before is kept. Check the model and the language, then run it again."
                ) from error
            reading.seconds += line.pause_after
            on_line(line, False)
            continue
        in_a_row = 0
        reading.kept += told.is_kept
        reading.guards += [(line, kind, message) for kind, message in told.guards]
        end = reading.seconds + len(told.samples) / sample_rate
        reading.heard.append(Heard(line, reading.seconds, end))
        reading.seconds = end + round(line.pause_after * sample_rate) / sample_rate
        on_line(line, told.is_kept)
    if not reading.heard:
        raise RequestError("nothing of the book could be spoken; see the warnings. Check its language.")
    return reading
