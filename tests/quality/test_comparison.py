"""Differences over sentences, with intervals that hold what they should."""

import numpy as np
import pytest

from sonant.audio.measure import measure
from sonant.errors import RequestError
from sonant.quality.bootstrap import difference_interval, mean_interval
from sonant.quality.comparison import as_data, compare_clips
from sonant.quality.dnsmos import Mos
from sonant.quality.judges import Judgement
from sonant.quality.trials import Candidate, Clip
from sonant.text.scoring import Score


def test_intervals_of_a_mean_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        found = mean_interval(rng.normal(3.0, 1.0, 40).tolist(), seed=trial)
        covered += found.low <= 3.0 <= found.high
    assert 176 <= covered <= 198


def test_rates_are_sums_over_sums_and_pairs_stay_together():
    assert mean_interval([1, 3], [10, 10]).value == 0.2
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 50)
    apart = difference_interval(hard.tolist(), (hard + 1).tolist())
    assert apart.low == pytest.approx(1.0)
    assert apart.high == pytest.approx(1.0)
    assert apart.is_sure
    same = difference_interval(hard.tolist(), (hard + rng.normal(0, 1, 50)).tolist())
    assert not same.is_sure
    with pytest.raises(ValueError, match="do not pair"):
        difference_interval([1.0], [1.0, 2.0])


def clips(name, errors, mos, work=1.0):
    tone = np.sin(np.arange(16_000) * 0.1).astype(np.float32) * 0.3
    return [
        Clip(
            candidate=Candidate(name), number=n, text=f"sentence {n}", seconds=2.0, work=work,
            measurement=measure(tone, 16_000),
            judgement=Judgement(words=Score(words=10, word_errors=e), mos=Mos(m, m)),
        )
        for n, (e, m) in enumerate(zip(errors, mos, strict=True))
    ]  # fmt: skip


def test_what_differs_surely_is_called_better_and_the_rest_is_not():
    rng = np.random.default_rng(3)
    first = clips("A", rng.integers(2, 5, 30).tolist(), rng.normal(3.0, 0.3, 30).tolist())
    second = clips("B", rng.integers(0, 2, 30).tolist(), rng.normal(3.0, 0.3, 30).tolist(), work=2.0)
    found = {difference.key: difference for difference in compare_clips(first, second)}
    assert found["wer"].better == "B"
    assert found["wer"].first.value == pytest.approx(np.mean([c.judgement.words.wer for c in first]))
    assert found["dnsmos"].better is None
    assert found["real_time_factor"].better == "A"
    assert found["syllable_rate"].better is None
    assert "similarity" not in found


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_sentences_make_nothing_sure(count):
    found = compare_clips(clips("A", [9] * count, [1] * count), clips("B", [0] * count, [4] * count))
    by_key = {difference.key: difference for difference in found}
    assert by_key["wer"].change.value == pytest.approx(-0.9)
    assert all(difference.better is None for difference in found)
    assert as_data(found)["wer"]["change"] == {"value": -0.9, "low": None, "high": None, "sentences": count}
    assert mean_interval([1.0] * 4).as_dict() == {"value": 1.0, "low": 1.0, "high": 1.0, "sentences": 4}


def test_different_sentences_cannot_be_compared():
    first, second = clips("A", [1, 1], [3, 3]), clips("B", [1, 1, 1], [3, 3, 3])
    with pytest.raises(RequestError, match="same ones"):
        compare_clips(first, second)
