"""Chapters -> who says what: voice marks, lines of a script, and quotations by whoever is told to say them.

By rule, without a model. A mark `[voice: ann]` holds to the next, or to the end of its chapter. `Ann: ...` at
the head of a line is Ann's. A quotation is said by the one that the words beside it name ("said Ann", "Ann
asked"); in a dialogue of two the paragraphs in between go by turns; what is left is the role "quoted", or the
narrator's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sonant.books.cast import MOST_ROLES, NARRATOR, QUOTED, SPECIAL, Cast, Found, Role
from sonant.books.document import Block, Chapter
from sonant.text.voice_tags import split_voices


@dataclass(frozen=True)
class Span:
    """Words of one speaker."""

    role: str
    text: str
    manner: str = ""


VERBS = (
    "(?i:said|says|say|asked|asks|replied|replies|cried|cries|answered|answers|whispered|whispers|shouted|shouts|"
    "called|exclaimed|added|adds|continued|went on|began|begins|murmured|muttered|returned|observed|remarked|"
    "repeated|demanded|explained|laughed|sighed|snapped|growled|inquired|enquired|interrupted|suggested|declared|screamed|"
    "yelled|screeched|told|thought|thinks|"
    "sagte|fragte|rief|antwortete|erwiderte|flüsterte|meinte|sprach|schrie|"
    "dit|demanda|répondit|s'écria|murmura|reprit|dijo|preguntó|respondió|gritó|exclamó)"
)
_CLOSERS = {"“": "”", "„": "“”", "«": "»", "»": "«", "「": "」", "『": "』", '"': '"'}
_SPEECH_END = tuple(",.!?…—–-:;，。！？、")
_TITLE = (
    r"(?:Mr|Mrs|Ms|Miss|Dr|Sir|Lady|Lord|Captain|Colonel|Professor|Aunt|Uncle|Herr|Frau|Madame|Monsieur)\.?\s"
)
_NAME = rf"(?:[Tt]he\s)?(?:{_TITLE})?[A-ZÄÖÜÉÈÁÓ][\w’'-]+(?:\s[A-ZÄÖÜÉÈÁÓ][\w’'-]+){{0,2}}"
_NO_NAMES = frozenset(
    {
        *(
            "he",
            "she",
            "it",
            "they",
            "i",
            "we",
            "you",
            "this",
            "that",
            "these",
            "those",
            "what",
            "who",
            "there",
        ),
        *(
            "here",
            "and",
            "but",
            "so",
            "no",
            "yes",
            "oh",
            "well",
            "now",
            "then",
            "when",
            "if",
            "as",
            "at",
            "in",
        ),
        *("on", "for", "nobody", "somebody", "everybody", "one", "another", "sie", "er", "es", "wir", "ich"),
        *("il", "elle", "nous", "vous", "él", "ella", "chapter", "note", "warning", "scene", "act", "part"),
        *("time", "date", "place", "p.s", "nb", "ps", "example", "question", "answer", "summary"),
    }
)
_LINE_OF = r"[ \t]*(?:\((?P<manner>[^()\n]{1,80})\))?[ \t]*[:：](?=[ \t]*\S)"
_SCRIPT = re.compile(rf"^[ \t]*(?P<name>(?:{_NAME}|[A-ZÄÖÜÉÁÓ][A-ZÄÖÜÉÁÓ'’. -]{{1,30}})){_LINE_OF}")
_ANY_SCRIPT = re.compile(rf"^[ \t]*(?P<name>[^:：()\n]{{1,60}}?){_LINE_OF}")
_TIMES = 2
"""Times a name must be told to speak before it is taken for a role."""


def spans_of(chapter: Chapter, cast: Cast | None) -> list[list[Span]]:
    """For each block its spans in order; a break has none. Without a cast only voice marks count."""
    reader = _Reader(cast)
    return [reader.block(block) for block in chapter.blocks]


def find_roles(chapters: Sequence[Chapter]) -> Cast:
    """A cast of the names that are told to speak, or that begin lines as in a script, without any voice."""
    said: Counter[str] = Counter()
    for chapter in chapters:
        for block in chapter.blocks:
            said.update(_speakers(block))
    longer = {name: next((other for other in said if _is_short_for(name, other)), name) for name in said}
    counts: Counter[str] = Counter()
    kept: dict[str, list[str]] = {}
    for name, count in said.most_common():
        counts[longer[name]] += count
        kept.setdefault(longer[name], []).extend([name] if longer[name] != name else [])
    kept = {name: kept[name] for name, count in counts.most_common(MOST_ROLES - 1) if count >= _TIMES}
    roles = {name: Role(name=name, aliases=tuple(aliases)) for name, aliases in kept.items()}
    return Cast(roles={NARRATOR: Role(name=NARRATOR), **roles})


def roles_found(spoken: Iterable[tuple[str, str]], cast: Cast) -> list[Found]:
    """How much each role says, by (role, text): the narrator first, then by lines."""
    lines: Counter[str] = Counter()
    letters: Counter[str] = Counter()
    samples: dict[str, str] = {}
    for role, text in spoken:
        lines[role] += 1
        letters[role] += len(text)
        samples.setdefault(role, text)
    order = sorted(lines, key=lambda name: (name != NARRATOR, -lines[name]))
    aliases = {name: role.aliases for name, role in cast.roles.items()}
    return [Found(n, lines[n], letters[n], samples[n][:120], aliases.get(n, ())) for n in order]


def _is_short_for(name: str, longer: str) -> bool:
    """Whether "Darcy" is "Mr. Darcy": the same last word, or the same first, of a longer name."""
    one, other = name.split(), longer.split()
    return len(one) == 1 and len(other) > 1 and (other[-1] == one[0] or other[0] == one[0])


def _speakers(block: Block) -> Iterator[str]:
    """Names that this block tells to speak."""
    for line in block.text.split("\n"):
        script = _SCRIPT.match(line)
        if script and _may_be_name(script["name"]):
            yield _tidy(script["name"])
    parts = _quoted(block.text)
    for number, (is_speech, _) in enumerate(parts):
        if is_speech:
            name = _attributed(parts, number, _NAME)
            if name is not None and _may_be_name(name):
                yield _tidy(name)


def _may_be_name(name: str) -> bool:
    words = name.split()
    return words[0].lower().rstrip(".") not in _NO_NAMES - {"the"} and words[-1].lower() not in _NO_NAMES


def _tidy(name: str) -> str:
    """THE FERRYMAN is The Ferryman, the Hatter is The Hatter."""
    name = " ".join(name.split()).rstrip(".")
    name = name.title() if name.isupper() else name
    return name[0].upper() + name[1:]


def _quoted(text: str) -> list[tuple[bool, str]]:
    """The text in stretches, each with whether it is speech in quotation marks, the marks included."""
    parts: list[tuple[bool, str]] = []
    start = place = 0
    closers = _CLOSERS if _is_double(text) else {"‘": "’"}
    while place < len(text):
        closing = closers.get(text[place])
        if closing is None or (text[place] == '"' and place and text[place - 1].isalnum()):
            place += 1
            continue
        end = _close(text, place, closing)
        inside = text[place + 1 : end].rstrip(closing).strip()
        before = text[max(start, place - 80) : place].rstrip()
        is_speech = (
            not before
            or before.endswith((",", ":", "，", "："))
            or inside.endswith(_SPEECH_END)
            or end >= len(text)
            or bool(re.match(rf"\s*{VERBS}\b", text[end : end + 40]))
        )
        if is_speech and any(map(str.isalnum, inside)):
            if text[start:place]:
                parts.append((False, text[start:place]))
            parts.append((True, text[place:end]))
            start = end
        place = end
    if text[start:]:
        parts.append((False, text[start:]))
    return parts


def _is_double(text: str) -> bool:
    """Whether speech stands in double marks; single ones count only where there are no others."""
    return any(mark in text for mark in _CLOSERS) or "‘" not in text


def _close(text: str, start: int, closing: str) -> int:
    """The place behind the mark that closes a quotation; the end of the text where none does."""
    for place in range(start + 1, len(text)):
        if text[place] not in closing:
            continue
        if text[place] == "’" and (
            text[place + 1 : place + 2].isalnum() or text[place - 1] not in ",.!?…—–-:;"
        ):
            continue  # an apostrophe
        return place + 1
    return len(text)


def _attributed(parts: Sequence[tuple[bool, str]], number: int, name: str) -> str | None:
    """Who the words beside a quotation name as its speaker; `name` is a pattern of names."""
    after = parts[number + 1][1] if number + 1 < len(parts) and not parts[number + 1][0] else ""
    found = re.match(rf"[\s,—–-]{{0,3}}{VERBS}\s+(?:\w+ly\s+)?({name})(?!\w)", after) or re.match(
        rf"[\s,—–-]{{0,3}}({name})\s+(?:\w+ly\s+)?{VERBS}\b", after
    )
    if found:
        return found[1]
    before = parts[number - 1][1] if number and not parts[number - 1][0] else ""
    tail = re.split(r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)[.!?](?=\s)", before[-200:])[-1]
    if not re.search(r"[,:，：]\s*$", tail):
        return None
    found = re.search(rf"(?<!\w)({name})\s+(?:\w+ly\s+)?{VERBS}\b", tail) or re.search(
        rf"\b{VERBS}\s+({name})(?!\w)", tail
    )
    return found[1] if found else None


class _Reader:
    """Reads the blocks of one chapter in order."""

    def __init__(self, cast: Cast | None) -> None:
        self._cast = cast
        self._marked: tuple[str, str] | None = None
        """Role and manner of the last voice mark."""
        self._turns: list[str] = []
        """Speakers of the dialogue's last paragraphs."""
        self._open = False
        """Whether the last paragraph ended inside a quotation, which the next goes on with."""
        names = sorted(
            (n for r in cast.roles.values() if r.name not in SPECIAL for n in (r.name, *r.aliases)),
            key=len,
            reverse=True,
        ) if cast is not None else []  # fmt: skip
        self._pattern = "|".join(rf"(?i:{re.escape(name)})" for name in names)

    def block(self, block: Block) -> list[Span]:
        if not block.text:
            self._turns = []
            return []
        spans: list[Span] = []
        for marked in split_voices(block.text):
            if marked.voice is not None:
                role = (self._cast.find(marked.voice) if self._cast else None) or marked.voice
                self._marked = (NARRATOR if role.casefold() == NARRATOR else role, marked.manner)
            if self._marked is None or self._marked == (NARRATOR, ""):
                spans += self._unmarked(block, marked.text)
            else:
                spans.append(Span(self._marked[0], marked.text, self._marked[1]))
        return _joined(spans)

    def _unmarked(self, block: Block, text: str) -> list[Span]:
        cast = self._cast
        if cast is None or block.kind == "heading":
            return [Span(NARRATOR, text)]
        scripted = self._script(text, cast)
        if scripted is not None:
            return scripted
        if not cast.quotes or not text.strip():
            return [Span(NARRATOR, text)]
        return self._dialogue(text, cast)

    def _script(self, text: str, cast: Cast) -> list[Span] | None:
        """The lines of a script by their speakers; None where no line names one."""
        spans: list[Span] = []
        is_script = False
        for line in text.split("\n"):
            found = _ANY_SCRIPT.match(line)
            role = cast.find(found["name"]) if found else None
            if found and role is not None:
                is_script = True
                spans.append(Span(role, line[found.end() :].strip(), (found["manner"] or "").strip()))
            elif spans:
                spans[-1] = Span(spans[-1].role, f"{spans[-1].text}\n{line}", spans[-1].manner)
            else:
                spans.append(Span(NARRATOR, line))
        return spans if is_script else None

    def _dialogue(self, text: str, cast: Cast) -> list[Span]:
        """Quotations by their speakers, the rest by the narrator."""
        parts = _quoted(text)
        if not any(is_speech for is_speech, _ in parts):
            self._turns, self._open = [], False
            return [Span(NARRATOR, text)]
        told: dict[int, str] = {}
        for number, (is_speech, _) in enumerate(parts):
            name = _attributed(parts, number, self._pattern) if is_speech and self._pattern else None
            role = cast.find(name) if name is not None else None
            if role is not None:
                told[number] = role
        goes_on = self._open and parts[0][0] and bool(self._turns)
        default = self._turns[-1] if goes_on else None
        if default is None and not told:
            default = self._by_turns()
        spans, speaker = [], default or next(iter(told.values()), None)
        for number, (is_speech, words) in enumerate(parts):
            if is_speech:
                speaker = told.get(number, speaker)
                spans.append(Span(speaker or (QUOTED if QUOTED in cast.roles else NARRATOR), words))
            else:
                spans.append(Span(NARRATOR, words))
        if not goes_on:
            self._turns = [*self._turns[-1:], speaker or ""]
        last = parts[-1]
        closing = "".join(_CLOSERS.values()) + "’"
        self._open = last[0] and last[1].rstrip()[-1:] not in closing
        return spans

    def _by_turns(self) -> str | None:
        """In a dialogue of two, the one who did not speak last."""
        if len(self._turns) == 2 and all(self._turns) and self._turns[0] != self._turns[1]:
            return self._turns[0]
        return None


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Neighbours of one speaker as one; what has nothing to say joins the one before it."""
    joined: list[Span] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last is not None and (
            (last.role, last.manner) == (span.role, span.manner) or not any(map(str.isalnum, span.text))
        ):
            joined[-1] = Span(last.role, last.text + span.text, last.manner)
        elif any(map(str.isalnum, span.text)):
            joined.append(span)
    return joined
