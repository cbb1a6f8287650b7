"""What a text front end gives: the segments of a request, as the ids that the GPT is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sonant.families.indextts2.options import IndexOptions


@dataclass(frozen=True)
class Segment:
    """What is spoken at once."""

    text: str
    ids: tuple[int, ...]
    language: int | None = None
    """Row of the language embedding, where the model has one."""
    unknown: tuple[str, ...] = ()
    """Pieces that the vocabulary lacks."""


class FrontEnd(Protocol):
    """Text -> segments, for one checkpoint's vocabulary."""

    def segments_of(
        self, text: str, language: str | None, options: IndexOptions, *, limit: int, read_out: bool
    ) -> list[Segment]:
        """Segments of at most `limit` pieces; `language` is a name or a code, None finds it."""
        ...
