"""Marks in a text that change who speaks, for dialogues, scripts and books alike.

[voice: ann]           from here on Ann speaks
[voice: ann | angry]   and how
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VOICE_TAG = re.compile(
    r"\[voice:\s{0,9}([^\[\]\n|]{1,200}?)\s{0,9}(?:\|\s{0,9}([^\[\]\n]{0,200}?)\s{0,9})?\]", re.IGNORECASE
)


@dataclass(frozen=True)
class Marked:
    """A stretch of text and who says it: None where no mark came before it."""

    voice: str | None
    manner: str
    text: str


def split_voices(text: str) -> list[Marked]:
    """The text between voice marks, each stretch as it stands, blank ones among them."""
    pieces = VOICE_TAG.split(text)  # text, (name, manner, text)*
    marked = [Marked(None, "", pieces[0])]
    for name, manner, words in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        marked.append(Marked(name.strip(), (manner or "").strip(), words))
    return marked
