"""Clean-up that loses no word: line ends of every system, odd blanks, marks without sound, wide letters.

Nothing here knows what the text is about; lines are joined in `layout`.
"""

from __future__ import annotations

import unicodedata

import regex

_TERMINAL = regex.compile(r"\x1b(?:\[[0-9;?]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b\n]{0,400}(?:\x07|\x1b\\))")
_LINE_ENDS = regex.compile(r"\r\n|[\r\u0085\u2028\v]")
_INAUDIBLE = regex.compile(
    # Lone surrogates, controls, zero-width and direction marks, the soft hyphen (with a break after it), the
    # order mark. The zero-width joiner stays between parts of an emoji.
    r"\u00ad[ \t]*\n?|(?<![\p{Emoji_Presentation}\uFE0F\U0001F3FB-\U0001F3FF])\u200d|"
    r"[\uD800-\uDFFF\x00-\x08\x0e-\x1f\x7f-\x9f\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
_BLANKS = regex.compile(r"[\t\f\u2000-\u2008\u200a\u205f\u3000]")
_NARROW = regex.compile(r"\u2009")
_WIDE = regex.compile(
    r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff05\uff04\uff0b\uff1d\uff20\uff03\uff06\uff0f\uff0d\uff0a\uffe1\uffe5]"
)
_WIDE_POINT = regex.compile(r"(?<=\d)．(?=\d)")
_COMPATIBLE = regex.compile(
    r"[\ufb00-\ufb06\u2100-\u2101\u2105\u2116\u3371-\u33df\u3200-\u3243\u3280-\u32b0\u3300-\u3357\u2460-\u249b\u24ea]"
)
_PARAGRAPH = regex.compile(r"\u2029")


def clean(text: str) -> str:
    """The text with "\\n" line ends, plain blanks and no sign that has no sound.

    No-break and narrow blanks stay: a number may be grouped by them.
    """
    if "\x1b" in text:
        text = _TERMINAL.sub("", text)  # colours of a terminal
    text = _LINE_ENDS.sub("\n", text)
    text = _PARAGRAPH.sub("\n\n", text)
    text = _BLANKS.sub(" ", text)
    text = _NARROW.sub("\u202f", text)
    text = _INAUDIBLE.sub("", text)
    text = unicodedata.normalize("NFC", text)
    text = _COMPATIBLE.sub(_compatible, text)
    text = _WIDE_POINT.sub(".", text)
    return _WIDE.sub(lambda hit: unicodedata.normalize("NFKC", hit[0]), text)


def _compatible(hit: regex.Match[str]) -> str:
    """Ligatures, squared units and circled numbers as the letters and digits in them."""
    character = hit[0]
    plain = unicodedata.normalize("NFKC", character)
    if character in "℀℁℅":
        return {"℀": "a/c", "℁": "a/s", "℅": "c/o"}[character]
    if "\u2460" <= character <= "\u24ea":
        return plain.strip("().") + " "
    return character if character == "№" else plain.replace("⁄", "/")
