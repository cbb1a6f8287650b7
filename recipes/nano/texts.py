"""Sentences to be spoken: WordNet's examples and definitions, templates with numbers, random word strings.

Natural sentences come from the Debian package wordnet-base (WordNet licence), unpacked anywhere or installed;
words from the lexicon of hibari-tts (Apache-2.0). Without the
Debian packages the stage falls back to templates and word strings and says so.
"""

from __future__ import annotations

import gzip
import importlib.resources
import json
import random
import re
from pathlib import Path

from recipes.nano.settings import Settings
from sonant.bench.quality import sentences

FUNCTION_WORDS = re.findall(
    r"\w+",
    "the a this that my your our some every no one two three and or but with from into over under "
    "near after before when while is was are were has had will can could should may did not very so "
    "too more less he she they we it you I for of in on at by as if then there here what who how why "
    "all each ",
)
QUESTIONS = (
    "Where is the {n}?",
    "Do you have a {n}?",
    "Why did the {n} {v}?",
    "Could you {v} the {n}, please?",
    "How many {n}s are there?",
    "What is a {n}?",
    "Is the {n} {a}?",
    "Who will {v} it?",
    "When does the {n} start?",
)
STATEMENTS = (
    "The {n} is {a}.",
    "There are {d} {n}s in the {n}.",
    "I would like {d} {n}s.",
    "It costs {d} dollars.",
    "Please {v} the {a} {n}.",
    "We {v} the {n} every day.",
    "My {n} was {a} and {a}.",
    "In {y}, the {n} was {a}.",
    "The {n} and the {n} are {a}.",
    "She can {v} a {n}.",
    "Call me at {t} o'clock.",
    "Number {d}.",
    "No, the {n}!",
)


def wordnet_examples(root: Path) -> list[str]:
    """Quoted example sentences of WordNet's glosses, with a capital and a full stop."""
    found: list[str] = []
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        path = root / "usr/share/wordnet" / name
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            for quoted in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                text = quoted.strip(" ;,")
                if re.fullmatch(r"[A-Za-z',;\- ?!.]+", text) and 4 <= len(text.split()) <= 16:
                    found.append(text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else "."))
    return found


def wordnet_definitions(root: Path) -> list[str]:
    """WordNet's definitions without their examples: dry, but with tens of thousands of different words."""
    found: list[str] = []
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        path = root / "usr/share/wordnet" / name
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.partition("|")[2].partition(";")[0].strip()
            if re.fullmatch(r"[A-Za-z',\- ]+", text) and 5 <= len(text.split()) <= 16:
                found.append(text[0].upper() + text[1:] + ".")
    return found


def lexicon() -> list[str]:
    """Plain words of 3 to 10 letters that the teacher's lexicon knows."""
    packed = importlib.resources.files("hibari").joinpath("assets/lexicon_us_gold.json.gz").read_bytes()
    words = json.loads(gzip.decompress(packed))
    return sorted(w for w in words if w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 10)


def template(dice: random.Random, words: list[str]) -> str:
    """A question or statement filled at random."""
    shape = dice.choice(QUESTIONS if dice.random() < 0.5 else STATEMENTS)

    def fill(match: re.Match[str]) -> str:
        kind = match.group(1)
        if kind == "d":
            return str(dice.choice((dice.randint(2, 20), dice.randint(21, 100), dice.randint(101, 9999))))
        if kind == "y":
            return str(dice.randint(1700, 2030))
        if kind == "t":
            return str(dice.randint(1, 12))
        return dice.choice(words)

    text = re.sub(r"\{(.)\}", fill, shape)
    return text[0].upper() + text[1:]


def word_string(dice: random.Random, words: list[str]) -> str:
    """Random words mixed with function words: every sound next to every other."""
    chosen = [
        dice.choice(FUNCTION_WORDS) if dice.random() < 0.45 else dice.choice(words)
        for _ in range(dice.randint(5, 13))
    ]
    if dice.random() < 0.35:
        chosen[len(chosen) // 2] += ","
    text = " ".join(chosen)
    return text[0].upper() + text[1:] + dice.choice("...?!")


def held_out() -> list[str]:
    """The judge's sentences; never trained on."""
    return list(sentences())


def make(s: Settings, packages: Path) -> None:
    """texts/train.json: a shuffled list of `s.texts` sentences."""
    out = s.folder("texts") / "train.json"
    if out.exists():
        return
    dice = random.Random(s.seed)
    words = lexicon()
    banned = {re.sub(r"\W+", " ", t.lower()).strip() for t in held_out()}
    natural = sorted(set(wordnet_examples(packages)))
    defined = sorted(set(wordnet_definitions(packages)))
    dice.shuffle(natural)
    dice.shuffle(defined)
    pool = natural[: s.texts * 65 // 100] + defined[: s.texts * 15 // 100]
    if not natural:
        print("texts: no WordNet found, templates and word strings only")
    while len(pool) < s.texts:
        pool.append(template(dice, words) if dice.random() < 0.3 else word_string(dice, words))
    pool = [t for t in pool if re.sub(r"\W+", " ", t.lower()).strip() not in banned]
    dice.shuffle(pool)
    out.write_text(json.dumps(pool, ensure_ascii=False, indent=0), encoding="utf-8")
    print(f"texts: {len(pool)} sentences; at hand were {len(natural)} examples, {len(defined)} definitions")
