"""IndexTTS2's text front end: text -> spoken words -> sentencepiece pieces -> ids.

    text -> annotations, glossary, names, pinyin protected -> grammar -> character map
         -> blanks around CJK, upper case -> pieces; `segments.py` then cuts the pieces

The Chinese and the English path differ in their grammar and in what is protected from it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sonant.errors import CheckpointError, RequestError
from sonant.families.indextts2 import grammar
from sonant.families.indextts2.front_end import ReadingMode, SegmentIds
from sonant.families.indextts2.grammar import Reading
from sonant.families.indextts2.options import IndexOptions
from sonant.families.indextts2.segments import split_segments
from sonant.request.speech import language_name

READINGS: Mapping[str, Reading] = {"chinese": "zh", "english": "en"}
GlossaryEntry = str | Mapping[str, str]

_log = logging.getLogger(__name__)

# A pinyin syllable with its tone digit, not in the middle of a word: xuan4, lve4; not beta1 or voice2.
_INITIAL = r"(?:[bpmfdtnlgkhjqxzcsryw]|[zcs]h)?"
_FINAL = r"(?:[aeiouüv]|[ae]i|u[aio]|ao|ou|i[aue]|[uüv]e|[uvü]ang?|uai|[aeiuv]n|[aeio]ng|ia[no]|i[ao]ng)"
PINYIN = re.compile(rf"(?<![a-z])({_INITIAL}{_FINAL}|ng|er)([1-5])", re.IGNORECASE)
_LONG_PINYIN = rf"(?<![A-Za-z])(?:{_INITIAL}{_FINAL}|ng|er)(?<=[A-Za-zü]{{2}})[1-5](?![0-9])"
_HAN = r"[\u4e00-\u9fff]"
TEXT_MARKS = (
    rf"<[^|>\n]{{1,200}}\|[^>\n]{{1,200}}>|(?i:{_LONG_PINYIN})(?=[^\n]{{0,80}}{_HAN})"
    rf"|(?<={_HAN}[^\n]{{0,80}})(?i:{_LONG_PINYIN})"
)
"""A pattern of what a front end must not read: <word|pinyin>, and toned syllables beside ideographs. A letter
by itself with a digit, such as A4, is none."""
_NAME = re.compile(r"[\u4e00-\u9fff]+(?:[-·—][\u4e00-\u9fff]+){1,2}")
_CONTRACTION = re.compile(r"(what|where|who|which|how|t?here|it|s?he|that|this)'s", re.IGNORECASE)
_HYPHENATED = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)+")
ANNOTATION = re.compile(r"<([^|>\n]+)\|([^>\n]+)>")
_EMAIL = re.compile(r"^[a-zA-Z0-9]+@[a-zA-Z0-9]+\.[a-zA-Z]+$")
_FRONTED_U = re.compile(r"([jqx])[uü](n|e|an)*(\d)", re.IGNORECASE)
_CJK = re.compile(
    r"([\u1100-\u11ff\u2e80-\ua4cf\ua840-\uD7AF\uF900-\uFAFF\uFE30-\uFE4F\uFF65-\uFFDC"
    r"\U00020000-\U0002FFFF])"
)
_WORDS = re.compile(r"([A-Z]+(?:[\s'-][A-Z-]+)*)", re.IGNORECASE)
_WORDS_MARK = re.compile(r"(<sent_(\d+)>)")

# In this order: of two entries that start alike, the first wins.
_CHARACTERS: tuple[tuple[str, str], ...] = (
    *((mark, ",") for mark in "：；;，"),
    ("。", "."),
    ("！", "!"),
    ("？", "?"),
    ("\n", " "),
    ("·", "-"),
    ("、", ","),
    *((dots, "…") for dots in ("...", ",,,", "，，，", "……")),
    *((quote, "'") for quote in '“”"‘’（）()《》【】[]'),
    *((dash, "-") for dash in "—～~"),
    *((quote, "'") for quote in "「」"),
    (":", ","),
)


def _mapper(pairs: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    table = dict(pairs)
    pattern = re.compile("|".join(re.escape(mark) for mark in table))
    return lambda text: pattern.sub(lambda found: table[found.group()], text)


map_characters = {"en": _mapper(_CHARACTERS), "zh": _mapper((("$", "."), *_CHARACTERS))}


def reads_as_chinese(text: str) -> bool:
    """True when the text takes the Chinese path: an ideograph, no Latin letter, an address, or pinyin."""
    if re.search(r"[\u4e00-\u9fff]", text) or not re.search(r"[a-zA-Z]", text) or _EMAIL.match(text):
        return True
    return PINYIN.search(text) is not None


def correct_pinyin(syllable: str) -> str:
    """A toned syllable as the vocabulary spells it: ju4 -> JV4; those not in j, q, x stay as they are."""
    if syllable[0] not in "jqxJQX":
        return syllable
    return _FRONTED_U.sub(r"\g<1>v\g<2>\g<3>", syllable).upper()


def apply_glossary(text: str, terms: Mapping[str, GlossaryEntry], path: Reading) -> str:
    """Terms replaced by their pronunciation, the longest first, upper and lower case alike."""
    for term in sorted(terms, key=len, reverse=True):
        entry = terms[term]
        spoken = entry if isinstance(entry, str) else entry.get(path, term)
        text = re.sub(re.escape(term), lambda _, spoken=spoken: spoken, text, flags=re.IGNORECASE)  # type: ignore[misc]
    return text


def read_glossary(path: Path) -> dict[str, GlossaryEntry]:
    """The optional `glossary.yaml` of a model folder: term -> string, or -> {en, zh}."""
    import yaml

    if not path.is_file():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable YAML ({error}). Mend or remove it.") from error
    terms: dict[str, GlossaryEntry] = {}
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no table of terms; expected lines such as `NVMe: N-V-M-E`.")
    for term, entry in data.items():
        if isinstance(entry, dict):
            terms[str(term)] = {str(key): str(value) for key, value in entry.items()}
        else:
            terms[str(term)] = str(entry)
    return terms


class Shelf:
    """Pieces of text put aside under placeholders the grammar leaves alone, and put back later."""

    def __init__(self, mark: Callable[[str], str]) -> None:
        self._mark = mark
        self._kept: dict[str, str] = {}

    def put(self, pattern: re.Pattern[str], text: str) -> str:
        return pattern.sub(lambda found: self._placeholder(found.group()), text)

    def put_everywhere(self, pattern: re.Pattern[str], text: str) -> str:
        """Parity: a piece found once is put aside wherever it stands, even inside a word."""
        pieces = dict.fromkeys(found.group() for found in pattern.finditer(text))
        for piece in sorted(pieces, key=len, reverse=True):
            text = text.replace(piece, self._placeholder(piece))
        return text

    def _placeholder(self, piece: str) -> str:
        for mark, kept in self._kept.items():
            if kept == piece:
                return mark
        mark = self._mark(_letters(len(self._kept)))
        self._kept[mark] = piece
        return mark

    def restore(self, text: str, change: Callable[[str], str] = str) -> str:
        for mark, kept in self._kept.items():
            text = text.replace(mark, change(kept))
        return text


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa: placeholders must hold no digit, which the grammar would read out."""
    spelled = ""
    while True:
        spelled = chr(ord("a") + number % 26) + spelled
        number = number // 26 - 1
        if number < 0:
            return spelled


class Normaliser:
    """Text -> text as it is spoken, with the terms of one checkpoint's glossary."""

    def __init__(self, glossary: Mapping[str, GlossaryEntry] | None = None) -> None:
        self.glossary = dict(glossary or {})

    def normalise(
        self,
        text: str,
        *,
        glossary: Mapping[str, GlossaryEntry] | None = None,
        path: Reading | None = None,
        read_out: bool = True,
    ) -> str:
        """Text as it is spoken. `path` None chooses by content; `read_out` False keeps numbers as typed."""
        annotations = Shelf(lambda tag: f"PRONPLACEHOLDER{tag}PRONPLACEHOLDER")
        text = annotations.put(ANNOTATION, text)
        path = path or ("zh" if reads_as_chinese(text) else "en")
        text = _CONTRACTION.sub(r"\1 is", text)
        text = apply_glossary(text, {**self.glossary, **(glossary or {})}, path)
        if path == "zh":
            text = text.rstrip()
        protected = _HYPHENATED.sub(lambda found: found.group().replace("-", "<H>"), text)
        has_hyphens = protected != text
        pinyin, names = Shelf(lambda tag: f"<pinyin_{tag}>"), Shelf(lambda tag: f"<n_{tag}>")
        if path == "zh":
            protected = names.put_everywhere(_NAME, pinyin.put_everywhere(PINYIN, protected))
        spoken = self._read_out(protected, path) if read_out else protected
        spoken = pinyin.restore(names.restore(spoken), correct_pinyin)
        if has_hyphens:
            spoken = re.sub(r"\s*<H>\s*", "-", spoken)
        return annotations.restore(map_characters[path](spoken))

    @staticmethod
    def _read_out(text: str, path: Reading) -> str:
        try:
            return grammar.read_out(text, path)
        except grammar.Unreadable as error:
            if path == "en":  # Parity: the original then speaks the English text as typed
                _log.warning("the English grammar could not read %r (%s); spoken as typed", text, error)
                return text
            raise RequestError(
                f"the text could not be read out ({error}); expected ordinary writing. "
                "Spell out what is unusual in it, or switch text normalisation off.",
                field="text",
            ) from error


class TextFrontEnd:
    """Text -> spoken text -> pieces and ids of one checkpoint's sentencepiece model."""

    def __init__(self, model_file: Path, glossary: Mapping[str, GlossaryEntry] | None = None) -> None:
        from sentencepiece import SentencePieceProcessor

        if not model_file.is_file():
            raise CheckpointError(
                f"{model_file.name} is missing in {model_file.parent}. Download the checkpoint again."
            )
        try:
            self._pieces = SentencePieceProcessor(model_file=str(model_file))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{model_file} is not a sentencepiece model ({error}). Download it again."
            ) from error
        self.normaliser = Normaliser(glossary)
        self.vocabulary_size = int(self._pieces.GetPieceSize())
        self.unknown_id = int(self._pieces.unk_id())

    def segments_of(
        self, text: str, language: str | None, options: IndexOptions, *, limit: int, reading: ReadingMode
    ) -> list[SegmentIds]:
        """Segments of a request, see `FrontEnd`."""
        path = READINGS.get(language_name(language) or "")
        pieces = self.pieces(text, path=path, read_out=reading.out)
        parts = split_segments(pieces, limit, quick=options.quick_pieces)
        return [self._segment(part) for part in parts]

    def _segment(self, pieces: list[str]) -> SegmentIds:
        ids = self.ids_of(pieces)
        unknown = dict.fromkeys(
            p.strip("▁") for p, id_ in zip(pieces, ids, strict=True) if id_ == self.unknown_id
        )
        return SegmentIds("".join(pieces).replace("▁", " ").strip(), tuple(ids), unknown=tuple(unknown))

    @staticmethod
    def split_ideographs(text: str) -> str:
        """Upper case, with blanks around every CJK character."""
        parts = (part.strip() for part in _CJK.split(text.strip()))
        return " ".join(part.upper() for part in parts if part)

    def pieces(self, text: str, *, spoken: str | None = None, **options: Any) -> list[str]:
        """Pieces of a text; `options` go to `normalise`, unless its result `spoken` is given."""
        return self._encode(text, str, spoken, options)

    def ids(self, text: str, *, spoken: str | None = None, **options: Any) -> list[int]:
        """Piece ids of a text, without start or end marks; arguments as for `pieces`."""
        return self._encode(text, int, spoken, options)

    def _encode(self, text: str, kind: type, spoken: str | None, options: Mapping[str, Any]) -> Any:
        if not text:
            return []
        if len(text.strip()) != 1:  # Parity: a single character is encoded as typed
            text = self.split_ideographs(
                self.normaliser.normalise(text, **options) if spoken is None else spoken
            )
        return self._pieces.Encode(text, out_type=kind)

    def ids_of(self, pieces: list[str]) -> list[int]:
        """Ids of pieces; pieces the model does not know give its unknown id, and a warning."""
        ids = [int(self._pieces.PieceToId(piece)) for piece in pieces]
        unknown = [piece for piece, id_ in zip(pieces, ids, strict=True) if id_ == self.unknown_id]
        if unknown:
            shown = " ".join(dict.fromkeys(piece.strip("▁") for piece in unknown))
            _log.warning("the model's vocabulary lacks %s; it may not be spoken", shown[:80])
        return ids

    def spell(self, ids: list[int], *, lower: bool = False) -> str:
        """Ids back to text, without the blanks around CJK characters.

        Parity: runs of Latin words stay as marks `<sent_0>` unless a word holds several of them; the
        original's own decoder does this. Nothing that speaks depends on it.
        """
        line = self._pieces.Decode(ids)
        runs = _WORDS.findall(line)
        for index, run in enumerate(runs):
            line = line.replace(run, f"<sent_{index}>")
        words = line.split()
        for place, word in enumerate(words):
            marks = _WORDS_MARK.findall(word)
            if len(marks) > 1:
                for mark, index in marks:
                    word = word.replace(mark, runs[int(index)])
                words[place] = word.lower() if lower else word
        return "".join(words)
