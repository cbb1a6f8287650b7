"""How a candidate of a sweep stands: its clips, what they come to, and which of all to recommend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sonant.quality.bootstrap import FEWEST, Interval
from sonant.quality.trials import Candidate, Clip
from sonant.text.scoring import Score

DEFAULT = "default"
"""The candidate that is the model's own settings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """One candidate's clips and what they come to."""

    candidate: Candidate
    clips: tuple[Clip, ...]
    against_default: Interval | None = None
    """Points more than the default's, sentence by sentence; below 0 is better."""

    @property
    def points(self) -> float:
        """Mean of the clips'; fewer are better."""
        return float(np.mean([clip.points for clip in self.clips]))

    @property
    def summary(self) -> dict[str, float | int | None]:
        """Averages over the clips that there are."""
        made = [clip for clip in self.clips if clip.judgement is not None]
        scores = [clip.judgement.words for clip in made if clip.judgement is not None]
        words = sum((score for score in scores if score is not None), Score())

        def mean(values: Sequence[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return float(np.mean(known)) if known else None

        found = [clip.judgement for clip in made if clip.judgement is not None]
        seconds = sum(clip.seconds for clip in made)
        return {
            "points": self.points,
            "wer": words.wer if made else None,
            "longest_wrong": words.longest if made else None,
            "dnsmos": mean([j.mos.overall if j.mos is not None else None for j in found]),
            "similarity": mean([j.similarity for j in found]),
            "syllable_rate": mean([c.measurement.syllable_rate for c in made if c.measurement is not None]),
            "loudness": mean([c.measurement.loudness for c in made if c.measurement is not None]),
            "guards": sum(len(clip.guards) for clip in made),
            "failed": len(self.clips) - len(made),
            "real_time_factor": sum(clip.work for clip in made) / seconds if seconds else None,
        }


def doubts(count: int) -> tuple[str, ...]:
    """What is to be said of a ranking over so many sentences."""
    if count >= FEWEST:
        return ()
    said = "1 sentence" if count == 1 else f"{count} sentences"
    return (
        f"{said} cannot rank with confidence: the order below may be chance. Give {FEWEST} or more; "
        "eight are said by default",
    )


def recommend(standings: Sequence[Standing]) -> tuple[str, str]:
    """The name of the candidate to use and why, from standings with the best first.

    The default stays where nothing is better beyond what the choice of sentences would explain.
    """
    best = standings[0]
    if all(clip.error for standing in standings for clip in standing.clips):
        return DEFAULT, "every clip failed, so nothing is known"
    if best.candidate.name == DEFAULT:
        return DEFAULT, "nothing has fewer points than the model's own settings"
    against = best.against_default
    if against is None:
        return best.candidate.name, f"{best.points:.1f} points"
    if against.is_sure:
        than = f"{-against.low:.1f} to {-against.high:.1f} fewer than the default"
        return best.candidate.name, f"{best.points:.1f} points, {than}"
    fewer = f"{best.candidate.name} has {-against.value:.1f} points fewer, which"
    if not against.is_known:
        return DEFAULT, f"{fewer} too few sentences cannot tell from chance"
    return DEFAULT, f"{fewer} the sentences may explain: {against.low:+.1f} to {against.high:+.1f}"
