"""Text -> Kokoro's phonemes: IPA with single letters for diphthongs (A I O W Y), as misaki writes it.

English comes with Sonant: hibari's front end uses the same alphabet, and was made for a voice distilled from
this model. The other languages are read by the package misaki, an extra for each group of them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from sonant.errors import DependencyError
from sonant.native.graphs import onnxruntime

Phonemizer = Callable[[str], str]

ESPEAK = {"spanish": "es", "french": "fr-fr", "hindi": "hi", "italian": "it", "portuguese": "pt-br"}
EXTRAS = {"chinese": "kokoro-zh", "japanese": "kokoro-ja", **dict.fromkeys(ESPEAK, "kokoro-espeak")}


NEEDS = {
    "chinese": ("misaki", "pypinyin", "jieba"),
    "japanese": ("misaki", "pyopenjtalk"),
    **dict.fromkeys(ESPEAK, ("misaki", "phonemizer", "espeakng_loader")),
}
"""Modules without which a language cannot be read."""


def is_readable(language: str) -> bool:
    """Whether the front end of a language is installed."""
    return all(find_spec(module) is not None for module in NEEDS.get(language, ()))


def phonemizer(language: str, *, british: bool) -> Phonemizer:
    """The front end of a language. Raises DependencyError naming the extra that brings it."""
    if language == "english":
        onnxruntime()
        from hibari.g2p import G2P

        return G2P(british=british)
    try:
        made: Any = _misaki(language)
    except ImportError as error:
        raise DependencyError(
            f"Kokoro reads {language} with the package misaki, and {error.name} is not installed; expected "
            f"it for this language. Install it with: pip install 'sonant[{EXTRAS[language]}]', or choose a "
            "voice of another language."
        ) from error

    def read(text: str) -> str:
        found = made(text)
        return found[0] if isinstance(found, tuple) else found

    return read


def _misaki(language: str) -> Any:
    if language == "chinese":
        from misaki import zh

        return zh.ZHG2P()
    if language == "japanese":
        from misaki import ja

        return ja.JAG2P()
    from misaki import espeak

    return espeak.EspeakG2P(language=ESPEAK[language])
