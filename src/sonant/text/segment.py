"""Long text -> segments that fit a model, none of it lost, each with the pause after it.

    text -> sentences (and pause tags) -> sentences joined or cut to `limit` -> Stretch, Stretch, ...

The segments' texts joined are the text, character by character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import regex

from sonant.text.markup import PAUSE_PATTERN, PAUSE_TAG, PRONUNCIATION_PATTERN, split_pauses

Length = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Seconds of silence after a segment, by what ends it."""

    cut: float = 0.0
    """A sentence too long for one segment, cut between words."""
    clause: float = 0.1
    sentence: float = 0.25
    paragraph: float = 0.6


@dataclass(frozen=True)
class Stretch:
    """A stretch of the text exactly as it stands there, blanks and pause tags included."""

    text: str
    pause: float
    """Seconds of silence after it: what its end calls for plus its pause tags; 0 after the last."""

    @property
    def spoken(self) -> str:
        """The text without pause tags and outer blanks."""
        return PAUSE_TAG.sub(" ", self.text).strip()

    @property
    def is_spoken(self) -> bool:
        """Whether there is a letter or a digit to say."""
        return bool(_SPEAKABLE.search(self.spoken))


def segment(
    text: str, *, limit: int = 300, length: Length = len, pauses: Pauses | None = None
) -> list[Stretch]:
    """Segments of at most `limit` by `length` (characters, or a token count).

    Sentences of a paragraph share a segment while they fit. A longer sentence is cut after a clause mark,
    else between words, else between characters as readers see them. A pause tag and a paragraph end a
    segment; a tag or an inline pronunciation is never cut, so one longer than `limit` stands alone.
    """
    pauses = pauses or Pauses()
    segments: list[Stretch] = []
    pending = ""
    for sentence, end in _sentences(text):
        is_long = length(sentence) > limit
        if pending and (is_long or length(pending + sentence) > limit):
            segments.append(Stretch(pending, pauses.sentence))
            pending = ""
        if is_long:
            *first, pending = _cut(sentence, limit, length)
            segments.extend(
                Stretch(part, pauses.clause if _CLAUSE_END.search(part[-16:]) else pauses.cut)
                for part in first
            )
        else:
            pending += sentence
        if end == "paragraph":
            segments.append(Stretch(pending, pauses.paragraph))
            pending = ""
        elif end == "tag":
            segments.append(Stretch(pending, 0.0))
            pending = ""
    if pending:
        segments.append(Stretch(pending, 0.0))
    return _joined(segments, limit, length)


def sentences(text: str) -> list[str]:
    """The sentences of the text as they stand there; joined they are the text. The last may be unfinished."""
    return [sentence for sentence, _ in _sentences(text)]


_SPEAKABLE = regex.compile(r"[\p{L}\p{N}]")

# All patterns take time in proportion to the text: runs are possessive and never entered in the middle.
_CLOSERS = r"[\"'”’»›)\]}」』）】》〉〕]*+"
_ATOM = f"{PRONUNCIATION_PATTERN}|{PAUSE_PATTERN}"
_CLAUSE_END = regex.compile(rf"[,;:、，；：—–]{_CLOSERS}\s*$")
_CLAUSE = regex.compile(
    rf"(?P<atom>{_ATOM})|(?<![,;:—–])[,;:—–]++{_CLOSERS}\s++|[、，；：]++{_CLOSERS}\s*+|(?<=\s)[—–-]\s++"
)
_WORD = regex.compile(rf"(?:{_ATOM}|\S)+?(?:\s++|(?<=[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}])|$)|\s++")
_GRAPHEME = regex.compile(rf"{_ATOM}|\X")

# Where a sentence may end: a mark of East Asian writing at once, others before a blank; or a line break.
_AFTER = r"[^\S\n]*+(?:\n(?!\s*\n)[^\S\n]*+)?"
_END = regex.compile(
    rf"(?P<tag>{PAUSE_PATTERN}\s*+)"
    rf"|(?P<atom>{PRONUNCIATION_PATTERN})"
    rf"|(?<![^\S\n])(?:(?P<paragraph>[^\S\n]*+\n\s*\n\s*+)|(?P<line>[^\S\n]*+\n[^\S\n]*+))"
    rf"|(?P<east>[。！？｡‼⁇⁈⁉][。！？｡．‼⁇⁈⁉…!?]*+{_CLOSERS}{_AFTER})"
    rf"|(?P<west>(?<![.!?…؟۔।॥։])[.!?…؟۔।॥։]++{_CLOSERS}"
    rf"(?=\s|$|[\p{{Han}}\p{{Hiragana}}\p{{Katakana}}]){_AFTER})",
)

# A full stop after these does not end a sentence. Lower case, without the stop.
_ABBREVIATIONS_LIST = (
    "mr mrs ms dr prof rev hon gen col capt lt sgt st mt ft vs etc eg ie i.e e.g cf al no nos "
    "vol pp fig ed eds approx dept est inc ltd co corp jr sr jan feb mar apr jun jul aug sep "
    "sept oct nov dec a.m p.m u.s u.k bzw z.b d.h u.a usw ca evtl ggf inkl nr str hr fr abs "
    "bspw sog vgl zzgl hrsg jh mio mrd s.o m mme mlle mm etc. av bd env p.ex c.-à-d chap sr sra "
    "srta dra ud uds d.ª p.ej pág núm av ee.uu avda sig dott ing avv on ecc pag г гг т.е т.д "
    "т.п др проф ул стр рис руб тыс млн млрд им"
)
_ABBREVIATIONS = frozenset(_ABBREVIATIONS_LIST.split())
# A full stop after these is the end of a sentence only before a capital letter.
_MAYBE_LIST = "etc usw ecc inc ltd co corp jr sr a.m p.m u.s u.k ca al т.д т.п др г гг"
_MAYBE = frozenset(_MAYBE_LIST.split())
_LAST_WORD = regex.compile(r"[\p{L}\p{N}.ªº-]+$")
_ORDINAL_NEXT = regex.compile(  # German and other dates: "am 3. Mai", "das 19. Jahrhundert"
    r"(?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jahrhundert|Kapitel|Mal|Klasse|Stock|Platz)"
)
_LIST_ITEM = regex.compile(r"(?:[-*•–]|\(?\p{N}{1,3}[.)])\s")
SHORT_LINE = 60  # a shorter line before a capital is a heading, verse or list item, not wrapped prose


def _sentences(text: str) -> Iterator[tuple[str, str]]:
    """Each sentence with all that follows it up to the next, and what ends it."""
    start = line = 0
    for match in _END.finditer(text):
        kind = match.lastgroup or ""
        if kind == "atom":
            continue
        end = match.end()
        if kind == "line":
            ends = _line_ends(text, line, match.start(), end)
            line = end
        elif kind == "west":
            ends = _stop_ends(text, line, match)
        else:
            ends = True
        if "\n" in match[0]:
            line = end
        if ends:
            yield text[start:end], kind if kind in ("tag", "paragraph") else "sentence"
            start = end
    if start < len(text):
        yield text[start:], "sentence"


def _line_ends(text: str, begin: int, stop: int, after: int) -> bool:
    """Whether a single line break ends a sentence."""
    rest = text[after : after + 8]
    if _LIST_ITEM.match(rest):
        return True
    starts_anew = bool(rest) and (rest[0].isupper() or rest[0].isdigit() or not rest[0].isascii())
    return (
        starts_anew
        and stop - begin < SHORT_LINE
        and not _CLAUSE_END.search(text[max(begin, stop - 8) : stop])
    )


def _stop_ends(text: str, line: int, match: regex.Match[str]) -> bool:
    """Whether a Western end mark before a blank really ends a sentence."""
    rest = text[match.end() : match.end() + 16]
    following = rest.lstrip("\"'“‘«‹([{¿¡ ")[:1]
    if following.islower():
        return False  # "Really?" he said. ... and so on.
    if match[0].rstrip() != ".":
        return True
    before = text[max(line, match.start() - 24) : match.start()]
    found = _LAST_WORD.search(before)
    if not found:
        return True
    word = found[0].lower()
    if len(word) == 1 and found[0].isupper():
        return False  # an initial: "J. Smith"
    if word.isdigit():
        at_line_start = len(word) <= 3 and not before[: found.start()].strip() and match.start() - line <= 8
        return not at_line_start and not (len(word) <= 2 and _ORDINAL_NEXT.match(rest))
    if word in _MAYBE:
        return not following or following.isupper()
    return word not in _ABBREVIATIONS


def _tagged(text: str) -> float:
    """Seconds of the pause tags after the last thing to say."""
    seconds = 0.0
    for piece, pause in reversed(list(split_pauses(text))):
        seconds += pause
        if _SPEAKABLE.search(piece):
            break
    return seconds


def _cut(sentence: str, limit: int, length: Length) -> list[str]:
    """A sentence in pieces within `limit`, at the best places there are."""
    parts: list[str] = []
    for clauses in _packed(_clauses(sentence), limit, length):
        if length(clauses) <= limit:
            parts.append(clauses)
            continue
        for words in _packed(_WORD.findall(clauses), limit, length):
            if length(words) <= limit:
                parts.append(words)
            else:
                parts.extend(_packed(_GRAPHEME.findall(words), limit, length))
    return parts


def _clauses(sentence: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for match in _CLAUSE.finditer(sentence):
        if match["atom"] is None:
            pieces.append(sentence[start : match.end()])
            start = match.end()
    return [piece for piece in (*pieces, sentence[start:]) if piece]


def _packed(pieces: Sequence[str], limit: int, length: Length) -> Iterator[str]:
    """Neighbours joined as long as they fit; one piece at least. Measures O(log n) times for each result."""
    start = 0
    while start < len(pieces):
        good, size = 1, 2
        while start + good < len(pieces) and size > good:
            size = min(size, len(pieces) - start)
            if length("".join(pieces[start : start + size])) <= limit:
                good, size = size, size * 2
            else:
                high = size
                while high - good > 1:
                    middle = (good + high) // 2
                    if length("".join(pieces[start : start + middle])) <= limit:
                        good = middle
                    else:
                        high = middle
                break
        yield "".join(pieces[start : start + good])
        start += good


def _joined(segments: list[Stretch], limit: int, length: Length) -> list[Stretch]:
    """Segments with nothing to say join a neighbour where they fit; tags replace the pause of an end."""
    joined: list[Stretch] = []
    for current in segments:
        last = joined[-1] if joined else None
        if last is None or (last.is_spoken and current.is_spoken) or length(last.text + current.text) > limit:
            joined.append(current)
        else:
            pause = max(last.pause, current.pause) if last.is_spoken else current.pause
            joined[-1] = Stretch(last.text + current.text, pause)
    if joined:
        joined[-1] = Stretch(joined[-1].text, 0.0)
    return [Stretch(one.text, _tagged(one.text) or one.pause) for one in joined]
