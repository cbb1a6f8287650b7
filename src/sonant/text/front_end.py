"""Text as people write it -> text as it is spoken, for every model.

    clean-up -> SSML, Markdown, HTML -> paragraphs -> the language of each stretch -> reading -> parts

The parts come one by one, so a book begins to be spoken before its end is read; a text takes time in
proportion to its length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import regex

from sonant.text.cleaning import clean
from sonant.text.language import detect_language, language_name
from sonant.text.layout import Code, paragraphs
from sonant.text.markup import apply_glossary, split_pauses
from sonant.text.reading import READ, read_aloud
from sonant.text.rules import Change
from sonant.text.segment import Pauses
from sonant.text.ssml import Passage, is_ssml, read_ssml

Emoji = Literal["skip", "say"]

LONGEST_EXPANSION = 400_000
"""Characters that a text may have once its glossary is applied."""
PARAGRAPH_PAUSE = 0.4
"""Seconds added between paragraphs."""
SENTENCE_PAUSE = Pauses().sentence
"""Seconds between the stretches of a long paragraph: what segmentation leaves between its segments."""
LONG_PARAGRAPH = 2_000
"""Characters above which a paragraph is read some sentences at a time: it is begun before its end is read."""
SOME_SENTENCES = 600
"""Characters after which such a paragraph is cut, at the next end of a sentence that is one beyond doubt."""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a text is read: what the request says of it, and what the model is."""

    language: str | None = None
    """The named language; None finds it for each stretch."""
    spoken: Sequence[str] = ()
    """Languages of the model; none stands for any."""
    glossary: Mapping[str, str] = field(default_factory=dict)
    marks: regex.Pattern[str] | None = None
    """Marks of the model's own that pass untouched, such as <laughter> or <|token|>."""
    emoji: Emoji = "skip"
    code: Code = "say"

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the model that have rules; all of them where the model names none."""
        return tuple(name.lower() for name in self.spoken if name.lower() in READ) or READ


@dataclass(frozen=True)
class SpokenPart:
    """What is said in one breath of the plan: text without numbers or signs, and the silence after it."""

    text: str
    pause_after: float = 0.0
    """Seconds."""
    language: str | None = None
    """Where the text itself names one (SSML's lang)."""
    rate: float = 1.0
    changes: tuple[Change, ...] = ()


def read_text(text: str, options: ReadingOptions | None = None) -> Iterator[SpokenPart]:
    """The parts of a text in order. Raises RequestError for malformed SSML."""
    options = options or ReadingOptions()
    if is_ssml(text):
        passages, ignored = read_ssml(text)
        yield from _told(ignored)
    else:
        passages = [Passage(text)]
    named = language_name(options.language)
    whole = named or _main_language(text, options)
    for passage in passages:
        tagged = language_name(passage.language)
        yield from _read_passage(passage, options, whole=tagged or whole, is_named=bool(tagged or named))


def _told(ignored: Sequence[str]) -> Iterator[SpokenPart]:
    """A part without text that says what is not done."""
    if ignored:
        yield SpokenPart("", changes=tuple(Change("not done", name, "") for name in ignored))


def _main_language(text: str, options: ReadingOptions) -> str:
    among = options.languages
    if len(among) == 1:
        return among[0]
    found = detect_language(text, among=among)
    if found is None and regex.search(r"\p{L}{2}", text):
        return ""  # a writing without rules: its numbers stay as they are typed
    return found or ("english" if "english" in among else among[0])


def _read_passage(
    passage: Passage, options: ReadingOptions, *, whole: str, is_named: bool
) -> Iterator[SpokenPart]:
    text = apply_glossary(clean(passage.text), options.glossary, most=LONGEST_EXPANSION)
    blocks = paragraphs(text, code=options.code, kept=options.marks)
    for number, block in enumerate(blocks):
        is_last = number + 1 == len(blocks)
        language = whole if is_named else _block_language(block, whole, options.languages)
        for stretch, ends_block in _some_sentences(block):
            changes: list[Change] = []
            lines = []
            for line in stretch.split("\n"):
                line, made = _emoji(line, options.emoji, language)
                changes += made
                said, made = read_aloud(
                    line, language, is_named=is_named, marks=options.marks, among=options.languages
                )
                changes += made
                said = _tidied(said)
                if said:
                    lines.append(said)
            pieces = list(split_pauses("\n".join(lines)))
            for place, (piece, pause) in enumerate(pieces):
                if place + 1 == len(pieces):
                    pause += (
                        0.0 if ends_block and is_last else PARAGRAPH_PAUSE if ends_block else SENTENCE_PAUSE
                    )
                if piece.strip() or pause:
                    yield SpokenPart(
                        piece.strip(), pause, passage.language, passage.rate, () if place else tuple(changes)
                    )


_SURE_END = regex.compile(
    r"(?<=\p{Ll}{3}[.!?…][\"'”’»)]?)\s++(?=[\"'“‘«(¿¡]?\p{Lu})"
    r"|(?<=[。！？][”’」』）]?)(?=[\p{Han}\p{Hiragana}\p{Katakana}“‘「『（])"
)


def _some_sentences(block: str) -> Iterator[tuple[str, bool]]:
    """A paragraph in stretches, and whether each is its last; one of LONG_PARAGRAPH characters is whole."""
    begin = 0
    while len(block) - begin > LONG_PARAGRAPH:
        end = _SURE_END.search(block, begin + SOME_SENTENCES)
        if end is None or end.end() == len(block):
            break
        yield block[begin : end.start()], False
        begin = end.end()
    yield block[begin:], True


def _block_language(block: str, whole: str, among: tuple[str, ...]) -> str:
    """The language of a paragraph: another than that of the text only where most of it is."""
    found = detect_language(block, among=among)
    if found is None or found == whole:
        return whole
    letters = regex.findall(r"\p{L}", block)
    if len(letters) < 8 and found == "english":
        return whole
    east = {"chinese", "japanese", "korean"}
    if (found in east) != (whole in east) or found == "russian" or whole == "russian":
        return found
    return (
        found if found in east else whole
    )  # between Latin languages, sentence by sentence in passage_languages


_EMOJI = regex.compile(
    r"(?:[\p{Extended_Pictographic}--[©®™↔↕←-⇿✓✔✗✘★☆♪♫♥♦♣♠☑〰〽㊗㊙‼⁉ℹ]]|\p{Regional_Indicator}{2}|[0-9#*]\uFE0F?\u20E3)"
    r"[\uFE0F\U0001F3FB-\U0001F3FF\U000E0020-\U000E007F]*+(?:\u200d\p{Extended_Pictographic}[\uFE0F\U0001F3FB-\U0001F3FF]*+)*+",
    regex.VERSION1,
)
_EMOJI_CODES = {
    "english": "en", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "portuguese": "pt",
    "russian": "ru", "chinese": "zh", "japanese": "ja", "korean": "ko",
}  # fmt: skip


def _emoji(line: str, how: Emoji, language: str) -> tuple[str, list[Change]]:
    """The line without its emoji, or with their names."""
    if line.isascii():
        return line, []
    changes: list[Change] = []

    def read(hit: regex.Match[str]) -> str:
        keycap = hit[0][0] if hit[0][0] in "0123456789#*" else ""
        said = ""
        if how == "say":
            import emoji

            name = emoji.demojize(hit[0], language=_EMOJI_CODES.get(language, "en"), delimiters=("", ""))
            said = (
                " " + name.replace("_", " ").replace("-", " ").replace(":", " ") + " "
                if name != hit[0]
                else ""
            )
        changes.append(Change("emoji", hit[0], (said or keycap).strip()))
        return said or (f" {keycap} " if keycap else " ")

    said = _EMOJI.sub(read, line)
    return regex.sub(r"[\u200d\uFE0F\uFE0E]", "", said), changes


_BLANKS = regex.compile(r"[ \u00a0\u202f]{1,}+")
_BEFORE_MARK = regex.compile(r"(?<=\S) (?=[.,](?:\s|$|[\"”’)])|[，。！？；：、])")
_EAST_GAP = regex.compile(r"(?<=[。，！？；：、]) +")


def _tidied(said: str) -> str:
    """One blank between words, none before a mark."""
    said = _BLANKS.sub(" ", said).strip()
    said = _BEFORE_MARK.sub("", said)
    return _EAST_GAP.sub("", said)


def spoken_text(text: str, language: str | None = None) -> str:
    """The whole text as it is spoken, a line end between parts."""
    parts = read_text(text, ReadingOptions(language=language))
    out = ""
    for part in parts:
        joint = (
            ""
            if not out or not part.text
            else "\n"
            if out.endswith((".", "!", "?", "。", "！", "？", "…"))
            else " "
        )
        out += joint + part.text
    return out
