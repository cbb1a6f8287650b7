"""Files of books and readings on a server: read in a process of its own, taken up again, named.

What strangers send can be built to take hours, so a book is read by `sonant.books.stored` in a child.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from sonant.books.cast import Cast, cast_of
from sonant.books.choice import pick_chapters, range_of
from sonant.books.document import Book
from sonant.books.narration import Line, lines_of
from sonant.books.stored import book_of
from sonant.errors import RequestError
from sonant.server.bookshelf import Reading, read_json
from sonant.server.problems import HttpProblem

FORMATS = {
    "m4b": "audio/mp4", "m4a": "audio/mp4", "mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac",
    "wav": "audio/wav",
}  # fmt: skip
LONGEST_NAME = 150
"""Bytes of a file's name without its ending: file systems take 255, with what is written beside it."""
ENDINGS = ("txt", "md", "html", "epub", "docx", "pdf", "srt", "vtt")


async def parse_book(folder: Path, name: str, *, seconds: float) -> None:
    """Read the book in a process of its own, which is ended when it takes too long. Raises RequestError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sonant.books.stored", name, ".",
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            told, _ = await process.communicate()
    except TimeoutError as error:
        raise RequestError(
            f"{name} could not be read within {seconds:g} s. Convert it to plain text or EPUB first.",
            field="file",
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return
    try:
        problem = json.loads(told)
        raise HttpProblem(problem["status"], problem["code"], problem["message"], param="file")
    except (ValueError, KeyError):
        raise RequestError(
            f"{name} could not be read: its contents broke the reader. Convert it first.", field="file"
        ) from None


def files_of(reading: Reading) -> dict[str, str]:
    """Files of a finished reading, and what they are."""
    return {
        f"book.{reading.format}": FORMATS[reading.format],
        "book.srt": "application/x-subrip",
        "report.json": "application/json",
    }


def kept_lines(folder: Path, options: dict[str, Any]) -> tuple[list[tuple[int, Line]], Cast]:
    """Chapter numbers and lines of a kept book under the cast of `options`; in a thread."""
    if not (folder / "book.json").is_file():
        raise RequestError("subtitles are dubbed by one voice and have no chapters or roles.", field="cast")
    book = kept_book(folder)
    cast = cast_of(options["cast"], files=False) if options.get("cast") else None
    picked = pick_chapters(book.chapters, options.get("chapters"), everything=bool(options.get("everything")))
    paragraphs = range_of(options.get("paragraphs"), "paragraphs")
    lines = lines_of([chapter for _, chapter in picked], paragraphs=paragraphs, cast=cast)
    return [(picked[line.chapter][0], line) for line in lines], cast or Cast()


def kept_titles(book: Book, options: dict[str, Any]) -> list[str]:
    """Titles of the chapters that are read."""
    picked = pick_chapters(book.chapters, options.get("chapters"), everything=bool(options.get("everything")))
    return [chapter.title for _, chapter in picked]


def kept_book(folder: Path) -> Book:
    """The book in its folder. Raises RequestError where it is damaged."""
    data = read_json(folder / "book.json")
    if data is None:
        raise RequestError("the book is damaged. Delete it and send it again.", field="book")
    cover = folder / "cover"
    return book_of(data, cover.read_bytes() if cover.is_file() else None)


def file_name(name: str) -> str:
    """A name for the file as it was sent: letters and digits of it, and one of the known endings."""
    stem, dot, ending = name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    if not dot or ending.lower() not in (*ENDINGS, "htm", "xhtml", "text", "markdown"):
        raise RequestError(
            f"the file is named {name[:80]!r}; expected one that ends in {', '.join(ENDINGS)}. Name it so.",
            field="file",
        )
    kept = "".join(c if c.isalnum() or c in " -_" else "_" for c in stem).strip(" _")[:80]
    kept = kept.encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{kept or 'book'}.{ending.lower()}"
