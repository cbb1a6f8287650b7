"""IndexTTS-2.5's text front end: text and a language code -> segments of ids.

    text -> characters mapped -> read out -> case -> annotations -> blanks (Japanese) -> segments -> ids

Each step is a method, in this order. `original` (what `normalize="original"` asks for) follows the original
to the letter; without it numbers are read before the characters are mapped (so that 8:30 is still a time),
languages whose numbers the original leaves as digits are read by Sonant's rules, and the Japanese blanks
leave special tokens whole.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sonant.errors import RequestError
from sonant.families.indextts2.front_end import ReadingMode, SegmentIds
from sonant.families.indextts2.options import IndexOptions
from sonant.families.indextts2.segments import split_by_tokens
from sonant.families.indextts2.text import ANNOTATION, Normaliser, Shelf, map_characters
from sonant.families.indextts2.vocabulary import COMMON, LANGUAGES, Vocabulary, language_row
from sonant.request.speech import LANGUAGE_CODES, language_name
from sonant.text.language import detect_language
from sonant.text.markup import PRONUNCIATION
from sonant.text.reading import read_aloud

_log = logging.getLogger(__name__)

CODES = {"chinese": "zh", "english": "en", "japanese": "ja", "spanish": "es", "arabic": "ar"}
"""The languages that IndexTTS-2.5 was trained to speak, and their codes."""
READ_BY_CONTENT = ("zh", "zhen", "en")
"""Codes whose text the Chinese and English grammars read; which of the two, the text decides."""
STOP = 1
"""Appended to the ids of a segment. Parity: the GPT drops it and puts its own stop row there, but the row is
counted."""
LOWER, UPPER = ("ja", "zh", "zhen", "en"), ("es",)

_SPECIAL = re.compile(r"<\|([^|]+)\|>")
_KANA = re.compile(r"[\u3040-\u309F]+|[\u30A0-\u30FF]+")
_IDEOGRAPH = re.compile(r"[\u4e00-\u9fff]")
_ARABIC = re.compile(r"[\u0600-\u06FF\u0750-\u077F]")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"(\d{1,15})(?:[.,٫](\d{1,15}))?")
_KEPT_WHOLE = re.compile(rf"{ANNOTATION.pattern}|{_SPECIAL.pattern}")


def find_language(text: str) -> str:
    """The code of the likeliest of the five languages."""
    if len(_ARABIC.findall(text)) * 2 > sum(letter.isalpha() for letter in text):
        return "ar"
    return CODES[detect_language(text, among=CODES) or "english"]


def annotate(text: str) -> str:
    """`<word|pronunciation>` as the model knows it, in capitals: kana bare, the rest between two marks."""

    def mark(found: re.Match[str]) -> str:
        word, spoken = found[1], found[2].upper()
        if _KANA.fullmatch(spoken):
            return f" {spoken} "
        token = f"<|SPECIAL_TOKEN_{2 if _IDEOGRAPH.search(word) else 1}|>"
        return f"{token}{spoken}{token}"

    return ANNOTATION.sub(mark, text)


def _as_annotation(found: re.Match[str]) -> str:
    """`[word](/phonemes/)`, which every model of Sonant knows, as `<word|phonemes>`."""
    word, _, phonemes = found[0][1:-2].partition("](/")
    return f"<{word}|{phonemes}>"


def _arabic_words(found: re.Match[str]) -> str:
    from num2words import num2words

    words = [str(num2words(int(part), lang="ar")) for part in found.groups() if part is not None]
    return " فاصلة ".join(words)


@lru_cache(maxsize=1)
def japanese_tagger() -> Any | None:
    """MeCab with unidic-lite, or None where the extra is not installed."""
    try:
        import fugashi
        import unidic_lite  # noqa: F401  fugashi finds it by itself
    except ImportError:
        return None
    return fugashi.Tagger()


@lru_cache(maxsize=1)
def spanish_grammar() -> Callable[[str], str] | None:
    """NeMo's Spanish grammar, which the original uses where it is installed, or None.

    kitten-text-processing runs the same grammar without NeMo.
    """
    try:
        from kitten_text_processing import Normalizer
    except ImportError:
        return None
    grammar = Normalizer(lang="es")
    return lambda text: str(grammar.normalize(text))


def no_grammar() -> None:
    """In place of `spanish_grammar`: as if the extra were not installed."""
    return None


@dataclass(frozen=True, eq=False)
class MultilingualFrontEnd:
    """The front end of one checkpoint; `positions` are the rows of its text position table."""

    vocabulary: Vocabulary
    normaliser: Normaliser
    positions: int
    spanish: Callable[[], Callable[[str], str] | None] = spanish_grammar
    """Finds the grammar for Spanish that the original's way of reading takes."""

    def segments_of(
        self, text: str, language: str | None, options: IndexOptions, *, limit: int, reading: ReadingMode
    ) -> list[SegmentIds]:
        """Segments of a request, see `FrontEnd`."""
        code = options.language_code or CODES.get(language_name(language) or "") or find_language(text)
        code = code.lower()
        if code not in LANGUAGES and code not in READ_BY_CONTENT:
            _log.warning("the model knows no language %s; it speaks as for %r", code, COMMON)
        spoken = self.spoken(text, code, read_out=reading.out, original=reading.original)
        return self.segments(spoken, code, limit) if spoken.strip() else []

    def spoken(self, text: str, code: str, *, read_out: bool = True, original: bool = False) -> str:
        """The text as it goes to the vocabulary."""
        text = PRONUNCIATION.sub(_as_annotation, text)
        if original:
            text = self.mapped(text)
            text = self.read_out(text, code, original=True) if read_out else text
        else:
            text = self.mapped(self.read_out(text, code) if read_out else text)
        return self.final(self.annotated(self.cased(text, code), code, original=original))

    @staticmethod
    def mapped(text: str) -> str:
        """Signs as the model knows them, such as a comma for a colon."""
        return map_characters["en"](text)

    def read_out(self, text: str, code: str, *, original: bool = False) -> str:
        """Numbers and signs as words."""
        if code in READ_BY_CONTENT:
            return self.normaliser.normalise(text)
        if not original:
            return self._by_own_rules(text, code)
        if code != "es":
            self._tell_of_digits(text, code, "the original reads none in this language")
            return text
        grammar = self.spanish()
        if grammar is None:
            self._tell_of_digits(text, code, "the original's grammar is not installed (sonant[spanish])")
            return text
        try:
            return grammar(text)
        except Exception as error:  # Parity: the original then speaks the text as typed
            self._tell_of_digits(text, code, f"the original's grammar gave up ({error})")
            return text

    def _by_own_rules(self, text: str, code: str) -> str:
        """Sonant's own reading of numbers; marks and annotations stay."""
        kept = Shelf(lambda tag: f"PRONPLACEHOLDER{tag}PRONPLACEHOLDER")
        text = kept.put(ANNOTATION, text)
        if code == "ar":
            text = _NUMBER.sub(_arabic_words, text)
        elif (name := LANGUAGE_CODES.get(code)) is not None:
            text = read_aloud(text, name, is_named=True)[0]
        self._tell_of_digits(text, code, "there are no rules for them")
        return kept.restore(text)

    @staticmethod
    def _tell_of_digits(text: str, code: str, why: str) -> None:
        if found := _DIGITS.search(_KEPT_WHOLE.sub(" ", text)):
            _log.warning(
                "the model is given %s as digits (language %s): %s. Spell numbers out in words",
                found[0],
                code,
                why,
            )

    @staticmethod
    def cased(text: str, code: str) -> str:
        """In the case that the language was trained in."""
        if code in LOWER:
            return text.lower()
        return text.upper() if code in UPPER else text

    def annotated(self, text: str, code: str, *, original: bool = False) -> str:
        """Annotations as the model knows them, and Japanese with blanks between its words.

        Parity: with `original` MeCab tears special tokens apart, and cuts some kana annotations.
        """
        if code != "ja":
            return annotate(text)
        if japanese_tagger() is None:
            _log.warning(
                "Japanese was trained with blanks between words, which need MeCab; the text goes to the "
                "model without them. Install it with: pip install 'sonant[japanese]'"
            )
            return annotate(text)
        if original:
            return self.spaced(annotate(text))
        parts: list[str] = []
        start = 0
        for kept in _KEPT_WHOLE.finditer(text):
            parts += self.spaced(text[start : kept.start()]), annotate(kept[0])
            start = kept.end()
        return "".join((*parts, self.spaced(text[start:])))

    @staticmethod
    def spaced(text: str) -> str:
        """Japanese with a blank between two words, as it was trained, where there is MeCab; blanks stay."""
        tagger = japanese_tagger()
        if tagger is None:
            return text
        parts = re.split(r"( +)", text)
        return "".join(" ".join(w.surface for w in tagger(part)) if part.strip() else part for part in parts)

    @staticmethod
    def final(text: str) -> str:
        """Special tokens in capitals.

        Parity: those that hold small letters, such as a language's, can therefore not be written.
        """
        return _SPECIAL.sub(lambda found: f"<|{found[1].upper()}|>", text)

    def segments(self, spoken: str, code: str, limit: int) -> list[SegmentIds]:
        """Segments of at most `limit` ids each, the language's prefix included, the appended stop not.

        Raises RequestError where an annotation, which is never cut, does not fit the model.
        """
        prefix = f"<|{code}|> "
        encode = self.vocabulary.encode
        taken = len(encode(prefix))
        budget = max(1, min(limit, self.positions - 2) - taken)
        made: list[SegmentIds] = []
        for part in split_by_tokens(spoken, budget, lambda text: len(encode(text))):
            ids = encode(prefix + part)
            if len(ids) + 2 > self.positions:
                raise RequestError(
                    f"an annotated pronunciation of {len(ids) - taken} tokens fits no segment; expected at "
                    f"most {self.positions - 2 - taken}. Annotate shorter stretches.",
                    field="text",
                )
            made.append(SegmentIds(part, (*ids, STOP), language_row(code)))
        return made
