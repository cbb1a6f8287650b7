"""Word times of an answer while it is made, and captions from them: JSON, WebVTT, SRT."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sonant.audio.word_times import word_times
from sonant.request.audio import Samples
from sonant.request.speech import AudioChunk

CaptionFormat = Literal["json", "vtt", "srt"]
LONGEST_CUE = 84
"""Characters: two lines of 42, as subtitles are set."""
LONGEST_CUE_SECONDS = 7.0
_SENTENCE_ENDS = ".!?…。！？"


@dataclass(frozen=True)
class TimedWord:
    """A word, when it is said in seconds of the answer, and how the text writes it with what follows."""

    word: str
    start: float
    end: float
    written: str

    def public(self) -> dict[str, Any]:
        """As plain data."""
        return {"word": self.word, "start": self.start, "end": self.end}


class WordClock:
    """Gathers the sound of each segment; its words' times are known when it is over."""

    def __init__(self) -> None:
        self.begin = 0.0
        """Seconds of the answer before what `take` is given."""
        self._text = ""
        self._start = 0.0
        self._pieces: list[Samples] = []

    async def take(self, chunk: AudioChunk) -> list[TimedWord]:
        """Words of the segments that are over with this chunk."""
        found: list[TimedWord] = []
        if chunk.text is not None:
            found += await self._close(chunk.sample_rate)
            self._text, self._start = chunk.text, self.begin + chunk.start
        self._pieces.append(chunk.samples)
        if chunk.is_final:
            found += await self._close(chunk.sample_rate)
            self.begin += chunk.start + len(chunk.samples) / chunk.sample_rate
        return found

    async def _close(self, sample_rate: int) -> list[TimedWord]:
        pieces, text, start = self._pieces, self._text, self._start
        self._pieces, self._text = [], ""
        if not text or not pieces:
            return []
        words = await asyncio.to_thread(word_times, np.concatenate(pieces), sample_rate, text)
        ends = [*(word.first for word in words[1:]), len(text)]
        return [
            TimedWord(
                word.text, round(start + word.start, 3), round(start + word.end, 3), text[word.first : end]
            )
            for word, end in zip(words, ends, strict=True)
        ]


def captions(words: Sequence[TimedWord], form: CaptionFormat) -> str:
    """The words as WebVTT or SRT."""
    blocks = []
    for number, cue in enumerate(_cues(words), 1):
        text = "".join(word.written for word in cue)
        line = " ".join(text.replace("-->", "→").split())
        times = f"{_stamp(cue[0].start, form)} --> {_stamp(cue[-1].end, form)}"
        blocks.append(f"{number}\n{times}\n{line}\n" if form == "srt" else f"{times}\n{line}\n")
    return "\n".join(blocks) if form == "srt" else "\n".join(["WEBVTT\n", *blocks])


def _cues(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    cues: list[list[TimedWord]] = []
    for word in words:
        cue = cues[-1] if cues else []
        length = sum(len(one.written) for one in cue) + len(word.written)
        is_full = not cue or length > LONGEST_CUE or word.end - cue[0].start > LONGEST_CUE_SECONDS
        if is_full or any(mark in cue[-1].written for mark in _SENTENCE_ENDS):
            cues.append([word])
        else:
            cue.append(word)
    return cues


def _stamp(seconds: float, form: CaptionFormat) -> str:
    whole = round(seconds * 1000)
    hours, minutes = whole // 3_600_000, whole // 60_000 % 60
    mark = "," if form == "srt" else "."
    return f"{hours:02d}:{minutes:02d}:{whole // 1000 % 60:02d}{mark}{whole % 1000:03d}"
