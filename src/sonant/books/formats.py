"""A file -> a book: txt, Markdown, HTML, EPUB, DOCX, PDF, by what the file is and not only by its ending."""

from __future__ import annotations

import contextlib
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import yaml
from bs4 import Tag

from sonant.books.chapters import split_chapters
from sonant.books.document import Book
from sonant.books.epub import read_epub
from sonant.books.pages import Page, read_page, soup_of
from sonant.books.pdf import read_pdf
from sonant.books.plain import decoded, read_plain
from sonant.errors import DependencyError, RequestError

log = logging.getLogger(__name__)

_NOTE = re.compile(
    r"^\[\^[^\]\n]{1,40}\]:.*(?:\n+(?: {4}|\t).*|\n[ \t]+\S.*)*|\[\^[^\]\n]{1,40}\]|\^\[[^\[\]]{1,2000}\]",
    re.MULTILINE,
)
"""Footnotes of Markdown and their marks, and Pandoc's notes in the line."""
_FRONT = re.compile(r"\A---[ \t]*\n(?![ \t]*\n)(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_KEY = re.compile(r"^(?:title|author|date|layout|lang|tags|draft|description|categories|slug):", re.MULTILINE)
_LIKE_YAML = re.compile(r"[\w-]+:|[ \t]+\S|- |#|\s*$")
_PANDOC = re.compile(r"\A%[ \t]+(\S.*)\n(?:%[ \t]+(.*)\n)?(?:%.*\n)?")
_ATTRIBUTES = re.compile(r"^(#{1,6}[ \t].*?)[ \t]*\{(?:[#.-]|\w+=)[^{}\n]*\}[ \t]*$", re.MULTILINE)
_DIVISION = re.compile(r"^:{3,}.*$", re.MULTILINE)
"""Pandoc's attributes of headings, and the fences of its divisions."""
LARGEST_TEXT = 64 * 2**20
"""Bytes of a text file; the longest novels have some five million."""


def read_book(path: Path) -> Book:
    """The book in a file. Raises RequestError for what cannot be read, saying which formats can."""
    if not path.is_file():
        raise RequestError(f"there is no file {path}; expected a book to read. Check the name.")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise RequestError(f"cannot read {path} ({error.strerror}). Check its permissions.") from error
    kind = _kind(path, head)
    reader = READERS.get(kind)
    if reader is None:
        raise RequestError(
            f"{path} is of no format that can be read ({kind or 'unknown'}); expected one of: "
            f"{', '.join(READERS)}. Convert it first."
        )
    book = reader(path)
    if not any(chapter.text for chapter in book.chapters):
        raise RequestError(f"{path} has no text in it; expected at least one paragraph.")
    return book


def _kind(path: Path, head: bytes) -> str:
    ending = path.suffix.lower().lstrip(".")
    named = {
        "text": "txt", "": "txt", "markdown": "md", "mdown": "md", "htm": "html", "xhtml": "html",
    }.get(ending, ending)  # fmt: skip
    if head.startswith(b"%PDF"):
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return "docx" if named == "docx" else "epub" if named == "epub" or b"epub+zip" in head else named
    if named in ("epub", "docx", "pdf"):
        raise RequestError(f"{path} is named .{named} and is none; expected such a file. Check it.")
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ending if ending not in READERS else "binary data"
    return named if named in READERS else "txt" if not ending else named


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > LARGEST_TEXT:
        raise RequestError(f"{path} has more than {LARGEST_TEXT:,} bytes, which no book needs. Split it.")
    return path.read_bytes()


def _text(path: Path) -> str:
    return decoded(_bytes(path))


def _plain(path: Path) -> Book:
    blocks, facts = read_plain(_text(path))
    title = facts.get("title", path.stem)
    return Book(title=title, author=facts.get("author", ""), chapters=split_chapters(blocks, title=title))


def _markdown(path: Path) -> Book:
    from markdown_it import MarkdownIt

    title, author, text = _front_matter(_text(path))
    text = _ATTRIBUTES.sub(r"\1", _DIVISION.sub("", _NOTE.sub("", text)))
    page = read_page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))
    book = _from_page(page, title or path.stem)
    return replace(book, title=title or book.title, author=author)


def _front_matter(text: str) -> tuple[str, str, str]:
    """Title and author of what site generators and Pandoc have above the text, "" if not said; the text."""
    found = _PANDOC.match(text)
    if found:
        title, author = (" ".join((part or "").split()) for part in found.groups())
        return title, author, text[found.end() :]
    found = _FRONT.match(text)
    if not found:
        return "", "", text
    try:
        facts = yaml.load(found[1], Loader=yaml.BaseLoader)  # texts, lists and mappings only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if not (_KEY.search(found[1]) and all(map(_LIKE_YAML.match, found[1].splitlines()))):
            return "", "", text
        log.warning("the front matter is no YAML (%s) and was left out", str(error).partition("\n")[0])
        facts = {}
    if not isinstance(facts, dict):  # a rule and a paragraph
        return "", "", text
    names = facts.get("author", ())
    names = [
        name.get("name") if isinstance(name, dict) else name
        for name in (names if isinstance(names, list) else [names])
    ]
    author = ", ".join(name for name in names if isinstance(name, str) and name)
    said = facts.get("title")
    return said if isinstance(said, str) else "", author, text[found.end() :]


def _html(path: Path) -> Book:
    data = _bytes(path)
    text: str | bytes = data
    with contextlib.suppress(UnicodeDecodeError):  # what is UTF-8 is that; else the page says what it is
        text = data.decode("utf-8-sig")
    head = soup_of(text).title
    return _from_page(read_page(text), head.get_text(strip=True) if isinstance(head, Tag) else path.stem)


_STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1:fresh",
        *(f"p[style-name='Heading {n}'] => h{n + 1}:fresh" for n in range(1, 6)),
    ]
)
"""Word's title above its headings, as HTML has them."""


def _docx(path: Path) -> Book:
    try:
        import mammoth
    except ImportError as error:
        raise DependencyError(
            'reading DOCX needs mammoth. Install it: pip install "sonant[books]"'
        ) from error
    try:
        with zipfile.ZipFile(path) as archive:
            large = [one for one in archive.infolist() if one.file_size > LARGEST_TEXT]
        # Pictures are not read; what is XML is, and unpacks to no more than the archive says.
        large = [one for one in large if one.filename.endswith((".xml", ".rels"))]
        if large:
            raise ValueError(f"{large[0].filename[:80]} unpacks to {large[0].file_size:,} bytes")
        with path.open("rb") as file:
            markup = mammoth.convert_to_html(file, style_map=_STYLES).value
    except Exception as error:  # it lets whatever its parsers raise out
        raise RequestError(f"{path} cannot be read as DOCX ({error}). Save it again as .docx.") from error
    return _from_page(read_page(markup), path.stem)


def _from_page(page: Page, title: str) -> Book:
    """The page as a book; a single largest heading at its beginning is the title."""
    left_out = (f"{page.notes} footnotes and their marks",) if page.notes else ()
    largest = [block for block in page.blocks if block.kind == "heading" and block.level == 1]
    if len(largest) == 1 and page.blocks[0] is largest[0]:
        title = largest[0].text.replace("\n", " ")
    chapters = split_chapters(page.blocks, title=title)
    return Book(title=title, chapters=chapters, left_out=left_out)


READERS: Mapping[str, Callable[[Path], Book]] = {
    "txt": _plain,
    "md": _markdown,
    "html": _html,
    "epub": read_epub,
    "docx": _docx,
    "pdf": read_pdf,
}
