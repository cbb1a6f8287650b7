"""One line of text, read aloud by the rules of its languages. Marks pass untouched."""

from __future__ import annotations

from collections.abc import Sequence

import regex

from sonant.text import chinese, japanese
from sonant.text.european import WESTERN, rules_of
from sonant.text.language import passage_languages
from sonant.text.markup import PAUSE_PATTERN, PRONUNCIATION_PATTERN
from sonant.text.numerals import chinese as chinese_number
from sonant.text.numerals import ordinal
from sonant.text.rules import Change, Rules
from sonant.text.tables import table

READ = (*WESTERN, "chinese", "japanese")
"""Languages with rules. Text in any other is left as it is typed."""

_ORDINAL = regex.compile(r"\ue000(\d{1,9})\ue001")
_MARK = regex.compile(rf"{PAUSE_PATTERN}|{PRONUNCIATION_PATTERN}|\ue000\d{{1,9}}\ue001")
_NEEDS_READING = regex.compile(
    r"[^\p{L}\p{M}\s,.;:!?'\"“”‘’()\-–—…，。！？、；：「」『』《》（）¿¡]"
    r"|\p{L}\.|\p{Han}[IVX]{2}|[IVX]{2}\p{Han}|\p{L}/\p{L}|EE UU|SVP|RDV"
    r"|\b(?:Mr|Mrs|Dr|St|Mmes?|Mlles?|Mgr|Pr|Me|MM|Ste|[Bb]l?d|vs|[IVXLC]{1,8}(?:e|er|re|è|ère|ème|eme)?s?)\b"
)


def _rules(language: str) -> Rules | None:
    if language == "chinese":
        return chinese.rules()
    if language == "japanese":
        return japanese.rules()
    return rules_of(language) if language in WESTERN else None


def read_aloud(
    text: str,
    language: str,
    *,
    is_named: bool = False,
    marks: regex.Pattern[str] | None = None,
    among: Sequence[str] = READ,
) -> tuple[str, list[Change]]:
    """The text with its numbers, signs and abbreviations in words, and what was changed.

    `language` is that of the text around it; where `is_named`, other languages with the same letters are not
    looked for. `among` are languages that the model speaks. `marks`
    are a model's own and pass untouched, as pause tags and pronunciations do.
    """
    if not _NEEDS_READING.search(text):
        return text, []
    if is_named:
        among = tuple({language, *(name for name in ("chinese", "japanese", "english") if name in among)})
    spans = passage_languages(text, language, among)
    if is_named:
        spans = [(a, b, _named(one, language, text[a:b])) for a, b, one in spans]
    out: list[str] = []
    changes: list[Change] = []
    for begin, end, spoken_in in spans:
        rules = _rules(spoken_in)
        for start, stop, mark in _stretches(text, begin, end, marks):
            if mark:
                number = _ORDINAL.fullmatch(mark)
                said = _ordinal(number[1], spoken_in) if number else mark
                if number:
                    changes.append(Change("say-as", number[1], said))
                out.append(said)
            elif rules is None:
                out.append(text[start:stop])
            else:
                said, made = rules.read(text, start, stop)
                out.append(said)
                changes += made
    return "".join(out), changes


def _named(found: str, named: str, text: str) -> str:
    """The language of a span where one is named: another only in a writing that the named one has not.

    In Chinese and Japanese, units and letters of formulas are no English: that takes three words.
    """
    east = ("chinese", "japanese")
    if (found in east) == (named in east):
        return named
    if named in east and len(_LATIN_WORD.findall(text)) < 3:
        return named
    return found


_LATIN_WORD = regex.compile(r"(?<![\p{L}\p{N}.@/_])\p{Latin}{2,}+(?![\p{L}\p{N}@/_]|\.\p{L})")


def _ordinal(digits: str, language: str) -> str:
    if language in ("chinese", "japanese"):
        return f"第{chinese_number(digits)}"
    return ordinal(table(language).code, int(digits)) if language in WESTERN else digits


def _stretches(
    text: str, begin: int, end: int, marks: regex.Pattern[str] | None
) -> list[tuple[int, int, str]]:
    """Text and marks in turn, each with its place; the text of a mark is given, that of text is empty."""
    found: list[tuple[int, int]] = [match.span() for match in _MARK.finditer(text, begin, end)]
    if marks:
        found += [match.span() for match in marks.finditer(text, begin, end)]
        found.sort()
    stretches: list[tuple[int, int, str]] = []
    place = begin
    for start, stop in found:
        if start < place:
            continue
        if start > place:
            stretches.append((place, start, ""))
        stretches.append((start, stop, text[start:stop]))
        place = stop
    if place < end:
        stretches.append((place, end, ""))
    return stretches
