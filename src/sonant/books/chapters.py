"""Blocks -> chapters, by the headings in the text; and which chapters are front and back matter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from sonant.books.document import Block, Chapter, Part

_NUMBER = (
    r"(?:\d{1,3}|[IVXLC]{1,7}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|the \w+|\w+teen|"
    r"twenty\S*)"
)
_CHAPTER_LINE = re.compile(
    rf"^(?:(?:chapter|part|book|canto|act|letter|stave|kapitel|teil|buch|chapitre|livre|partie|capítulo|capitulo|"
    rf"parte|libro)\s+{_NUMBER}\b.{{0,80}}|(?:prologue|epilogue|preface|introduction|foreword|afterword|prolog|epilog|vorwort|"
    rf"nachwort|einleitung|prólogo|epílogo|préface|conclusion)\b.{{0,40}}|第\s*[0-9〇零一二三四五六七八九十百千]+\s*[章回节節卷部幕].{{0,40}}|[IVXLC]{{1,7}}\.?)$",
    re.IGNORECASE,
)
_FRONT = re.compile(
    r"^(?:cover|title\s*page|half[- ]title|copyright.*|(?:table of )?contents|imprint|dedication|colophon|"
    r"list of (?:illustrations|figures|tables|maps)|also by .*|books by .*|praise for .*|"
    r"inhalt(?:sverzeichnis)?|impressum|titelseite|table des matières|sommaire|índice|créditos|"
    r"目录|目錄|版权.*|目次|奥付)$",
    re.IGNORECASE,
)
_BACK = re.compile(
    r"^(?:index|bibliography|references|works cited|(?:foot|end)?notes|about the (?:author|publisher)|"
    r"acknowledge?ments|glossary|transcriber['’]s notes?|(?:the )?full project.*|"
    r"register|literatur(?:verzeichnis)?|anmerkungen|danksagung|bibliographie|remerciements|参考文献|后记|後記)$",
    re.IGNORECASE,
)
_FRONT_TYPES = {
    *("cover", "titlepage", "halftitlepage", "copyright-page", "toc", "landmarks", "imprint", "loi", "lot"),
}
_BACK_TYPES = {"index", "bibliography", "footnotes", "endnotes", "rearnotes", "colophon", "backlink"}


def part_of(title: str, types: Sequence[str] = ()) -> Part:
    """Whether a chapter is front matter, back matter or the book itself, by its title and EPUB's types."""
    if set(types) & {
        "cover",
        "titlepage",
        "halftitlepage",
        "copyright-page",
        "toc",
        "landmarks",
        "imprint",
        "loi",
        "lot",
    }:
        return "front"
    if set(types) & {"index", "bibliography", "footnotes", "endnotes", "rearnotes", "colophon", "backlink"}:
        return "back"
    plain = title.strip().strip(".:")
    return "front" if _FRONT.match(plain) else "back" if _BACK.match(plain) else "body"


def is_chapter_line(line: str) -> bool:
    """A line of plain text that names a chapter."""
    return len(line) <= 90 and bool(_CHAPTER_LINE.match(line.strip()))


def split_chapters(blocks: Sequence[Block], *, title: str) -> tuple[Chapter, ...]:
    """Chapters at the largest headings that occur more than once, else at every heading of the largest size.

    What stands before the first is a chapter of the book's name.
    """
    levels = Counter(block.level for block in blocks if block.kind == "heading")
    often = [level for level, count in sorted(levels.items()) if count > 1]
    level = often[0] if often else min(levels, default=0)
    chapters: list[Chapter] = []
    name = title
    held: list[Block] = []
    for block in blocks:
        if level and block.kind == "heading" and block.level <= level:
            _close(chapters, name, held, title)
            name, held = block.text.replace("\n", " "), [block]
        else:
            held.append(block)
    _close(chapters, name, held, title)
    return tuple(chapters)


def _close(chapters: list[Chapter], name: str, held: Sequence[Block], title: str) -> None:
    """Add a chapter unless it is a heading alone, which then stands at the head of the next."""
    if not any(block.text for block in held):
        return
    if chapters and _is_title_alone(chapters[-1]):
        before = chapters.pop()
        held = [*before.blocks, *held]
        name = name if before.title == title else f"{before.title}. {name}"
    chapters.append(Chapter(title=name, blocks=tuple(held), part=part_of(name)))


def _is_title_alone(chapter: Chapter) -> bool:
    return all(block.kind == "heading" for block in chapter.blocks if block.text)
