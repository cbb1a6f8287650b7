"""Two models, or two ways to set one, over the same sentences: what differs, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sonant.errors import RequestError
from sonant.quality.bootstrap import Interval, difference_interval, mean_interval
from sonant.quality.trials import Clip

Read = Callable[[Clip], "tuple[float, float] | None"]
"""A clip's part of a mean: a value and its weight; None where it was not judged."""


def _words(clip: Clip) -> tuple[float, float] | None:
    score = clip.judgement.words if clip.judgement is not None else None
    return (score.word_errors, score.words) if score is not None else None


def _longest(clip: Clip) -> tuple[float, float] | None:
    score = clip.judgement.words if clip.judgement is not None else None
    return (score.longest, 1.0) if score is not None else None


def _mos(clip: Clip) -> tuple[float, float] | None:
    mos = clip.judgement.mos if clip.judgement is not None else None
    return (mos.overall, 1.0) if mos is not None else None


def _similarity(clip: Clip) -> tuple[float, float] | None:
    found = clip.judgement.similarity if clip.judgement is not None else None
    return (found, 1.0) if found is not None else None


def _pace(clip: Clip) -> tuple[float, float] | None:
    return (clip.measurement.syllable_rate, 1.0) if clip.measurement is not None else None


FIGURES: Mapping[str, tuple[str, int, Read]] = {
    "points": ("points", -1, lambda clip: (clip.points, 1.0)),
    "wer": ("word error rate", -1, _words),
    "longest_wrong": ("longest wrong run, words", -1, _longest),
    "dnsmos": ("DNSMOS", 1, _mos),
    "similarity": ("likeness to the voice", 1, _similarity),
    "syllable_rate": ("syllables a second", 0, _pace),
    "real_time_factor": (
        "processor time, x of the audio",
        -1,
        lambda c: (c.work, c.seconds) if c.seconds else None,
    ),
}
"""What is compared: its name, whether more is better (1), worse (-1) or neither (0), and a clip's part."""


@dataclass(frozen=True)
class Difference:
    """One figure of both, with 95 % intervals over the sentences."""

    key: str
    first: Interval
    second: Interval
    change: Interval
    """Second less first, over sentences that both have."""

    @property
    def better(self) -> str | None:
        """ "A" or "B" where one is surely better, else None."""
        way = FIGURES[self.key][1]
        if not way or not self.change.is_sure:
            return None
        return "B" if self.change.value * way > 0 else "A"


def compare_clips(first: Sequence[Clip], second: Sequence[Clip]) -> list[Difference]:
    """Every figure that both have for a sentence at least. Raises RequestError where they say different
    things."""
    if [clip.text for clip in first] != [clip.text for clip in second]:
        raise RequestError("the two say different sentences; expected the same ones in the same order.")
    found = []
    for key, (_, _, read) in FIGURES.items():
        pairs = [(a, b) for a, b in zip(map(read, first), map(read, second), strict=True) if a and b]
        if not pairs:
            continue
        (va, wa), (vb, wb) = ([[side[n] for side in row] for n in (0, 1)] for row in zip(*pairs, strict=True))
        found.append(
            Difference(
                key,
                mean_interval(va, wa),
                mean_interval(vb, wb),
                difference_interval(va, vb, weights=(wa, wb)),
            )
        )
    return found


def as_data(differences: Sequence[Difference]) -> dict[str, Any]:
    """Plain data for JSON."""
    return {
        d.key: {
            "A": d.first.as_dict(),
            "B": d.second.as_dict(),
            "change": d.change.as_dict(),
            "better": d.better,
        }
        for d in differences
    }
