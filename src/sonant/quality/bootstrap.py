"""How sure is an average over sentences? Intervals by resampling the sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
CONFIDENCE = 0.95
FEWEST = 4
"""Sentences from which resampling tells anything: fewer ones have too few ways to be drawn, one alone a
single one, whose interval has no width."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with CONFIDENCE, as resampling has it."""

    value: float
    low: float
    high: float
    count: int
    """Sentences that it rests on."""

    @property
    def is_known(self) -> bool:
        """Whether there are sentences enough for the interval to mean anything."""
        return self.count >= FEWEST

    @property
    def is_sure(self) -> bool:
        """Whether zero lies outside, of an interval that is known."""
        return self.is_known and (self.low > 0 or self.high < 0)

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain numbers for JSON; no interval where it is not known."""
        low, high = (round(end, 5) if self.is_known else None for end in (self.low, self.high))
        return {"value": round(self.value, 5), "low": low, "high": high, "sentences": self.count}


def mean_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Interval:
    """The mean of one value a sentence; with weights the sum of values over the sum of weights, which is how
    word errors and words make a rate."""
    top = np.asarray(values, dtype=np.float64)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, dtype=np.float64)
    drawn = _draws(len(top), seed)
    return _interval(_ratio(top, bottom), _ratio(top[drawn], bottom[drawn]), len(top))


def difference_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    weights: tuple[Sequence[float], Sequence[float]] | None = None,
    seed: int = 0,
) -> Interval:
    """The second's mean less the first's, sentence by sentence the same ones: pairs are drawn together."""
    a, b = (np.asarray(side, dtype=np.float64) for side in (first, second))
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values do not pair")
    wa, wb = (
        (np.ones_like(a), np.ones_like(b)) if weights is None else (np.asarray(w, float) for w in weights)
    )
    drawn = _draws(len(a), seed)
    value = _ratio(b, wb) - _ratio(a, wa)
    return _interval(value, _ratio(b[drawn], wb[drawn]) - _ratio(a[drawn], wa[drawn]), len(a))


def _draws(count: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))


def _ratio(top: Numbers, bottom: Numbers) -> Numbers:
    result: Numbers = top.sum(axis=-1) / np.maximum(bottom.sum(axis=-1), 1e-12)
    return result


def _interval(value: Numbers, resampled: Numbers, count: int) -> Interval:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high), count)
