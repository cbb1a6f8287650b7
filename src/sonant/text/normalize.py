"""Written text -> text as it is read aloud: numbers, dates, units, money and signs as words, by language.

Chinese and English go through the grammars of the package wetext, the other languages through number_words.
Inline marks such as `[pause:1s]`, `[word](/phonemes/)`, `<strong>` or `<|token|>` pass untouched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import regex

from sonant.text.language import detect_language
from sonant.text.markup import PAUSE_PATTERN, PRONUNCIATION_PATTERN, apply_glossary
from sonant.text.number_words import LONGEST_NUMBER, READINGS, read_numbers, spell_digits

logger = logging.getLogger(__name__)

PIECE = 120  # characters given to a grammar at once; its time grows faster than the length
MOST_FOR_GRAMMAR = 3_000  # digits and signs of one text; at about 1 ms each, 3 s. The rest is read plainly


def normalize(text: str, language: str | None = None, *, glossary: Mapping[str, str] | None = None) -> str:
    """`text` as it is read aloud in `language` (a name such as "german"; None or "auto" detects it).

    A language without rules leaves the text as it is but for the glossary. Characters that mean nothing in
    speech (lone surrogates, control and direction marks) are left out.
    """
    text = _INAUDIBLE.sub("", text)
    if glossary:
        text = apply_glossary(text, glossary)
    name = (language or "auto").lower()
    if name == "auto":
        name = detect_language(text) or ""
    if name != "chinese" and name not in READINGS:
        return text
    budget = MOST_FOR_GRAMMAR
    parts: list[str] = []
    for stretch, is_mark in _stretches(text):
        if is_mark or not _NEEDS_READING.search(stretch):
            parts.append(stretch)
        elif name in ("chinese", "english"):
            read, budget = _read_by_grammar(stretch, name, budget)
            parts.append(read)
        else:
            parts.append(read_numbers(stretch, name))
    return "".join(parts)


# Lone surrogates; control characters but tab and line ends; zero-width and direction marks.
_INAUDIBLE = regex.compile(
    r"[\uD800-\uDFFF\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]+"
)
_MARK = regex.compile(
    rf"{PAUSE_PATTERN}|{PRONUNCIATION_PATTERN}|<\|[^<>|\n]{{1,60}}\|>|</?[A-Za-z][A-Za-z_]{{0,30}}>|\[[A-Za-z_]{{1,30}}\]"
)
_NEEDS_READING = regex.compile(r"[\p{N}$€£¥₩₽%‰&@°=+×÷±#]|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|approx)\.")
_LONG_DIGITS = regex.compile(rf"[0-9０-９]{{{LONGEST_NUMBER + 1},}}+")
_LONG_TOKEN = regex.compile(r"[0-9０-９][0-9０-９.,:/%+*=^~\-]{40,}+")
_DECADE = regex.compile(r"\b(1[1-9]|20)([1-9])0s\b")
_MONEY = regex.compile(
    r"[$€£](?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]{1,9}+)(?:\.[0-9]{2})?(?![0-9]|[.,][0-9])(?!\s?(?:[kmbt]n?|[mbtr]illion))"
)
_NUMBER_SIGN = regex.compile(r"\bNo\.(?=\s?[0-9])|#(?=[0-9])")
_CHINESE_DIGITS = "零一二三四五六七八九"


def _stretches(text: str) -> Iterator[tuple[str, bool]]:
    """Text and marks in turn."""
    start = 0
    for mark in _MARK.finditer(text):
        yield text[start : mark.start()], False
        yield mark[0], True
        start = mark.end()
    yield text[start:], False


def _read_by_grammar(text: str, language: str, budget: int) -> tuple[str, int]:
    """The text read by wetext, and how many digits and signs may still go through it."""
    spell = _spell_chinese if language == "chinese" else _spell_english
    text = _LONG_TOKEN.sub(lambda hit: regex.sub(r"[0-9０-９]+", lambda run: spell(run[0]), hit[0]), text)
    text = _LONG_DIGITS.sub(lambda hit: spell(hit[0]), text)
    if language == "english":
        text = _DECADE.sub(_decade, text)  # wetext reads 1990s as so many seconds
        text = _MONEY.sub(lambda hit: read_numbers(hit[0], "english"), text)  # and $2.50 as two point five
        text = _NUMBER_SIGN.sub("number ", text).replace("number  ", "number ")
    read: list[str] = []
    for piece in _pieces(text):
        if not _NEEDS_READING.search(piece):
            read.append(piece)
            continue
        cost = len(_NEEDS_READING.findall(piece))
        if budget < cost:
            if budget >= 0:
                logger.warning(
                    "the text has more than %d digits and signs; the rest is read by simpler rules",
                    MOST_FOR_GRAMMAR,
                )
            budget = -1
            read.append(_read_plainly(piece, language))
            continue
        budget -= cost
        core = piece.strip()
        start = piece.index(core)
        read.append(piece[:start] + _grammar_or_plain(core, language) + piece[start + len(core) :])
    return "".join(read), budget


def _pieces(text: str) -> Iterator[str]:
    """Stretches of at most PIECE characters, cut between words and never inside a number where avoidable."""
    for line in regex.findall(r"[^\n]*\n+|[^\n]+", text):
        start = 0
        while len(line) - start > PIECE:
            window = line[start : start + PIECE]
            cut = max(window.rfind(mark) + len(mark) for mark in (". ", "? ", "! ", "。", "！", "？"))
            if cut < PIECE // 3:
                cut = max(window.rfind(mark) + 1 for mark in (" ", "，", "、", "；"))
            if cut < PIECE // 3:
                cut = next((i for i in range(PIECE - 1, PIECE // 3, -1) if window[i - 1].isalpha()), PIECE)
            yield line[start : start + cut]
            start += cut
        yield line[start:]


@lru_cache(maxsize=2)
def _grammar(code: str) -> Any:
    from wetext import Normalizer

    return Normalizer(lang=code, remove_erhua=False)


def _grammar_or_plain(text: str, language: str) -> str:
    try:
        read = _grammar("zh" if language == "chinese" else "en").normalize(text)
    except (AssertionError, RuntimeError, ValueError) as error:  # English: some characters it does not know
        logger.debug("wetext gave up on %r (%s); the plain rules read it", text, error)
        return _read_plainly(text, language)
    return regex.sub(r'\\(["\\])', r"\1", read)  # wetext escapes quotes and backslashes


def _read_plainly(text: str, language: str) -> str:
    if language == "chinese":
        return regex.sub(r"[0-9０-９]+", lambda run: _spell_chinese(run[0]), text)
    return read_numbers(text, language)


def _spell_chinese(digits: str) -> str:
    return "".join(_CHINESE_DIGITS[int(digit)] for digit in digits)


def _spell_english(digits: str) -> str:
    return spell_digits(digits, "english")


def _decade(hit: regex.Match[str]) -> str:
    tens = [
        "ten",
        "twenties",
        "thirties",
        "forties",
        "fifties",
        "sixties",
        "seventies",
        "eighties",
        "nineties",
    ]
    return f"{read_numbers(hit[1], 'english')} {tens[int(hit[2]) - 1]}"
