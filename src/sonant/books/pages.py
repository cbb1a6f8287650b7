"""HTML -> blocks. Every other format becomes HTML first, so what is read of a page is decided here alone.

Scripts, navigation, footnotes and their marks, page numbers and ruby readings are left out; a table is read
row by row, a picture by its alternative text.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from bs4.element import Comment, NavigableString

from sonant.books.document import Block

_HIDDEN = {
    "script",
    "style",
    "head",
    "nav",
    "template",
    "noscript",
    "svg",
    "math",
    "rt",
    "rp",
    "title",
    "form",
}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "div", "dl", "dt"),
    *("figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "img"),
    *("li", "main", "ol", "p", "pre", "section", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
}
_NOTE_TYPES = {
    "noteref",
    "footnote",
    "footnotes",
    "endnote",
    "endnotes",
    "rearnote",
    "rearnotes",
    "pagebreak",
}
_NOTE_ROLES = {"doc-noteref", "doc-footnote", "doc-endnote", "doc-endnotes", "doc-pagebreak"}
_NOTE_CLASS = re.compile(
    r"^(?:sd|mso)?(?:foot|end)-?note(?:s|text)?$|^note-?ref$|^fn(?:ref)?$|^page-?(?:num|number|break)$", re.I
)
_NOTE_MARK = re.compile(r"^\s*[\[(]?(?:\d{1,3}|[*†‡§¶]|[a-z])[\])]?\s*$")
_NOTE_TARGET = re.compile(r"#.*(?:fn|note|ftn|endn)", re.I)
_NOTE_MARKED = re.compile(r"^#.*(?:fn|note|ftn|endn|cite_?ref)", re.I)
_BACK = ("↑", "↩", "^", "⤴", "⏎")
_THIN = "\ufe0e\ufe0f \n\t"
_BREAK = re.compile(r"^[\s*·•⁂∗~#_=–—-]+$")
_FILE = re.compile(r"^\S*\.(?:png|jpe?g|gif|svg|webp|bmp|tiff?)$", re.I)
"""What programs give as a picture's words where nobody wrote any."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BLANKS = re.compile(r"[^\S\n]+")


@dataclass
class Page:
    """The blocks of an HTML text, and how much of it was left out by kind."""

    blocks: list[Block] = field(default_factory=list)
    notes: int = 0
    """Footnotes and marks of footnotes."""


def soup_of(markup: str | bytes) -> BeautifulSoup:
    """The tree of an HTML or XHTML text; the parser that forgives is used for both, as readers do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
        try:
            return BeautifulSoup(markup, "lxml")
        except ValueError:  # such as for a code page whose name has control characters in it
            text = markup.decode("utf-8", "replace") if isinstance(markup, bytes) else markup
            return BeautifulSoup(_CONTROLS.sub("", text), "lxml")


def read_page(markup: str | bytes) -> Page:
    """Blocks of an HTML or XHTML text, in order."""
    soup = soup_of(markup)
    page = Page()
    for element in soup.find_all(True):
        if element.decomposed:
            continue
        if element.name in _HIDDEN or element.has_attr("hidden"):
            element.decompose()
        elif _is_note(element):
            page.notes += 1
            element.decompose()
    root = soup.body or soup
    builder = _Builder(page)
    builder.walk(root)
    builder.flush()
    return page


def _words(element: Tag, name: str) -> set[str]:
    value = element.get(name) or ""
    return set((" ".join(value) if isinstance(value, list) else str(value)).lower().split())


def _is_note(element: Tag) -> bool:
    """A footnote, a mark that leads to one, or the number of a printed page."""
    if _words(element, "epub:type") & _NOTE_TYPES or _words(element, "role") & _NOTE_ROLES:
        return True
    if any(_NOTE_CLASS.match(name) for name in _words(element, "class")):
        return True
    if element.name == "a" and _NOTE_TARGET.search(str(element.get("href") or "")):
        return bool(_NOTE_MARK.match(element.get_text()))
    if element.name == "li":  # begins or ends with a way back to its mark, as Word's notes become
        links = [a for a in element.find_all("a", href=_NOTE_MARKED) if a.get_text().strip(_THIN) in _BACK]
        text = element.get_text().strip(_THIN)
        return bool(links) and (text.endswith(_BACK) or text.startswith(_BACK))
    if element.name == "sup":
        link = element.find("a", href=True)
        return link is not None and bool(_NOTE_MARK.match(element.get_text()))
    return False


class _Builder:
    """Walks the tree and gathers text until a block ends."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.text: list[str] = []
        self.anchors: list[str] = []
        self.kind: list[tuple[str, int]] = [("paragraph", 0)]
        self.pictured = ""
        """The words of the picture that was last, which its caption often repeats."""

    def walk(self, element: Tag) -> None:
        for child in element.children:
            if isinstance(child, Comment):
                continue
            if isinstance(child, NavigableString):
                self.text.append(re.sub(r"\s+", " ", str(child)) if element.name != "pre" else str(child))
            elif isinstance(child, Tag):
                self._enter(child)

    def _enter(self, element: Tag) -> None:
        name = element.name
        anchors = [str(element[key]) for key in ("id", "name") if element.has_attr(key)]
        if name == "br":
            self.text.append("\n")
            return
        if name not in _BLOCKS:
            self.anchors += anchors
            self.walk(element)
            return
        self.flush()
        self.anchors += anchors
        if name == "hr":
            self._add(Block("break", anchors=self._take_anchors()))
        elif name == "img":
            alternative = str(element.get("alt") or "").strip()
            if alternative and not _FILE.search(alternative):
                self.text.append(alternative)
                self.flush()
                self.pictured = alternative
        elif name == "tr":
            cells = [_joined(cell.get_text(" ")) for cell in element.find_all(["td", "th"])]
            self.text.append(", ".join(cell for cell in cells if cell))
            self.flush()
        else:
            self.kind.append(_kind_of(name) or self.kind[-1])
            self.walk(element)
            self.flush()
            self.kind.pop()

    def flush(self) -> None:
        """End the block that is being gathered."""
        text = _joined("".join(self.text))
        self.text = []
        if not text:
            return
        pictured, self.pictured = self.pictured, ""
        if text == _joined(pictured):
            return
        kind, level = self.kind[-1]
        if _BREAK.match(text) and kind != "heading":
            self._add(Block("break", anchors=self._take_anchors()))
        else:
            self._add(Block(kind, text, level, self._take_anchors()))  # type: ignore[arg-type]

    def _take_anchors(self) -> tuple[str, ...]:
        taken, self.anchors = tuple(self.anchors), []
        return taken

    def _add(self, block: Block) -> None:
        if block.kind == "break" and self.page.blocks and self.page.blocks[-1].kind == "break":
            return
        self.page.blocks.append(block)


def _kind_of(name: str) -> tuple[str, int] | None:
    if re.fullmatch(r"h[1-6]", name):
        return "heading", int(name[1])
    return {"li": ("item", 0), "dt": ("item", 0), "dd": ("item", 0), "blockquote": ("quote", 0)}.get(name)


def _joined(text: str) -> str:
    """One blank between words; a line break stays where a verse has one."""
    lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
