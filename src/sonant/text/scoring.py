"""Do two texts say the same? Word and letter errors, and the runs in which they differ, by least edits.

The one count for everything that is judged by a recogniser: `--verify`, `sonant measure`, sweeps,
comparisons, reference clips and the nano recipe. Both texts are first read as they are spoken (numbers and
signs become words), in lower case and without marks; each Chinese character, kana or hangul is a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sonant.errors import DependencyError
from sonant.text.front_end import spoken_text
from sonant.text.language import detect_language, language_name

_EAST = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_EAST}]|(?:(?![{_EAST}])[^\W_])+(?:['’](?:(?![{_EAST}])[^\W_])+)*")
_EASTERN = re.compile(f"[{_EAST}]")
# Spellings of one word: recognisers write the American one.
_SPELLINGS = {
    "grey": "gray", "colour": "color", "colours": "colors", "neighbour": "neighbor",
    "neighbours": "neighbors", "harbour": "harbor", "theatre": "theater", "centre": "center",
    "favourite": "favorite", "ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor",
    "towards": "toward", "metre": "meter", "metres": "meters", "travelled": "traveled",
    "jewellery": "jewelry", "storey": "story", "programme": "program",
}  # fmt: skip
_NUMBERED = frozenset({"hundred", "thousand", "million", "billion"})
BRIDGE = 1
"""Words that agree by chance between two stretches that differ: they make one run of them."""
SHOWN = 6
"""Words of a difference that are quoted."""

Kind = Literal["missing", "added", "changed", "repeated"]


@dataclass(frozen=True)
class Run:
    """A stretch in which the texts differ: `said` should have been heard, `heard` was; one may be empty."""

    kind: Kind
    said: tuple[str, ...]
    heard: tuple[str, ...]

    @property
    def length(self) -> float:
        """Words, of the longer side; a Chinese character, kana or hangul counts for half a word."""
        return max(_length(self.said), _length(self.heard))

    def __str__(self) -> str:
        said, heard = _quoted(self.said), _quoted(self.heard)
        match self.kind:
            case "missing":
                return f"missing: {said}"
            case "changed":
                return f"{said} was heard as {heard}"
        return f"{self.kind}: {heard}"


@dataclass(frozen=True)
class Score:
    """How far what was heard is from what should have been said; scores add up over texts."""

    words: int = 0
    """Of what should have been said."""
    word_errors: int = 0
    letters: int = 0
    letter_errors: int = 0
    heard_words: int = 0
    runs: tuple[Run, ...] = ()

    @property
    def wer(self) -> float:
        """Word errors as a share of the words, 0 where both texts are empty; above 1 where much was added."""
        return self.word_errors / max(1, self.words)

    @property
    def cer(self) -> float:
        """Letter errors as a share of the letters; blanks between words count as letters."""
        return self.letter_errors / max(1, self.letters)

    @property
    def longest(self) -> float:
        """Length of the longest run, in words."""
        return max((run.length for run in self.runs), default=0.0)

    @property
    def share(self) -> float:
        """Twice the words in common over the words of both, 0 to 1; 1 where both are empty."""
        both = self.words + self.heard_words
        apart = sum(len(run.said) + len(run.heard) for run in self.runs)
        return max(0.0, 1 - apart / both) if both else 1.0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.words + other.words,
            self.word_errors + other.word_errors,
            self.letters + other.letters,
            self.letter_errors + other.letter_errors,
            self.heard_words + other.heard_words,
            self.runs + other.runs,
        )


def words(text: str, language: str | None = None) -> list[str]:
    """The words of a text as they are spoken, for comparison."""
    folded = unicodedata.normalize("NFKC", spoken_text(text, language)).casefold().replace("’", "'")
    found = [_SPELLINGS.get(word, word) for word in _WORD.findall(folded)]
    # "one hundred and two": British and American readers differ in the "and" only.
    return [w for n, w in enumerate(found) if not (w == "and" and n and found[n - 1] in _NUMBERED)]


def score_words(said: str, heard: str, language: str | None = None) -> Score:
    """How far `heard` is from `said`. Raises DependencyError without rapidfuzz."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise DependencyError(
            'comparing words needs rapidfuzz. Install the judges with: pip install "sonant[judge]"'
        ) from error
    language = language_name(language) or detect_language(said) or None
    one, other = words(said, language), words(heard, language)
    blocks = [
        (one[code.src_start : code.src_end], other[code.dest_start : code.dest_end], code.tag == "equal")
        for code in Levenshtein.opcodes(one, other)
    ]
    runs = tuple(_kinds(list(_joined(blocks))))
    is_same = not runs
    letters, others = " ".join(one), " ".join(other)
    return Score(
        words=len(one),
        word_errors=0
        if is_same
        else sum(max(len(a), len(b)) for a, b, same in blocks if not _equal(a, b, same)),
        letters=len(letters),
        letter_errors=0 if is_same else int(Levenshtein.distance(letters, others)),
        heard_words=len(other),
        runs=runs,
    )


Block = tuple[Sequence[str], Sequence[str], bool]


def _equal(said: Sequence[str], heard: Sequence[str], is_same: bool) -> bool:
    """Also where only the blanks differ: "green house" is heard as "greenhouse"."""
    return is_same or "".join(said) == "".join(heard)


def _joined(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks with stretches of errors put together, over BRIDGE words that agree between two errors."""
    said: list[str] = []
    heard: list[str] = []
    bridge: list[str] = []
    for a, b, same in blocks:
        if same and said + heard and len(a) <= BRIDGE:
            bridge = list(a)
        elif same:
            yield said, heard, _equal(said, heard, not said + heard)
            yield a, b, True
            said, heard, bridge = [], [], []
        else:
            said, heard, bridge = [*said, *bridge, *a], [*heard, *bridge, *b], []
    yield said, heard, _equal(said, heard, not said + heard)
    if bridge:
        yield bridge, bridge, True


def _kinds(blocks: Sequence[Block]) -> Iterator[Run]:
    told: list[str] = []
    """What was heard before."""
    for place, (said, heard, same) in enumerate(blocks):
        if not same:
            behind = [word for _, after, _ in blocks[place + 1 :] for word in after][: len(heard)]
            kind: Kind = "changed" if said and heard else "missing" if said else "added"
            if kind == "added" and list(heard) in (told[-len(heard) :], behind):
                kind = "repeated"
            yield Run(kind, tuple(said), tuple(heard))
        told += heard


def _length(found: Sequence[str]) -> float:
    return sum(0.5 if _EASTERN.fullmatch(word) else 1.0 for word in found)


def _quoted(found: Sequence[str]) -> str:
    blank = "" if found and _EASTERN.fullmatch(found[0]) else " "
    return repr(blank.join(found[:SHOWN]) + (" ..." if len(found) > SHOWN else ""))
