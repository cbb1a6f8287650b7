"""Books as other programs write them, made by hand: an EPUB 3 and 2, a DOCX, a PDF."""

import io
import struct
import zipfile
import zlib

import pytest

pytest.importorskip("bs4")

NOTES = '<sup><a epub:type="noteref" href="#n1">1</a></sup>'
PAGES = {
    "copyright.xhtml": "<h1>Copyright</h1><p>All rights reserved.</p>",
    "one.xhtml": f'<h1 id="c1">Chapter 1</h1><p>The sea was calm.{NOTES} Nobody spoke.</p><hr/>'
    '<p>Later, it rose.</p><aside epub:type="footnote" id="n1"><p>A note.</p></aside>',
    "more.xhtml": "<p>It went on.</p>",
    "two.xhtml": '<h1 id="c2">Chapter 2</h1><p>A ship came<br/>from far away.</p><h2 id="c3">Three</h2>'
    "<blockquote><p>Land!</p></blockquote>",
}


CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
PAGE = '<?xml version="1.0"?><html><head><title>x</title></head><body>{}</body></html>'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml"


def picture(width=4, height=6):
    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80\x20\x20" * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    )


def epub(path, *, version=3, pages=PAGES, contents=True, extra=()):
    """An EPUB whose contents name the copyright page, chapter 1, chapter 2 and a place inside it."""
    entries = [("Copyright", "copyright.xhtml"), ("Chapter 1", "one.xhtml"), ("Chapter 2", "two.xhtml#c2")]
    entries.append(("Three", "two.xhtml#c3"))
    items = "".join(
        f'<item id="p{n}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for n, name in enumerate(pages)
    )
    spine = "".join(f'<itemref idref="p{n}"/>' for n in range(len(pages)))
    nav = "".join(f'<li><a href="text/{file}">{title}</a></li>' for title, file in entries)
    points = "".join(
        f"<navPoint><navLabel><text>{title}</text></navLabel><content src='text/{file}'/></navPoint>"
        for title, file in entries
    )
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OPS/book.opf": f'<package version="{version}.0" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        "<dc:title>The Sea</dc:title><dc:creator>A. Writer</dc:creator><dc:language>en</dc:language>"
        '<meta name="cover" content="cover"/></metadata><manifest>'
        '<item id="cover" href="cover.png" media-type="image/png"/>'
        + ('<item id="nav" href="nav.xhtml" properties="nav"/>' if version == 3 and contents else "")
        + ('<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>' if contents else "")
        + f'{items}</manifest><spine toc="ncx">{spine}</spine></package>',
        "OPS/nav.xhtml": f'<html><body><nav epub:type="toc"><ol>{nav}</ol></nav></body></html>',
        "OPS/toc.ncx": f"<ncx><navMap>{points}</navMap></ncx>",
        "OPS/cover.png": picture(),
        **{f"OPS/text/{name}": PAGE.format(body) for name, body in pages.items()},
        **dict(extra),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def docx(path, paragraphs):
    """A DOCX of (style, text) pairs."""
    names = {"Title": "Title", "Heading1": "Heading 1", "": "Normal"}
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{key}"><w:name w:val="{name}"/></w:style>'
        for key, name in names.items()
        if key
    )
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    rels = f'<Relationships xmlns="{PACKAGE}/relationships">'
    files = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">'
        f'<Override PartName="/word/document.xml" ContentType="{WORD}.document.main+xml"/>'
        f'<Override PartName="/word/styles.xml" ContentType="{WORD}.styles+xml"/></Types>',
        "_rels/.rels": f'{rels}<Relationship Id="r1" Type="{OFFICE}/officeDocument" '
        'Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'{rels}<Relationship Id="r2" Type="{OFFICE}/styles" '
        'Target="styles.xml"/></Relationships>',
        "word/styles.xml": f"<w:styles {space}>{styles}</w:styles>",
        "word/document.xml": f"<w:document {space}><w:body>{body}</w:body></w:document>",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def pdf(path, pages):
    """A PDF whose pages hold these lines, in Helvetica."""
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        marks = "".join(f"({line}) Tj 0 -14 Td " for line in lines)
        stream = f"BT /F1 12 Tf 72 760 Td {marks}ET".encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
        kids.append(len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (
        len(kids), b" ".join(b"%d 0 R" % kid for kid in kids),
    )  # fmt: skip
    places = []
    for number, data in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, data))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))
    path.write_bytes(out.getvalue())
    return path
