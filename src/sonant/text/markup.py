"""Marks a user may put into text: pause tags, inline pronunciations, and a glossary of respelled words.

[pause:1.5s]  [pause:300ms]     silence
[word](/phonemes/)              a word and how it is pronounced
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sonant.errors import RequestError

LONGEST_PAUSE = 60.0
"""Seconds; longer pause tags are shortened to this."""

PAUSE_PATTERN = r"(?i:\[pause:\s{0,9}[0-9]{1,6}(?:\.[0-9]{1,6})?\s{0,9}(?:ms|s)?\s{0,9}\])"
PRONUNCIATION_PATTERN = (
    r"(?:\[[^\[\]\n]{1,100}\]\(/(?=[a-z0-9._~\-]{0,200}[^a-z0-9._~/\n\-])[^/\n]{1,200}/\))"
)
"""What stands between the strokes has a sign that an address has not; `[the guide](/docs/)` is a link."""

PAUSE_TAG = re.compile(PAUSE_PATTERN)
PRONUNCIATION = re.compile(PRONUNCIATION_PATTERN)


def pause_seconds(tag: str) -> float:
    """The silence that one pause tag asks for, at most LONGEST_PAUSE."""
    number, unit = re.findall(r"([0-9.]+)\s*(ms)?", tag)[0]
    return min(float(number) / (1000.0 if unit else 1.0), LONGEST_PAUSE)


def split_pauses(text: str) -> Iterator[tuple[str, float]]:
    """Text between tags such as `[pause:1.5s]` or `[pause:300ms]`, each with the seconds that follow it."""
    start = 0
    for tag in PAUSE_TAG.finditer(text):
        yield text[start : tag.start()], pause_seconds(tag[0].lower())
        start = tag.end()
    yield text[start:], 0.0


def split_pronunciations(text: str) -> Iterator[tuple[str, str | None]]:
    """Stretches of text with None, and words written as `[word](/phonemes/)` with their phonemes."""
    start = 0
    for mark in PRONUNCIATION.finditer(text):
        if mark.start() > start:
            yield text[start : mark.start()], None
        word, phonemes = mark[0][1:-2].split("](/", 1)
        yield word, phonemes
        start = mark.end()
    if start < len(text):
        yield text[start:], None


def without_pronunciations(text: str) -> str:
    """The text as it is read by a model that takes no phonemes: the words alone."""
    return "".join(word for word, _ in split_pronunciations(text))


def apply_glossary(text: str, glossary: Mapping[str, str], *, most: int | None = None) -> str:
    """Text with every whole-word occurrence of a glossary term respelled, longest term first.

    Pause tags and inline pronunciations stay as they are. Raises RequestError before the text grows beyond
    `most` characters.
    """
    spoken_for = {term.lower(): spoken for term, spoken in glossary.items() if term}
    if not spoken_for:
        return text
    lengths: dict[str, set[int]] = {}
    for term in filter(None, glossary):
        lengths.setdefault(term[0].lower(), set()).add(len(term))
    longest_first = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def term_at(begin: int) -> int:
        """The length of the term that stands here; 0 for none."""
        for length in longest_first.get(text[begin].lower(), ()):
            found = text[begin : begin + length]
            if found.lower() in spoken_for and _stands_alone(text, begin, begin + len(found)):
                return len(found)
        return 0

    # Looked up place by place: one expression of a thousand terms would hold the interpreter for seconds.
    starts = re.compile(f"[{re.escape(''.join(longest_first))}[]", re.IGNORECASE)
    mark = re.compile(f"{PAUSE_PATTERN}|{PRONUNCIATION_PATTERN}", re.IGNORECASE)
    pieces, done, grown = [], 0, len(text)
    for hit in starts.finditer(text):
        begin = hit.start()
        if begin < done:
            continue
        marked = mark.match(text, begin)
        length = 0 if marked is not None else term_at(begin)
        if marked is not None:
            pieces.append(text[done : marked.end()])
            done = marked.end()
        elif length:
            spoken = spoken_for[text[begin : begin + length].lower()]
            pieces += [text[done:begin], spoken]
            done = begin + length
            grown += len(spoken) - length
        if most is not None and grown > most:
            raise RequestError(
                f"the glossary makes the text longer than {most:,} characters; it has {len(text):,} without. "
                "Use shorter respellings, or send less text at a time.",
                field="glossary",
            )
    return "".join((*pieces, text[done:]))


def _stands_alone(text: str, begin: int, end: int) -> bool:
    """Whether what stands there is a word of its own, where its script parts words by blanks."""
    if _is_spaced(text[begin]) and begin > 0 and _is_word(text[begin - 1]):
        return False
    return not (_is_spaced(text[end - 1]) and end < len(text) and _is_word(text[end]))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_spaced(character: str) -> bool:
    """Whether words of this character's script stand between blanks; East Asian ones do not."""
    return (
        character.isalnum()
        and not "\u2e80" <= character <= "\u9fff"
        and not "\uf900" <= character <= "\ufaff"
    )
