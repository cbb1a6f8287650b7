"""Subtitles -> speech in which every line fits its slot, from its start to the start of the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sonant.books.narration import Failure, Heard, Line, Reading
from sonant.books.subtitles import Cue
from sonant.errors import CancelledError, RequestError, SonantError, StorageError
from sonant.readings.pieces import PieceStore
from sonant.request.audio import Samples

FASTEST = 1.6
"""Times the model's own pace to which a line may be hurried; beyond, words are lost."""
MARGIN = 0.03
"""Seconds left free at the end of a slot."""


@dataclass(frozen=True)
class Fitted:
    """A line in its slot: at which pace it was said, and by how many seconds it is too long all the same."""

    cue: Cue
    speed: float
    over: float


def dubbed(
    reading: Reading, speeds: Mapping[Line, float | None], store: PieceStore, sample_rate: int
) -> Callable[[Line], Samples]:
    """What gives a line's samples, cut where its slot ends."""
    ends = {one.line: one for one in reading.heard}

    def samples_of(line: Line) -> Samples:
        samples = store.tell(line.text, speed=speeds[line]).samples
        return samples[: round((ends[line].end - ends[line].start) * sample_rate)]

    return samples_of


def slots_of(cues: Sequence[Cue]) -> list[float]:
    """Seconds that each line may take: to the start of the next; the last as long as it is shown, or needs
    where its end is not after its start."""
    slots = [following.start - cue.start for cue, following in pairwise(cues)]
    last = cues[-1].end - cues[-1].start
    return [*slots, last if last > 0 else math.inf]


def dub(
    cues: Sequence[Cue],
    store: PieceStore,
    sample_rate: int,
    *,
    can_hurry: bool,
    on_line: Callable[[Line, bool], None] = lambda line, kept: None,
) -> tuple[Reading, list[Fitted], dict[Line, float | None]]:
    """Say each cue at its time. A line that is too long is said faster, up to FASTEST.

    What does not fit even so is cut at the next line's start and told.

    Returns the reading, how each line was fitted, and at which speed each is kept in the store.
    """
    reading, fitted, speeds = Reading(), [], dict[Line, "float | None"]()
    for number, (cue, slot) in enumerate(zip(cues, slots_of(cues), strict=True)):
        line = Line(0, number + 1, cue.text, 0.0)
        room = max(slot - MARGIN, 0.05)
        speed: float | None = None
        pace = store.pace
        try:
            told = store.tell(cue.text)
            seconds = len(told.samples) / sample_rate
            for _ in range(3):  # speech at a pace is not exactly so much shorter
                if seconds <= room or not can_hurry or pace >= FASTEST:
                    break
                pace = speed = round(min(FASTEST, pace * seconds / room * 1.02), 3)
                told = store.tell(cue.text, speed=speed)
                seconds = len(told.samples) / sample_rate
        except (CancelledError, StorageError):
            raise
        except SonantError as error:
            reading.failures.append(Failure(line, str(error)))
            on_line(line, False)
            continue
        reading.kept += told.is_kept
        reading.guards += [(line, kind, message) for kind, message in told.guards]
        reading.heard.append(Heard(line, cue.start, cue.start + min(seconds, slot)))
        fitted.append(Fitted(cue, pace, max(0.0, seconds - slot)))
        speeds[line] = speed
        on_line(line, told.is_kept)
    if not reading.heard:
        raise RequestError("no line could be spoken; see the warnings. Check the language.")
    reading.seconds = max(*(cue.end for cue in cues), reading.heard[-1].end)
    return reading, fitted, speeds
