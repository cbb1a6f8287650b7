"""Subtitles: written from what was heard, and read as a script that speech is fitted into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonant.books.narration import Heard
from sonant.errors import DependencyError, RequestError

LONGEST_CUE = 84
"""Characters that a viewer reads at once: two lines of 42."""
_CUT = re.compile(r"(?<=[,;:.!?—–])\s+|(?<=[，。；：！？、])")


@dataclass(frozen=True)
class Cue:
    """Words and when they are seen or spoken, in seconds."""

    start: float
    end: float
    text: str


def cues_of(heard: Sequence[Heard]) -> list[Cue]:
    """A cue for each line; a long one is cut at its clauses, its time shared by characters (an estimate)."""
    cues: list[Cue] = []
    for one in heard:
        text = " ".join(one.line.text.split())
        parts: list[str] = []
        for clause in _CUT.split(text):
            words = clause.split(" ") if len(clause) > LONGEST_CUE else [clause]
            for word in words:
                if parts and len(parts[-1]) + 1 + len(word) <= LONGEST_CUE:
                    parts[-1] += f" {word}"
                else:
                    parts.append(word)
        whole = sum(map(len, parts)) or 1
        start = one.start
        for part in parts:
            end = start + (one.end - one.start) * len(part) / whole
            cues.append(Cue(start, end, part))
            start = end
    return cues


def check_subtitles(path: Path) -> None:
    """Raise RequestError for a file name that says no format of subtitles."""
    if path.suffix.lower() not in (".srt", ".vtt"):
        raise RequestError(
            f"subtitles {path.name} are of no known format; expected .srt or .vtt. Name them so."
        )


def write_subtitles(path: Path, cues: Sequence[Cue]) -> None:
    """Write SRT or VTT, by the file's ending. Raises RequestError for others."""
    check_subtitles(path)
    subs = _library()
    file = subs.SSAFile()
    for cue in cues:
        event = subs.SSAEvent(start=round(cue.start * 1000), end=round(cue.end * 1000))
        event.plaintext = cue.text
        file.append(event)
    file.save(str(path), encoding="utf-8")


def read_subtitles(path: Path) -> list[Cue]:
    """Cues of an SRT or VTT file in order of time, without markup. Raises RequestError for others."""
    subs = _library()
    try:
        file = subs.load(str(path), encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, subs.exceptions.Pysubs2Error, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read as subtitles ({error}); expected SRT or VTT in UTF-8. Check the file."
        ) from error
    cues = [
        Cue(event.start / 1000, event.end / 1000, " ".join(event.plaintext.split()))
        for event in sorted(file.events, key=lambda event: event.start)
        if not event.is_comment
    ]
    cues = [cue for cue in cues if any(map(str.isalnum, cue.text))]
    if not cues:
        raise RequestError(f"{path} has no line to say in it; expected at least one cue with words.")
    return cues


def _library() -> Any:
    try:
        import pysubs2
    except ImportError as error:
        raise DependencyError('subtitles need pysubs2. Install it: pip install "sonant[books]"') from error
    return pysubs2
