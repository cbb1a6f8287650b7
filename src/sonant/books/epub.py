"""EPUB 2 and 3: pages in reading order, table of contents, cover. Source: the EPUB 3.3 specification."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup, Tag

from sonant.books.chapters import part_of, split_chapters
from sonant.books.document import Block, Book, Chapter
from sonant.books.pages import read_page, soup_of
from sonant.errors import RequestError

LARGEST_FILE = 64 * 2**20
"""Bytes of one file inside; a larger one is a damaged or hostile archive."""
LARGEST_BOOK = 512 * 2**20


@dataclass(frozen=True)
class _Entry:
    """A line of the table of contents."""

    title: str
    file: str
    anchor: str


class _Archive:
    """The files inside, by name, with limits on what they unpack to."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as error:  # whatever zipfile and its decoders raise for a damaged file
            raise RequestError(
                f"{path} is no EPUB ({error}); expected a zip archive with META-INF/container.xml."
            ) from error
        self._names = {info.filename: info for info in self._zip.infolist()}
        self._left = LARGEST_BOOK

    def name_of(self, href: str) -> str:
        """The name that a link means: its escapes are signs, but where a name in the archive has them."""
        written, meant = posixpath.normpath(href), posixpath.normpath(unquote(href))
        return written if written in self._names and meant not in self._names else meant

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None when there is none of this name."""
        info = self._names.get(name)
        if info is None:
            return None
        if info.flag_bits & 1:
            raise RequestError("the EPUB is encrypted (DRM); expected one that can be read. Use a free copy.")
        if info.file_size > min(LARGEST_FILE, self._left):
            raise RequestError(
                f"{name} in the EPUB unpacks to {info.file_size:,} bytes, which no book needs. Check it."
            )
        self._left -= info.file_size
        try:
            return self._zip.read(info)
        except Exception as error:  # whatever zipfile and its decoders raise for a damaged file
            raise RequestError(f"{name} in the EPUB cannot be unpacked ({error}). Get it again.") from error


def read_epub(path: Path) -> Book:
    """The book in an EPUB file. Raises RequestError for what is none, or is encrypted."""
    archive = _Archive(path)
    if (
        archive.read("META-INF/encryption.xml") is not None
        and archive.read("META-INF/rights.xml") is not None
    ):
        raise RequestError("the EPUB is protected (DRM); expected one that can be read. Use a free copy.")
    container = _xml(archive.read("META-INF/container.xml"))
    root = container.find("rootfile") if container is not None else None
    package_name = str(root.get("full-path")) if isinstance(root, Tag) else ""
    package = _xml(archive.read(package_name))
    if package is None:
        raise RequestError(
            f"{path} has no package document {package_name!r}; expected an EPUB. Get it again."
        )
    folder = posixpath.dirname(package_name)

    def place(href: str) -> str:
        return archive.name_of(posixpath.join(folder, href.partition("#")[0]))

    items = {str(item.get("id")): item for item in package.find_all("item")}
    spine = [
        items[str(ref.get("idref"))]
        for ref in package.find_all("itemref")
        if str(ref.get("idref")) in items and str(ref.get("linear") or "yes") != "no"
    ]
    title, author, language = (_fact(package, name) for name in ("title", "creator", "language"))
    contents = _contents(archive, package, items, place)
    blocks: list[tuple[str, list[Block]]] = []
    types: dict[str, list[str]] = {}
    notes, missing = 0, []
    for item in spine:
        name = place(str(item.get("href")))
        data = archive.read(name)
        if data is None:
            missing.append(name)
            continue
        if "nav" in str(item.get("properties") or "").split():
            continue
        page = read_page(data)
        notes += page.notes
        types[name] = _types(data)
        blocks.append((name, page.blocks))
    chapters = _chapters(blocks, contents, types, title or path.stem)
    left_out = [f"{notes} footnotes and their marks"] if notes else []
    left_out += [f"the page {name}, which is not in the file" for name in missing]
    return Book(
        title=title or path.stem,
        author=author,
        language=language or None,
        chapters=chapters,
        cover=_cover(archive, package, items, place),
        left_out=tuple(left_out),
    )


def _xml(data: bytes | None) -> BeautifulSoup | None:
    return None if data is None else BeautifulSoup(data, "xml")


def _fact(package: BeautifulSoup, name: str) -> str:
    found = package.find(name)
    return found.get_text(" ", strip=True) if isinstance(found, Tag) else ""


def _types(data: bytes) -> list[str]:
    """EPUB's own words for what a page is."""
    soup = soup_of(data)
    elements = [soup.find(name) for name in ("body", "section")]
    found = [str(one.get("epub:type") or "").split() for one in elements if isinstance(one, Tag)]
    if found and found[0] == ["frontmatter"]:  # then its section says of which kind
        found = found[1:]
    return next(filter(None, found), [])


def _contents(
    archive: _Archive, package: BeautifulSoup, items: dict[str, Tag], place: Callable[[str], str]
) -> list[_Entry]:
    """The table of contents, from EPUB 3's navigation page or EPUB 2's ncx."""
    for item in items.values():
        if "nav" in str(item.get("properties") or "").split():
            name = place(str(item.get("href")))
            data = archive.read(name)
            if data is not None:
                entries = list(_navigation(soup_of(data), name, archive))
                if entries:
                    return entries
    spine = package.find("spine")
    ncx = items.get(str(spine.get("toc"))) if isinstance(spine, Tag) else None
    if ncx is None:
        ncx = next(
            (i for i in items.values() if str(i.get("media-type")) == "application/x-dtbncx+xml"), None
        )
    if ncx is None:
        return []
    name = place(str(ncx.get("href")))
    found = _xml(archive.read(name))
    return [] if found is None else list(_ncx(found, name, archive))


def _navigation(page: BeautifulSoup, name: str, archive: _Archive) -> Iterator[_Entry]:
    navs = page.find_all("nav")
    nav = next((n for n in navs if "toc" in str(n.get("epub:type") or "").split()), navs[0] if navs else None)
    if nav is None:
        return
    for link in nav.find_all("a", href=True):
        yield _entry(link.get_text(" ", strip=True), str(link["href"]), name, archive)


def _ncx(table: BeautifulSoup, name: str, archive: _Archive) -> Iterator[_Entry]:
    for point in table.find_all("navPoint"):
        label, content = point.find("navLabel"), point.find("content")
        if isinstance(label, Tag) and isinstance(content, Tag):
            yield _entry(label.get_text(" ", strip=True), str(content.get("src") or ""), name, archive)


def _entry(title: str, href: str, name: str, archive: _Archive) -> _Entry:
    file, _, anchor = href.partition("#")
    target = archive.name_of(posixpath.join(posixpath.dirname(name), file)) if file else name
    return _Entry(title, target, unquote(anchor))


def _chapters(
    pages: Sequence[tuple[str, list[Block]]],
    contents: Sequence[_Entry],
    types: dict[str, list[str]],
    title: str,
) -> tuple[Chapter, ...]:
    """Chapters where the table of contents points; pages without an entry go on with the chapter before.

    A table that points nowhere, or into one page only, gives way to the headings.
    """
    known = {name for name, _ in pages}
    entries = [entry for entry in contents if entry.file in known]
    if len({(entry.file, entry.anchor) for entry in entries}) < 2:
        return split_chapters([block for _, blocks in pages for block in blocks], title=title)
    chapters: list[Chapter] = []
    name, held, kinds = title, list[Block](), list[str]()

    def close() -> None:
        if any(block.text for block in held):
            chapters.append(Chapter(title=name, blocks=tuple(held), part=part_of(name, kinds)))

    for file, blocks in pages:
        here = [entry for entry in entries if entry.file == file]
        anchors = {entry.anchor: entry.title for entry in reversed(here) if entry.anchor}
        whole = next((entry.title for entry in here if not entry.anchor), None)
        if whole is None and here and not any(set(block.anchors) & anchors.keys() for block in blocks):
            whole = here[0].title  # the anchors are not on the page
        if whole is not None:
            close()
            name, held, kinds = whole, [], types[file]
        elif types[file] and part_of("", types[file]) != "body":
            close()
            name, held, kinds = types[file][0], [], types[file]
        for block in blocks:
            hit = next((anchor for anchor in block.anchors if anchor in anchors), None)
            if hit is not None and anchors[hit] != name:
                close()
                name, held, kinds = anchors[hit], [], types[file]
            held.append(block)
    close()
    return tuple(_merged(chapters))


def _merged(chapters: Sequence[Chapter]) -> Iterator[Chapter]:
    """A chapter that is a heading alone ("Part One") joins the one after it."""
    waiting: Chapter | None = None
    for chapter in chapters:
        if waiting is not None:
            title = f"{waiting.title}. {chapter.title}"
            chapter = replace(chapter, title=title, blocks=(*waiting.blocks, *chapter.blocks))
            waiting = None
        spoken = [block for block in chapter.blocks if block.text]
        if spoken and chapter.part == "body" and all(block.kind == "heading" for block in spoken):
            waiting = chapter
        else:
            yield chapter
    if waiting is not None:
        yield waiting


def _cover(
    archive: _Archive, package: BeautifulSoup, items: dict[str, Tag], place: Callable[[str], str]
) -> bytes | None:
    cover = next(
        (item for item in items.values() if "cover-image" in str(item.get("properties") or "").split()), None
    )
    if cover is None:
        named = package.find("meta", attrs={"name": "cover"})
        cover = items.get(str(named.get("content"))) if isinstance(named, Tag) else None
    if cover is None or not str(cover.get("media-type")).startswith("image/"):
        return None
    return archive.read(place(str(cover.get("href"))))
