"""Subtitles: written from what was heard, and read as a script that speech is fitted into."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from sonant.books.narration import Heard
from sonant.books.plain import decoded
from sonant.errors import DependencyError, RequestError
from sonant.files import written_over

LONGEST_CUE = 84
"""Characters that a viewer reads at once: two lines of 42."""
_TIME = re.compile(r"<\d[\d:.]*>")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,30});", re.IGNORECASE)
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
    text = file.to_string(path.suffix.lower().lstrip("."))
    with written_over(path) as place:
        place.write_bytes(text.encode("utf-8", "replace"))


def read_subtitles(path: Path) -> list[Cue]:
    """Cues of an SRT or VTT file in order of time, without markup. Raises RequestError for others."""
    subs = _library()
    try:
        text = decoded(path.read_bytes()).strip("\ufeff\n ")
        is_vtt = text.startswith("WEBVTT")
        file = subs.SSAFile.from_string(_cues_alone(text) if is_vtt else text, "vtt" if is_vtt else "srt")
        if not file.events:
            raise ValueError("no line of it has times such as 00:00:01,000 --> 00:00:02,500")
    except (OSError, subs.exceptions.Pysubs2Error, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read as subtitles ({error}); expected SRT or VTT in UTF-8. Check the file."
        ) from error
    cues = [
        Cue(event.start / 1000, event.end / 1000, _said(event.plaintext))
        for event in sorted(file.events, key=lambda event: event.start)
    ]
    cues = _together([cue for cue in cues if any(map(str.isalnum, cue.text))])
    if not cues:
        raise RequestError(f"{path} has no line to say in it; expected at least one cue with words.")
    return cues


def _cues_alone(text: str) -> str:
    """WebVTT without its notes, styles and the cues' names, which pysubs2 would take for words."""
    blocks = [block for block in re.split(r"\n(?:[ \t]*\n)+", text) if "-->" in block]
    return "\n\n".join(
        ["WEBVTT", *(block[block.rfind("\n", 0, block.index("-->")) + 1 :] for block in blocks)]
    )


def _said(text: str) -> str:
    """The words of a cue, without times inside it and with its entities as signs."""
    plain = _ENTITY.sub(lambda found: html.unescape(found[0]), _TIME.sub("", text))
    return " ".join(plain.split())


def _together(cues: Sequence[Cue]) -> list[Cue]:
    """What begins at one time is one line, or the first of it would have no time at all."""
    joined = []
    for start, group in groupby(cues, key=lambda cue: cue.start):
        here = list(group)
        texts = dict.fromkeys(cue.text for cue in here)  # one that is there twice is said once
        joined.append(Cue(start, max(cue.end for cue in here), " ".join(texts)))
    return joined


def _library() -> Any:
    try:
        import pysubs2
    except ImportError as error:
        raise DependencyError('subtitles need pysubs2. Install it: pip install "sonant[books]"') from error
    return pysubs2
