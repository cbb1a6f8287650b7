"""Files of every format become the same book: chapters, blocks, cover, without notes and running heads."""

import random
import zipfile

import pytest

from sonant.books.chapters import is_chapter_line, part_of, split_chapters
from sonant.books.document import Block
from sonant.books.epub import read_epub
from sonant.books.formats import read_book
from sonant.books.pages import read_page
from sonant.errors import RequestError

from .conftest import PAGES, docx, epub, pdf, picture


def shape(book):
    return [(c.part, c.title, [b.text for b in c.blocks if b.text]) for c in book.chapters]


SEA = [
    ("front", "Copyright", ["Copyright", "All rights reserved."]),
    ("body", "Chapter 1", ["Chapter 1", "The sea was calm. Nobody spoke.", "Later, it rose.", "It went on."]),
    ("body", "Chapter 2", ["Chapter 2", "A ship came\nfrom far away."]),
    ("body", "Three", ["Three", "Land!"]),
]


@pytest.mark.parametrize("version", [2, 3])
def test_an_epub_is_read_by_its_contents(tmp_path, version):
    book = read_book(epub(tmp_path / "sea.epub", version=version))
    assert (book.title, book.author, book.language) == ("The Sea", "A. Writer", "en")
    assert shape(book) == SEA
    assert book.cover == picture()
    assert book.left_out == ("2 footnotes and their marks",)


def test_an_epub_without_contents_is_read_by_its_headings(tmp_path):
    book = read_book(epub(tmp_path / "sea.epub", contents=False))
    assert [c.title for c in book.chapters] == ["Copyright", "Chapter 1", "Chapter 2"]
    assert [c.part for c in book.chapters] == ["front", "body", "body"]


def test_an_epub_whose_file_names_look_like_escapes_is_read(tmp_path):
    odd = {f"a%20b {name}": page for name, page in PAGES.items()}  # as EbookLib packs such a name
    book = read_book(epub(tmp_path / "odd.epub", pages=odd, contents=False))
    assert [c.title for c in book.chapters][-2:] == ["Chapter 1", "Chapter 2"]
    assert not [left for left in book.left_out if "not in the file" in left]


def test_a_damaged_epub_is_refused_or_read_and_never_crashes(tmp_path):
    data = epub(tmp_path / "sea.epub").read_bytes()
    chance = random.Random(1)
    refused = 0
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(chance.choice([1, 3, 20])):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        (tmp_path / "bad.epub").write_bytes(spoilt[: chance.choice([len(spoilt), len(spoilt), 900])])
        try:
            read_epub(tmp_path / "bad.epub")
        except RequestError:
            refused += 1
    assert 50 < refused < 150


def test_pages_that_are_missing_are_told(tmp_path):
    pages = {**PAGES, "gone.xhtml": "<p>x</p>"}
    path = epub(tmp_path / "sea.epub", pages=pages)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "cut.epub", "w") as new:
        for info in old.infolist():
            if "gone" not in info.filename:
                new.writestr(info, old.read(info))
    book = read_book(tmp_path / "cut.epub")
    assert any("gone.xhtml" in left for left in book.left_out)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"META-INF/encryption.xml": "<x/>", "META-INF/rights.xml": "<x/>"}, "DRM"),
        ({"META-INF/container.xml": "<container/>"}, "package document"),
        ({"OPS/book.opf": b"\0" * (65 * 2**20)}, "unpacks to"),
    ],
)
def test_an_epub_that_is_none_is_refused(tmp_path, extra, words):
    with pytest.raises(RequestError, match=words):
        read_book(epub(tmp_path / "bad.epub", extra=extra.items()))


def test_word_documents_have_their_headings(tmp_path):
    paragraphs = [
        ("Title", "The Hill"),
        ("Heading1", "One"),
        ("", "It was steep."),
        ("Heading1", "Two"),
        ("", "Down."),
    ]
    book = read_book(docx(tmp_path / "hill.docx", paragraphs))
    assert book.title == "The Hill"
    assert [(c.title, c.text) for c in book.chapters][-1] == ("Two", "Two\n\nDown.")


def test_pdf_pages_lose_running_heads_and_numbers_and_join_their_lines(tmp_path):
    def page(number, *lines):
        return ["THE ROAD", *lines, str(number)]

    pages = [
        page(1, "Chapter 1", "The road went on and on, over hills; a long road in-", "deed it was."),
        page(2, "They slept under a tree, and in the morning went on to the town", "that nobody had seen."),
        page(3, "Chapter 2", "The town was empty."),
        page(4, "So they went home."),
    ]  # fmt: skip
    book = read_book(pdf(tmp_path / "road.pdf", pages))
    assert [c.title for c in book.chapters] == ["Chapter 1", "Chapter 2"]
    text = " ".join(c.text for c in book.chapters)
    assert "THE ROAD" not in text
    assert "a long road indeed it was." in text
    assert "on to the town that nobody had seen." in text


def test_a_pdf_without_text_is_refused(tmp_path):
    with pytest.raises(RequestError, match="no text, as scans"):
        read_book(pdf(tmp_path / "scan.pdf", [[], []]))


def test_gutenberg_texts_lose_their_licence_and_keep_their_facts(tmp_path):
    text = (
        "The Project Gutenberg eBook\n\nTitle: The Ferry\n\nAuthor: B. Author\n\n"
        "*** START OF THE PROJECT GUTENBERG EBOOK THE FERRY ***\n\nCHAPTER I.\nDown to the River\n\n"
        "The ferry left\nat seven.\n\n* * *\n\nNobody spoke.\n\nCHAPTER II.\n\nThe other bank.\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK THE FERRY ***\nlicence\n"
    )
    (tmp_path / "ferry.txt").write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    book = read_book(tmp_path / "ferry.txt")
    assert (book.title, book.author) == ("The Ferry", "B. Author")
    assert [c.title for c in book.chapters] == ["CHAPTER I. Down to the River", "CHAPTER II"]
    assert "licence" not in book.chapters[-1].text


def test_markdown_loses_front_matter_and_notes(tmp_path):
    (tmp_path / "a.md").write_text(
        "---\nlayout: post\n---\n# The Ferry\n\n## One\n\nCold.[^1]\n\n[^1]: A note.\n\n"
        "## Two\n\n| a | b |\n|---|---|\n| c | d |\n",
        encoding="utf-8",
    )
    book = read_book(tmp_path / "a.md")
    assert book.title == "The Ferry"
    assert [c.text for c in book.chapters] == ["The Ferry\n\nOne\n\nCold.", "Two\n\na, b\n\nc, d"]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("front", "facts"),
    [
        ("---\ntitle: 'The Ferry: Out'\nauthor:\n  - Ann\n  - Bo\n---\n", ("The Ferry: Out", "Ann, Bo")),
        ("---\ntitle: The Ferry: Out\nlayout: post\n---\n", ("a", "")),  # no YAML, and meant as such
        ("---\ntitle: The Ferry\nauthor: [{name: Ann}]\n...\n", ("The Ferry", "Ann")),
        ("% The Ferry\n% Ann Keeper\n% May 1900\n", ("The Ferry", "Ann Keeper")),
    ],
)  # fmt: skip
def test_front_matter_says_who_wrote_it_and_is_not_read(tmp_path, front, facts, ends):
    text = (
        f"{front}\n# One {{#one .odd}}\n\nCold.^[A note.]\n\n::: aside\nWet.\n:::\n\n# Two {{-}}\n\nWarm.\n"
    )
    (tmp_path / "a.md").write_bytes(text.replace("\n", ends).encode())
    book = read_book(tmp_path / "a.md")
    assert (book.title, book.author) == facts
    assert [c.text for c in book.chapters] == ["One\n\nCold.\n\nWet.", "Two\n\nWarm."]


def test_a_rule_at_the_beginning_is_no_front_matter(tmp_path):
    (tmp_path / "a.md").write_text("---\n\nIt was cold.\n\n---\n\nIt was warm.\n")
    assert read_book(tmp_path / "a.md").chapters[0].text == "It was cold.\n\nIt was warm."
    (tmp_path / "a.md").write_text("---\n\nANNA: Hello.\n\nBOB: Hi.\n\n---\n\nThe rest.\n")
    assert "ANNA: Hello." in read_book(tmp_path / "a.md").chapters[0].text
    (tmp_path / "a.md").write_text("---\nNote: the first (I: mine) was lost: yes.\n\n---\n\nThe rest.\n")
    assert "was lost: yes." in read_book(tmp_path / "a.md").chapters[0].text
    (tmp_path / "a.md").write_text("%20 is a blank in an address.\n\nText.\n")
    assert read_book(tmp_path / "a.md").chapters[0].text.startswith("%20 is a blank")


@pytest.mark.parametrize(
    "facts",
    [
        "date: 2023-02-30",
        "title: [a, b]\nauthor: {first: X}",
        "tags: " + "[" * 3000,
        "title: 12\nauthor: [1]",
    ],
)
def test_odd_front_matter_breaks_nothing(tmp_path, facts):
    (tmp_path / "a.md").write_text(f"---\n{facts}\n---\n\nThe rest.\n")
    book = read_book(tmp_path / "a.md")
    assert book.chapters[0].text == "The rest."
    assert not {"{", "["} & set(book.title + book.author)


def test_a_page_is_read_in_the_code_page_that_it_names(tmp_path):
    text = '<html><head><meta charset="{}"></head><body><p>他說：「我們走吧。」</p></body></html>'
    for name in ("big5", "utf-8", "gb18030"):
        (tmp_path / "a.html").write_bytes(text.format(name).encode(name))
        assert read_book(tmp_path / "a.html").chapters[0].text == "他說：「我們走吧。」"


def test_html_pages_lose_what_nobody_reads_aloud():
    page = read_page(
        "<html><head><title>t</title><style>x</style></head><body><nav>menu</nav><p>One<script>x</script> two"
        ' <ruby>漢<rt>かん</rt></ruby>.</p><p hidden>no</p><img alt="A map" src="x"><p>* * *</p>'
        '<p>End<a href="#fn3">3</a></p><span class="pagenum">12</span></body></html>'
    )
    assert [(b.kind, b.text) for b in page.blocks] == [
        ("paragraph", "One two 漢."), ("paragraph", "A map"), ("break", ""), ("paragraph", "End"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.epub", b"no zip", "is named .epub and is none"),
        ("a.mobi", b"\0\1BOOKMOBI", "no format that can be read"),
        ("a.txt", b"  \n", "no text in it"),
        ("a.txt", b"\0\1\2binary", "binary data"),
        ("a.docx", b"PK\x03\x04broken", "cannot be read as DOCX"),
        ("a.pdf", b"%PDF-1.4 broken", "cannot be read as a PDF"),
    ],
)
def test_what_is_no_book_is_refused_with_words(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RequestError, match=words):
        read_book(tmp_path / name)


def test_old_code_pages_and_utf_16_are_read(tmp_path):
    (tmp_path / "a.txt").write_bytes("Über den Fluß.".encode("cp1252"))
    assert read_book(tmp_path / "a.txt").chapters[0].text == "Über den Fluß."
    (tmp_path / "b.txt").write_bytes("Über den Fluß.".encode("utf-16"))
    assert read_book(tmp_path / "b.txt").chapters[0].text == "Über den Fluß."


@pytest.mark.parametrize(
    "line", ["CHAPTER I.", "Chapter Twenty-One", "Prologue", "第十二章 雨", "XIV.", "Kapitel 3: Der Fluss"]
)
def test_chapter_lines_are_known(line):
    assert is_chapter_line(line)


@pytest.mark.parametrize(
    "line", ["Chapter after chapter he read.", "I went home.", "Part of it was gone.", "Mix."]
)
def test_sentences_are_no_chapter_lines(line):
    assert not is_chapter_line(line)


def test_matter_around_the_book_is_known_by_its_name():
    assert part_of("Table of Contents") == part_of("目录") == part_of("Copyright © 1900") == "front"
    assert part_of("Index") == part_of("About the Author") == "back"
    assert part_of("The Index Card") == part_of("Chapter 1") == "body"


def test_a_heading_alone_joins_the_next_chapter():
    blocks = [Block("heading", "Part One", 1), Block("heading", "One", 1), Block("paragraph", "Text.")]
    (chapter,) = split_chapters(blocks, title="x")
    assert chapter.title == "Part One. One"


def test_notes_of_word_processors_are_left_out():
    page = read_page(
        '<p>Cold.<sup><a href="#footnote-2" id="footnote-ref-2">[1]</a></sup> Wet.'
        '<a class="sdfootnoteanc" href="#sdfootnote1sym"><sup>1</sup></a></p>'
        '<ol><li>First.</li><li id="footnote-2"><p>A note. <a href="#footnote-ref-2">↑</a></p></li></ol>'
        '<div id="sdfootnote1"><p class="sdfootnote"><a href="#sdfootnote1anc">1</a>A note.</p></div>'
        '<p class="MsoFootnoteText"><a href="#_ftnref1">[1]</a> A note.</p>'
    )
    assert [(b.kind, b.text) for b in page.blocks] == [("paragraph", "Cold. Wet."), ("item", "First.")]


def test_an_item_with_a_way_to_the_top_is_no_note():
    page = read_page(
        '<ul><li>How do I start? Press it. <a href="#top">↑</a></li><li>x<a href="#n">^</a>2 y</li></ul>'
    )
    assert [b.text for b in page.blocks] == ["How do I start? Press it. ↑", "x^2 y"]


def test_a_picture_is_told_once_and_its_file_never():
    page = read_page(
        '<figure><img alt="A map"><figcaption>A map</figcaption></figure><p>Then.</p><p>A map</p>'
        '<img alt="images/image0001.png"><p>End.</p>'
    )
    assert [b.text for b in page.blocks] == ["A map", "Then.", "A map", "End."]


def test_a_title_page_inside_the_front_matter_is_left_out(tmp_path):
    front = '<section epub:type="titlepage"><h1>The Sea</h1><p>A. Writer</p></section>'
    path = epub(tmp_path / "sea.epub", pages={"copyright.xhtml": front, **dict(list(PAGES.items())[1:])})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "new.epub", "w") as new:
        for info in old.infolist():
            new.writestr(
                info, old.read(info).replace(b"<body><section", b'<body epub:type="frontmatter"><section')
            )
    assert [c.part for c in read_book(tmp_path / "new.epub").chapters][:2] == ["front", "body"]


def test_chapters_of_an_outline_begin_where_they_stand_on_the_page(tmp_path):
    from pypdf import PdfWriter

    lines = ["Preface", "This was written in a tower.", "Of the Stairs", "The keeper climbed."]
    writer = PdfWriter(clone_from=pdf(tmp_path / "a.pdf", [lines]))
    for title in ("Preface", "Of the Stairs"):
        writer.add_outline_item(title=title, page_number=0)
    writer.write(tmp_path / "b.pdf")
    book = read_book(tmp_path / "b.pdf")
    assert [(c.title, c.text.partition("\n\n")[2]) for c in book.chapters] == [
        ("Preface", "This was written in a tower."),
        ("Of the Stairs", "The keeper climbed."),
    ]
