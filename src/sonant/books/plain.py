"""Plain text -> blocks: paragraphs, chapter lines, rows of stars, without Project Gutenberg's own pages."""

from __future__ import annotations

import logging
import re

from sonant.books.chapters import is_chapter_line
from sonant.books.document import Block

log = logging.getLogger(__name__)

_START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG.*$", re.MULTILINE)
_END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG.*", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"^[\s*·•⁂~#_=–—-]{1,80}$")
_TITLE = re.compile(r"^Title:\s*(.+)$", re.MULTILINE)
_AUTHOR = re.compile(r"^Author:\s*(.+)$", re.MULTILINE)
_NOTE = re.compile(r"\[(?:Illustration|Footnote[^\]]{0,40})[:\]][^\]]{0,2000}\]?", re.IGNORECASE)


def decoded(data: bytes) -> str:
    """A file as text with the line ends of Unix: UTF-8, UTF-16 with its mark, else the old Western code
    page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            log.warning(
                "the text is no UTF-8 and was read as Windows-1252; where letters are wrong, save it as UTF-8"
            )
            text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_plain(text: str) -> tuple[list[Block], dict[str, str]]:
    """Blocks of a plain text, and the title and author that a Project Gutenberg header names."""
    facts = {}
    start = _START.search(text)
    if start:
        for name, pattern in (("title", _TITLE), ("author", _AUTHOR)):
            found = pattern.search(text[: start.start()])
            if found:
                facts[name] = found[1].strip()
        text = text[start.end() :]
    text = _NOTE.sub("", _END.sub("", text))
    blocks: list[Block] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.split("\n") if line.strip()]
        if not lines:
            continue
        if _RULE.match(" ".join(lines)):
            if blocks and blocks[-1].kind != "break":
                blocks.append(Block("break"))
        elif is_chapter_line(lines[0]) and len(lines) <= 3:
            blocks.append(Block("heading", ". ".join(line.rstrip(".") for line in lines), 1))
        else:
            blocks.append(Block("paragraph", "\n".join(lines)))
    return blocks, facts
