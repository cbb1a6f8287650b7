"""The judges: Whisper for words, the DNSMOS networks for sound, as Sonant has them (the judge extra)."""

from __future__ import annotations

import numpy as np

from sonant.errors import DependencyError
from sonant.quality.dnsmos import Dnsmos, Mos
from sonant.request.audio import Audio
from sonant.text.scoring import Score, score_words
from sonant.voices.recogniser import Recogniser

__all__ = ["Ear", "Mos", "Score", "find_mos"]


class Ear:
    """Whisper tiny.en."""

    def __init__(self) -> None:
        self._recogniser = Recogniser()

    def score(self, samples: np.ndarray, rate: int, text: str) -> tuple[Score, str]:
        """The score of one sentence, and what was heard."""
        heard = self._recogniser.hear(Audio(samples, rate), language="english").text
        return score_words(text, heard, "english"), heard


def find_mos() -> Dnsmos | None:
    """The judge of sound, or None when its package is not installed."""
    try:
        return Dnsmos()
    except DependencyError:
        return None
