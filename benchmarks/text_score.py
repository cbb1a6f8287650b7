"""How many inputs of the table in tests/data/text a front end reads as a careful newsreader would.

    python benchmarks/text_score.py --reader rules            # one of READERS, or module:function
    python benchmarks/text_score.py --reader wetext --language chinese --wrong

A reader is `read(text, language) -> str`; `language` is a name such as "german", or "auto" when the table
does not name one. What it returns may have a line end between segments. The comparison folds what no
listener hears: case, punctuation, hyphens, blanks between Chinese characters, "and" inside an English
number, and whether letters said one by one are written apart. A sign, a digit or an invisible character
that is left over counts as unread. This file needs no more than the standard library, so that it also runs
in another program's environment.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "tests" / "data" / "text"
FILES = ("english", "chinese", "german", "french", "spanish", "japanese", "mixed")

Reader = Callable[[str, str], str]


@dataclass(frozen=True)
class Entry:
    """One line of the table. `right` are the acceptable readings, with `{one|other}` where usage differs."""

    id: str
    file: str
    language: str
    text: str
    right: tuple[str, ...]
    kind: str  # "d.date": the layer of the front end (a to e), and what the input is about
    source: str | None = None


def load(files: Iterable[str] = FILES) -> list[Entry]:
    """The table, or some of its files."""
    entries = []
    for name in files:
        for line in json.loads((TABLE / f"{name}.json").read_text(encoding="utf-8")):
            entries.append(
                Entry(
                    id=line["id"],
                    file=name,
                    language=line["language"],
                    text=line["input"],
                    right=tuple(line["right"]),
                    kind=line["class"],
                    source=line.get("source"),
                )
            )
    return entries


def expand(form: str) -> Iterator[str]:
    """Every reading that a form with `{one|other}` groups stands for; groups may lie in groups."""
    parts: list[list[str]] = [[""]]
    depth, start = 0, 0
    options: list[str] = []
    for at, char in enumerate(form):
        if char == "{":
            if depth == 0:
                parts.append([form[start:at]])
                options, start = [], at + 1
            depth += 1
        elif char == "|" and depth == 1:
            options.append(form[start:at])
            start = at + 1
        elif char == "}":
            depth -= 1
            if depth < 0:
                raise ValueError(f"a closing brace too many in {form!r}")
            if depth == 0:
                options.append(form[start:at])
                parts.append([reading for option in options for reading in expand(option)])
                start = at + 1
    if depth:
        raise ValueError(f"a brace is not closed in {form!r}")
    parts.append([form[start:]])
    for chosen in product(*parts):
        yield "".join(chosen)


# -- the comparison

STOPS = ".!?。！？…\n\r\u2028\u2029\u0085"
PAUSES = ",;:、，；：()（）—–"
SILENT = '"“”„‟«»‹›「」『』《》〈〉-‐‑¿¡·・'
APOSTROPHES = "'’‘ʼ"

_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety first second third "
    "fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth "
    "fiftieth sixtieth seventieth eightieth ninetieth"
)
_ENGLISH_NUMBERS = frozenset(_ENGLISH.split())
_ENGLISH_SCALES = frozenset(["hundred", "thousand", "million", "billion", "trillion"])
_GERMAN_NUMBER = re.compile(
    "(?:null|eine?|eins|zwei|drei|vier|fünf|sechs?|sieb(?:en)?|acht|neun|zehn|elf|zwölf|zwanzig|dreissig"
    "|(?:vier|fünf|sech|sieb|acht|neun)zig|hundert|tausend|und)+"
)


@dataclass
class Spoken:
    """What of a text is heard: its words, and the pause after each word ("", "pause", "stop", "either")."""

    words: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def spoken(text: str, language: str = "auto", *, pauses: str = PAUSES) -> Spoken:
    """`text` as its words and pauses, folded for comparison."""
    text = unicodedata.normalize("NFC", text).lower().replace("ß", "ss").replace("〇", "零")
    found = Spoken()
    word = ""

    def close() -> None:
        nonlocal word
        if word:
            found.words.append(word)
            found.after.append("")
            word = ""

    def pause(kind: str) -> None:
        close()
        if found.after and found.after[-1] != "stop":
            found.after[-1] = kind

    for at, char in enumerate(text):
        before, behind = text[at - 1] if at else " ", text[at + 1] if at + 1 < len(text) else " "
        if char in APOSTROPHES:
            continue
        if _alone(char):
            close()
            word = char
            close()
        elif char.isalnum() or unicodedata.category(char).startswith("M"):
            word += char
        elif char == "." and before.isalpha() and behind.isalnum():
            continue  # u.s, example.com: one word still
        elif char == "." and len(word) and (len(word) == 1 or (at > 1 and text[at - 2] == ".")):
            pause("either")  # "U.S." may end the sentence or not
        elif char in STOPS:
            pause("stop")
        elif char in pauses:
            pause("pause")
        elif char.isspace() or char in SILENT:
            close()
        else:  # a sign that nobody read
            close()
            word = char
            close()
    close()
    return _fold(found, language)


def _alone(char: str) -> bool:
    name = unicodedata.name(char, "")
    return name.startswith(("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "KATAKANA"))


def _fold(found: Spoken, language: str) -> Spoken:
    folded = Spoken()
    words, after = folded.words, folded.after
    for word, pause in zip(found.words, found.after, strict=True):
        percent = word == "cent" and words[-1:] in (["per"], ["pour"])
        compound = language == "german" and words and not after[-1] and _german_numbers(words[-1], word)
        if percent or compound:
            words[-1] += word
            after[-1] = pause
            continue
        if (
            words[-1:] == ["and"]
            and words[-2:-1]
            and words[-2] in _ENGLISH_SCALES
            and word in _ENGLISH_NUMBERS
        ):
            del words[-1], after[-1]
        words.append(word)
        after.append(pause)
    return folded


def _german_numbers(*words: str) -> bool:
    return all(_GERMAN_NUMBER.fullmatch(word) for word in words)


def is_right(entry: Entry, reading: str) -> bool:
    """Whether `reading` is one of the entry's readings; pauses count where segments are the matter."""
    heard = spoken(reading, entry.language)
    pauses_count = entry.kind.startswith("e.") or entry.kind in ("a.line-ends", "a.wrapped")
    return any(_same(wanted, heard, pauses_count) for wanted in _readings(entry))


@cache
def _readings(entry: Entry) -> list[Spoken]:
    forms = [form for right in entry.right for form in expand(right)]
    return [spoken(form, entry.language, pauses="|") for form in forms]


def _same(wanted: Spoken, heard: Spoken, pauses_count: bool) -> bool:
    """The same words, letters said one by one written apart or not. Where pauses count: a pause wherever the
    table has one, and no end of a sentence elsewhere."""
    at = got = 0
    while at < len(wanted.words) and got < len(heard.words):
        word, other = wanted.words[at], heard.words[got]
        if word == other:
            last_at, last_got = at, got
        elif letters := _spelt(wanted.words[at:], other):
            last_at, last_got = at + letters - 1, got
        elif letters := _spelt(heard.words[got:], word):
            last_at, last_got = at, got + letters - 1
        else:
            return False
        if pauses_count and got + 1 < len(heard.words):
            inside = heard.after[got:last_got]
            want, pause = wanted.after[last_at], heard.after[last_got]
            if "stop" in inside or (not pause if want else pause == "stop"):
                return False
        at, got = last_at + 1, last_got + 1
    return at == len(wanted.words) and got == len(heard.words)


def _spelt(words: list[str], word: str) -> int:
    """How many single letters at the front of `words` spell `word`; 0 when they do not."""
    if len(word) < 2 or not word.isalpha() or words[: len(word)] != list(word):
        return 0
    return len(word)


# -- readers


def as_typed(text: str, language: str) -> str:
    return text


def rules(text: str, language: str) -> str:
    from sonant.text.front_end import spoken_text

    return spoken_text(text, language)


READERS: dict[str, Reader] = {"as-typed": as_typed, "rules": rules}


def find_reader(name: str) -> Reader:
    if name in READERS:
        return READERS[name]
    module, _, function = name.partition(":")
    if not function:
        raise SystemExit(f"unknown reader {name!r}: use one of {', '.join(READERS)}, or module:function")
    return getattr(importlib.import_module(module), function)


def score(read: Reader, entries: Iterable[Entry]) -> list[tuple[Entry, str, bool]]:
    """Each entry with what `read` makes of it and whether that is right; an error is shown as the reading."""
    results = []
    for entry in entries:
        try:
            reading = read(entry.text, entry.language)
            right = is_right(entry, reading)
        except Exception as error:  # a front end that falls over has read nothing
            reading, right = f"!! {type(error).__name__}: {error}", False
        results.append((entry, reading, right))
    return results


def table(results: list[tuple[Entry, str, bool]], key: Callable[[Entry], str]) -> list[tuple[str, int, int]]:
    """(group, right, of) by `key`, in the table's order."""
    groups: dict[str, list[bool]] = {}
    for entry, _, right in results:
        groups.setdefault(key(entry), []).append(right)
    return [(name, sum(marks), len(marks)) for name, marks in groups.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reader", default="rules", help="a name, or module:function")
    parser.add_argument("--language", action="append", choices=FILES, help="only this file; may be repeated")
    parser.add_argument("--wrong", action="store_true", help="list what is read wrong")
    parser.add_argument("--json", type=Path, help="write every reading here")
    options = parser.parse_args()
    sys.path.insert(0, str(Path.cwd()))
    read = find_reader(options.reader)
    entries = load(options.language or FILES)
    started = time.perf_counter()
    results = score(read, entries)
    seconds = time.perf_counter() - started
    print(f"{options.reader}: {seconds / len(entries) * 1000:.2f} ms an input")
    for title, key in (("language", lambda entry: entry.file), ("class", lambda entry: entry.kind)):
        print(f"\n{title:20} right    of")
        for name, right, of in sorted(table(results, key)) if title == "class" else table(results, key):
            print(f"{name:20} {right:5} {of:5}  {right / of:6.1%}")
    right = sum(mark for _, _, mark in results)
    print(f"\n{'all':20} {right:5} {len(results):5}  {right / len(results):6.1%}")
    if options.wrong:
        print()
        for entry, reading, mark in results:
            if not mark:
                print(
                    f"{entry.id}: {entry.text!r}\n    read  {reading!r}\n    right {' / '.join(entry.right)}"
                )
    if options.json:
        lines = [{"id": entry.id, "reading": reading, "right": mark} for entry, reading, mark in results]
        options.json.write_text(json.dumps(lines, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
