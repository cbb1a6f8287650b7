"""PDF with text -> blocks: without running heads and page numbers, paragraphs guessed from the lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sonant.books.chapters import is_chapter_line, split_chapters
from sonant.books.document import Block, Book
from sonant.errors import DependencyError, RequestError

_NUMBER = re.compile(r"^\s*(?:page\s+)?[-–—]?\s*(?:\d{1,4}|[ivxlc]{1,7})\s*[-–—]?\s*$", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_ENDS = re.compile(r"[.!?…:。！？]['\"”’»)\]]*$")


def read_pdf(path: Path) -> Book:
    """The book in a PDF that holds text. Raises RequestError for scans, encrypted and damaged files."""
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise DependencyError('reading a PDF needs pypdf. Install it: pip install "sonant[books]"') from error
    try:
        reader = PdfReader(path)
        if reader.is_encrypted and not reader.decrypt(""):
            raise RequestError(f"{path} is encrypted; expected a PDF that opens without a password.")
        pages = [(page.extract_text() or "").splitlines() for page in reader.pages]
        facts = reader.metadata
        outline = _outline(reader)
    except (PyPdfError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read as a PDF ({error}). Get it again.") from error
    if not any(line.strip() for page in pages for line in page):
        raise RequestError(
            f"{path} holds no text, as scans do; expected a PDF with text. Run it through OCR first."
        )
    title = str((facts and facts.title) or path.stem)
    running = _running(pages)
    blocks: list[Block] = []
    carried: list[str] = []
    for number, lines in enumerate(pages):
        kept = _without_edges(lines, running)
        headings = outline.get(number, [])
        there = {line.strip() for line in kept}
        for heading in headings:
            if heading not in there:  # as where the page has it in two lines
                _close(blocks, carried)
                blocks.append(Block("heading", heading, 1))
        _paragraphs(kept, blocks, carried, headings=set(headings))
    _close(blocks, carried)
    return Book(
        title=title,
        author=str((facts and facts.author) or ""),
        chapters=split_chapters(blocks, title=title),
        left_out=(f"running heads: {', '.join(sorted(running)[:3])}",) if running else (),
    )


def _outline(reader: Any) -> dict[int, list[str]]:
    """Titles of the outline's first level by page."""
    found: dict[int, list[str]] = {}
    for entry in reader.outline:
        if isinstance(entry, list):
            continue
        page = reader.get_destination_page_number(entry)
        if page is not None and entry.title:
            found.setdefault(page, []).append(str(entry.title).strip())
    return found


def _plain(line: str) -> str:
    return _DIGITS.sub("#", line).strip().lower()


def _first_and_last(lines: Sequence[str]) -> set[str]:
    there = [line for line in lines if line.strip()]
    return {*there[:1], *there[-1:]}


def _running(pages: Sequence[Sequence[str]]) -> set[str]:
    """First and last lines that come back on more than a third of the pages."""
    edges = Counter(
        _plain(line)
        for lines in pages
        for line in {
            *[text for text in lines if text.strip()][:1],
            *[text for text in lines if text.strip()][-1:],
        }
    )
    return {line for line, count in edges.items() if count > max(2, len(pages) / 3) and len(line) < 90}


def _without_edges(lines: Sequence[str], running: set[str]) -> list[str]:
    kept = [line.rstrip() for line in lines]

    def is_edge(line: str) -> bool:
        return not line.strip() or bool(_NUMBER.match(line)) or _plain(line) in running

    while kept and is_edge(kept[0]):
        kept.pop(0)
    while kept and is_edge(kept[-1]):
        kept.pop()
    return kept


def _paragraphs(lines: Sequence[str], blocks: list[Block], carried: list[str], *, headings: set[str]) -> None:
    """Add the page's paragraphs; the last may go on over the page and stays in `carried`."""
    widest = max((len(line) for line in lines), default=0)
    for line in lines:
        text = line.strip()
        if not text:
            _close(blocks, carried)
        elif text in headings or is_chapter_line(text):
            headings.discard(text)
            _close(blocks, carried)
            blocks.append(Block("heading", text, 1))
        else:
            if carried and carried[-1].endswith(("-", "\u00ad")) and text[:1].islower():
                carried[-1] = carried[-1].rstrip("-\u00ad") + text
            else:
                carried.append(text)
            if len(line) < 0.75 * widest and _ENDS.search(text):
                _close(blocks, carried)


def _close(blocks: list[Block], carried: list[str]) -> None:
    if carried:
        blocks.append(Block("paragraph", " ".join(carried)))
        carried.clear()
