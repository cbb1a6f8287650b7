"""A book as plain data for JSON, and what is in it: chapters, roles, estimates.

    python -m sonant.books.stored FILE FOLDER

reads a book in a process of its own, which a server may stop: what strangers send can be built to take hours.
It writes book.json, the cover and at last contents.json into the folder; an error goes to standard output as
JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sonant.books.cast import Cast
from sonant.books.choice import pick_chapters
from sonant.books.document import Block, Book, Chapter
from sonant.books.narration import lines_of
from sonant.books.report import estimate_seconds
from sonant.books.script import find_roles, roles_found
from sonant.errors import RequestError, SonantError, describe
from sonant.files import write_atomically

MEMORY = 4 * 2**30
"""Bytes of address space that reading a book may take."""
MOST_CHARACTERS = 16_000_000
"""Of a book: the longest novels have ten million, and a small archive may unpack to far more."""
MOST_BLOCKS = 100_000
MOST_CHAPTERS = 5_000
"""Each is a row of whatever shows the book."""


def book_data(book: Book) -> dict[str, Any]:
    """The book without its cover."""
    return {
        "title": book.title,
        "author": book.author,
        "language": book.language,
        "left_out": list(book.left_out),
        "chapters": [asdict(chapter) for chapter in book.chapters],
    }


def book_of(data: Mapping[str, Any], cover: bytes | None = None) -> Book:
    """The book of `book_data`."""
    chapters = tuple(
        Chapter(
            title=chapter["title"],
            part=chapter["part"],
            blocks=tuple(
                Block(b["kind"], b["text"], b["level"], tuple(b["anchors"])) for b in chapter["blocks"]
            ),
        )
        for chapter in data["chapters"]
    )
    return Book(
        title=data["title"], author=data["author"], language=data["language"], chapters=chapters, cover=cover,
        left_out=tuple(data["left_out"]),
    )  # fmt: skip


def check_size(book: Book) -> None:
    """Raise RequestError for a book that would keep whoever opens it for long."""
    blocks = [block for chapter in book.chapters for block in chapter.blocks]
    characters = sum(len(block.text) for block in blocks)
    if characters > MOST_CHARACTERS or len(blocks) > MOST_BLOCKS:
        raise RequestError(
            f"the book has {characters:,} characters in {len(blocks):,} paragraphs; at most "
            f"{MOST_CHARACTERS:,} in {MOST_BLOCKS:,} are taken. Split it.",
            field="file",
        )
    if len(book.chapters) > MOST_CHAPTERS:
        raise RequestError(
            f"the book has {len(book.chapters):,} chapters; at most {MOST_CHAPTERS:,} are taken. Check its "
            "headings, or split it.",
            field="file",
        )


def about_book(book: Book) -> dict[str, Any]:
    """Chapters with their sizes, the roles found, and estimates of what is read when nothing else is said."""
    found = find_roles([chapter for _, chapter in pick_chapters(book.chapters, None)])
    chapters, said = [], []
    for number, chapter in enumerate(book.chapters, 1):
        lines = lines_of([chapter], cast=found)
        chapters.append(
            {
                "number": number,
                "title": chapter.title,
                "part": chapter.part,
                "paragraphs": sum(bool(block.text) for block in chapter.blocks),
                "lines": len(lines),
                "characters": sum(len(line.text) for line in lines),
                "seconds": round(estimate_seconds(lines), 1),
            }
        )
        said.append(lines)
    read = [n for n, _ in pick_chapters(book.chapters, None)]
    whole = [line for number in read for line in said[number - 1]]
    return {
        "kind": "book",
        "title": book.title,
        "author": book.author,
        "language": book.language,
        "has_cover": book.cover is not None,
        "lines": len(whole),
        "characters": sum(len(line.text) for line in whole),
        "seconds": round(estimate_seconds(whole), 1),
        "chapters": chapters,
        "roles": [asdict(role) for role in roles_found(((one.role, one.text) for one in whole), found)],
        "left_out": list(book.left_out),
    }


def about_subtitles(path: Path) -> dict[str, Any]:
    """The same of a file of subtitles, which one voice dubs."""
    from sonant.books.subtitles import read_subtitles

    cues = read_subtitles(path)
    said = [("narrator", cue.text) for cue in cues]
    return {
        "kind": "subtitles",
        "title": path.stem,
        "author": "",
        "language": None,
        "has_cover": False,
        "lines": len(cues),
        "characters": sum(len(cue.text) for cue in cues),
        "seconds": round(cues[-1].end, 1),
        "chapters": [],
        "roles": [asdict(role) for role in roles_found(said, Cast())],
        "left_out": [],
    }


def main(source: Path, folder: Path) -> None:
    """Read the file and write what is in it."""
    from sonant.books.formats import read_book

    if source.suffix.lower() in (".srt", ".vtt"):
        about = about_subtitles(source)
    else:
        book = read_book(source)
        check_size(book)
        about = about_book(book)
        if book.cover is not None:
            write_atomically(folder / "cover", book.cover)
        write_atomically(folder / "book.json", json.dumps(book_data(book)).encode())
    write_atomically(folder / "contents.json", json.dumps(about).encode())


def _bound_memory() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    _bound_memory()
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except SonantError as error:
        status, _, code = describe(error)
        print(json.dumps({"status": status, "code": code, "message": str(error)}))
        sys.exit(1)
