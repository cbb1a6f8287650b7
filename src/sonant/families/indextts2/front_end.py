"""What a text front end gives: the segments of a request, as the ids that the GPT is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sonant.families.indextts2.options import IndexOptions
from sonant.request.speech import Normalize


@dataclass(frozen=True)
class SegmentIds:
    """What is spoken at once."""

    text: str
    ids: tuple[int, ...]
    language: int | None = None
    """Row of the language embedding, where the model has one."""
    unknown: tuple[str, ...] = ()
    """Pieces that the vocabulary lacks."""


@dataclass(frozen=True)
class ReadingMode:
    """How a text is treated, by what `SpeechRequest.normalize` says."""

    out: bool
    """Numbers and signs are read out as words here."""
    original: bool
    """To the letter as the original does it, traps included."""

    @staticmethod
    def of(normalize: Normalize | bool | None, text: str) -> ReadingMode:
        """After Sonant's front end only what it left as digits is read here."""
        if normalize == "sonant":
            return ReadingMode(any(character.isdecimal() for character in text), original=False)
        return ReadingMode(normalize != "off", original=normalize is not None)


class FrontEnd(Protocol):
    """Text -> segments, for one checkpoint's vocabulary."""

    def segments_of(
        self, text: str, language: str | None, options: IndexOptions, *, limit: int, reading: ReadingMode
    ) -> list[SegmentIds]:
        """Segments of at most `limit` pieces; `language` is a name or a code, None finds it."""
        ...
