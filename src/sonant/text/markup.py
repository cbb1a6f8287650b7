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
    terms = sorted((term for term in glossary if term), key=len, reverse=True)
    if not terms:
        return text
    pattern = "|".join(
        (r"(?<!\w)" if _is_spaced(t[0]) else "") + re.escape(t) + (r"(?!\w)" if _is_spaced(t[-1]) else "")
        for t in terms
    )
    lowered = {term.lower(): spoken for term, spoken in glossary.items()}
    mark = f"{PAUSE_PATTERN}|{PRONUNCIATION_PATTERN}"

    length = len(text)

    def respell(hit: re.Match[str]) -> str:
        nonlocal length
        spoken = hit[0] if hit["mark"] else lowered.get(hit[0].lower(), hit[0])
        length += len(spoken) - len(hit[0])
        if most is not None and length > most:
            raise RequestError(
                f"the glossary makes the text longer than {most:,} characters; it has {len(text):,} without. "
                "Use shorter respellings, or send less text at a time.",
                field="glossary",
            )
        return spoken

    return re.sub(f"(?P<mark>{mark})|(?:{pattern})", respell, text, flags=re.IGNORECASE)


def _is_spaced(character: str) -> bool:
    """Whether words of this character's script stand between blanks; East Asian ones do not."""
    return (
        character.isalnum()
        and not "\u2e80" <= character <= "\u9fff"
        and not "\uf900" <= character <= "\ufaff"
    )
