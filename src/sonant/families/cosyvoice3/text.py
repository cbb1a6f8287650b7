"""Text rules: what is read out how, where text is cut, and the markers of the tokenizer.

Source: the original's `CosyVoiceFrontEnd.text_normalize` and `split_paragraph`, in their order.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

from sonant.text.bounds import LONGEST_NUMBER

log = logging.getLogger(__name__)

Normalizer = Literal["off", "none", "wetext"]
"""Off leaves text as it is; none splits it and spells English numbers; wetext adds its grammars."""

SYSTEM_SENTENCE = "You are a helpful assistant."
END_OF_PROMPT = "<|endofprompt|>"

MAX_LENGTH, MIN_LENGTH, MERGE_LENGTH = 80, 60, 20
"""A segment closes when the next would take it over 80 and it has over 60; a tail below 20 is joined."""
CHINESE_STOPS = "。？！；：、.?!;"
OTHER_STOPS = ".?!;:"
CLOSING_QUOTES = ('"', "”")
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_TAG = re.compile(r"\[[^\[\]\s]{1,20}\]|</?[a-z]{1,12}>")

_MARKS = """
<|endoftext|> <|im_start|> <|im_end|> <|endofprompt|>
[breath] <strong> </strong> [noise] [laughter] [cough] [clucking] [accent] [quick_breath]
<laughter> </laughter> [hissing] [sigh] [vocalized-noise] [lipsmack] [mn] <|endofsystem|>
"""
_PINYIN = """
a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu ià iàn iàng iào iá ián iáng iáo iè ié iòng ióng
iù iú iā iān iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ j k l m n o ong ou p q r s sh t u uang ue un
uo uà uài uàn uàng uá uái uán uáng uè ué uì uí uò uó uā uāi uān uāng uē uě uī uō uǎ uǎi uǎn uǎng uǐ uǒ vè
w x y z zh à ài àn àng ào á ái án áng áo è èi èn èng èr é éi én éng ér ì ìn ìng í ín íng ò òng òu ó óng
óu ù ùn ú ún ā āi ān āng āo ē ēi ēn ēng ě ěi ěn ěng ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ ǐn ǐng ǒ
ǒng ǒu ǔ ǔn ǘ ǚ ǜ
"""
_ARPABET_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"  # they also come with a stress, 0 to 2
_ARPABET = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
)


def special_tokens() -> list[str]:
    """Markers the tokenizer gets beside its vocabulary; their order fixes their ids.

    Source: the original's `CosyVoice3Tokenizer`.
    """
    tokens = _MARKS.split()
    for sound in _ARPABET.split():
        tokens.append(f"[{sound}]")
        if sound in _ARPABET_VOWELS.split():
            tokens += [f"[{sound}{stress}]" for stress in range(3)]
    return tokens + [f"[{part}]" for part in _PINYIN.split()]


MARKS = "|".join(re.escape(token) for token in sorted(special_tokens(), key=len, reverse=True))
"""A pattern of the tokenizer's own marks, that a front end must not read."""


class _Unreadable(Exception):
    """The grammars gave up on a text."""


class TextRules:
    """Text -> segments to speak. `length` counts the tokens of a text, for languages but Chinese.

    With `as_original` the original's faults stay, for comparisons: the grammars' \\" for a double quote, and
    tags they change ([AA1] becomes [AAone] and is no longer one).
    """

    def __init__(self, length: Callable[[str], int], *, as_original: bool = False) -> None:
        self._length = length
        self._as_original = as_original

    def segments(self, text: str, *, normalizer: Normalizer, reads_numbers: bool = True) -> list[str]:
        """Segments of a text, each a few sentences; none when there are only marks in it.

        A text with markers such as <|endofprompt|>, and any text with `normalizer` "off", is one segment.
        """
        if _is_untouched(text, normalizer):
            return [text]
        whole, language = self._read_out(text.strip(), normalizer, reads_numbers)
        if not whole:
            return []
        return [s for s in self._split(whole, language) if not _is_only_marks(s)]

    def whole(self, text: str, *, normalizer: Normalizer) -> str:
        """The text as it is read out, in one piece."""
        return text if _is_untouched(text, normalizer) else self._read_out(text.strip(), normalizer, True)[0]

    def _read_out(self, text: str, normalizer: Normalizer, reads_numbers: bool) -> tuple[str, str]:
        language = "zh" if _CHINESE.search(text) else "en"
        try:
            changed = self._apply(text, language, normalizer, reads_numbers)
        except _Unreadable:
            changed = ""
        if self._as_original and changed:
            return changed, language
        if changed and Counter(_TAG.findall(changed)) == Counter(_TAG.findall(text)):
            return changed, language
        # The grammars stumble over a tag, or the rules spell its digit: keep tags, read out what is between.
        pieces = re.split(f"({_TAG.pattern})", text)
        for index in range(0, len(pieces), 2):
            pieces[index] = self._piece(pieces[index], language, normalizer, reads_numbers)
        return "".join(pieces), language

    def _piece(self, text: str, language: str, normalizer: Normalizer, reads_numbers: bool) -> str:
        """A text between tags, read out, with its own blanks at both ends."""
        inner = text.strip()
        if not inner:
            return text
        try:
            changed = self._apply(inner, language, normalizer, reads_numbers)
        except _Unreadable:
            log.warning("the grammars cannot read %r; only its numbers are spelled", inner[:60])
            changed = self._apply(inner, language, "none", reads_numbers)
        return text.replace(inner, changed, 1)

    def _apply(self, text: str, language: str, normalizer: Normalizer, reads_numbers: bool) -> str:
        if language == "zh":
            if normalizer == "wetext":
                text = self._grammar(0, text)
            text = remove_blanks(text.replace("\n", ""))
            text = text.replace("²", "平方").replace("³", "立方")
            text = text.replace(".", "。").replace(" - ", "，")
            for mark in "（）【】`":
                text = text.replace(mark, "")
            text = text.replace("——", " ")
            return re.sub(r"[，,、]+$", "。", text)
        if not reads_numbers:
            return text
        if normalizer == "wetext":
            text = self._grammar(1, text)
        return self.spell_numbers(text)

    @cached_property
    def _wetext(self) -> tuple[Any, Any]:
        from wetext import Normalizer as Wetext

        return Wetext(remove_erhua=False), Wetext()

    def _grammar(self, which: int, text: str) -> str:
        try:
            read: str = self._wetext[which].normalize(text)
        except (AssertionError, LookupError, RuntimeError, ValueError) as error:  # wetext has none of its own
            raise _Unreadable from error
        return read if self._as_original else read.replace('\\"', '"')

    @cached_property
    def _inflect(self) -> Any:
        import inflect

        return inflect.engine()

    def spell_numbers(self, text: str) -> str:
        """Every run of digits as English words, letter by letter of the text around it unchanged."""
        parts: list[str] = []
        digits = ""
        for character in text:
            if character.isdigit():
                digits += character
                continue
            if digits:
                parts.append(self._number(digits))
                digits = ""
            parts.append(character)
        if digits:
            parts.append(self._number(digits))
        return "".join(parts)

    def _number(self, digits: str) -> str:
        if len(digits) > LONGEST_NUMBER:  # inflect has no word for it and raises
            return " ".join(self._inflect.number_to_words(digit) for digit in digits)
        words: str = self._inflect.number_to_words(digits)
        return words

    def _split(self, text: str, language: str) -> list[str]:
        """Sentences merged into segments; the text gets a full stop where it has none."""
        stops = CHINESE_STOPS if language == "zh" else OTHER_STOPS
        length = len if language == "zh" else self._length
        if text[-1] not in stops:
            text += "。" if language == "zh" else "."
        segments: list[str] = []
        current = ""
        for sentence in sentences(text, stops):
            if length(current + sentence) > MAX_LENGTH and length(current) > MIN_LENGTH:
                segments.append(current)
                current = ""
            current += sentence
        if current:
            if segments and length(current) < MERGE_LENGTH:
                segments[-1] += current
            else:
                segments.append(current)
        return segments


def _is_untouched(text: str, normalizer: Normalizer) -> bool:
    return normalizer == "off" or not text or ("<|" in text and "|>" in text)


def _is_only_marks(text: str) -> bool:
    return all(unicodedata.category(character)[0] in "PS" for character in text)


def sentences(text: str, stops: str) -> list[str]:
    """Pieces of a text, each with the stop that ends it and a quote that follows the stop.

    A stop right after another one is dropped, as the original drops it.
    """
    found: list[str] = []
    start = 0
    for index, character in enumerate(text):
        if character not in stops:
            continue
        if index > start:
            found.append(text[start : index + 1])
        quoted = index + 1 < len(text) and text[index + 1] in CLOSING_QUOTES
        if quoted and found:
            found[-1] += text[index + 1]
        start = index + 2 if quoted else index + 1
    return found


def remove_blanks(text: str) -> str:
    """The text without blanks, except those between two ASCII characters that are not blank themselves."""
    kept = []
    for index, character in enumerate(text):
        if character == " ":
            # Parity: before the first character the original looks at the last one.
            neighbours = text[index - 1] + text[index + 1 : index + 2]
            if len(neighbours) < 2 or not neighbours.isascii() or " " in neighbours:
                continue
        kept.append(character)
    return "".join(kept)
