"""What a book is, whatever file it came in: chapters of blocks, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "paragraph", "item", "quote", "break"]
Part = Literal["front", "body", "back"]


@dataclass(frozen=True)
class Block:
    """A stretch of text that stands alone on the page. A break (a row of stars, a rule) has no text."""

    kind: BlockKind
    text: str = ""
    level: int = 0
    """Of a heading, 1 the largest."""
    anchors: tuple[str, ...] = ()
    """Names by which a table of contents points at it."""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A part of the book with a title of its own."""

    title: str
    blocks: tuple[Block, ...]
    part: Part = "body"
    """front and back matter (copyright, contents, index, advertisements) is read only when asked for."""

    @property
    def text(self) -> str:
        """The blocks' text, a blank line between them."""
        return "\n\n".join(block.text for block in self.blocks if block.text)


@dataclass(frozen=True, kw_only=True)
class Book:
    """A whole book."""

    title: str
    author: str = ""
    language: str | None = None
    chapters: tuple[Chapter, ...]
    cover: bytes | None = None
    """A picture file, JPEG or PNG."""
    left_out: tuple[str, ...] = ()
    """What was not taken from the file, one sentence each."""
