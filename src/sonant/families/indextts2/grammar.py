"""The grammars of IndexTTS2's original on Linux: WeTextProcessing 1.2.0, run without its package.

WeTextProcessing compiles its rules with pynini, which is too large, and not built for every system, to be
required. Its two grammars are shipped compiled (recipes/grammars says how) and run by kaldifst. The package
wetext stands in for WeTextProcessing elsewhere, but its English grammar is another one: it has no reading
for `#7`, for two blanks or for a rupee sign, and leaves such a text as typed.
"""

from __future__ import annotations

import lzma
import re
import tempfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

Reading = Literal["zh", "en"]

_ESCAPED = re.compile(r'\\(["\\])')


class Unreadable(ValueError):
    """A text that the grammar has no reading for."""


def read_out(text: str, reading: Reading) -> str:
    """`text` with its numbers, dates, units and signs in words, as WeTextProcessing 1.2.0 reads them.

    Raises `Unreadable` where the grammar has no path for the text, where pynini raises an error of its own.
    """
    from wetext.token_parser import TokenParser

    tagger, verbalizer = _grammar(reading)
    if not text:
        return ""
    tagged = tagger(text)
    if not tagged:
        if text.isspace():
            return ""
        raise Unreadable("the grammar has no reading for it")
    try:
        spoken: str = verbalizer(TokenParser(reading, "tn").reorder(tagged))
    except (AssertionError, LookupError) as error:
        raise Unreadable("the tags of the grammar are not well formed") from error
    # Of two equally good paths OpenFst's binding takes the first in the alphabet, kaldifst another: a quote
    # and a backslash come with and without a backslash before them.
    return _ESCAPED.sub(r"\1", spoken)


@lru_cache(maxsize=2)
def _grammar(reading: Reading) -> tuple[Any, Any]:
    """(tagger, verbalizer), loaded on first use; both are read-only tables."""
    return _load(f"{reading}_tagger"), _load(f"{reading}_verbalizer")


def _load(name: str) -> Any:
    from kaldifst import TextNormalizer

    packed = (files("sonant") / "assets" / "wetextprocessing" / f"{name}.fst.xz").read_bytes()
    with tempfile.TemporaryDirectory() as folder:  # kaldifst reads from files only
        path = Path(folder) / f"{name}.fst"
        path.write_bytes(lzma.decompress(packed))
        return TextNormalizer(str(path))
