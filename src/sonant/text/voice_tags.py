"""Marks in a text that change who speaks, for dialogues, scripts and books alike.

[voice: ann]           from here on Ann speaks
[voice: ann | angry]   and how
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VOICE_TAG = re.compile(r"\[voice:([^\[\]\n]{1,420})\]", re.IGNORECASE)
"""Its parts are told afterwards: blanks around them here would be tried in every way."""
LONGEST_PART = 200


@dataclass(frozen=True)
class Marked:
    """A stretch of text and who says it: None where no mark came before it."""

    voice: str | None
    manner: str
    text: str


def split_voices(text: str) -> list[Marked]:
    """The text between voice marks, each stretch as it stands, blank ones among them."""
    marked: list[Marked] = []
    voice, manner, done = None, "", 0
    for hit in VOICE_TAG.finditer(text):
        name, _, how = (part.strip() for part in hit[1].partition("|"))
        if not name or max(len(name), len(how)) > LONGEST_PART:
            continue  # no mark: its words stay
        marked.append(Marked(voice, manner, text[done : hit.start()]))
        voice, manner, done = name, how, hit.end()
    return [*marked, Marked(voice, manner, text[done:])]
