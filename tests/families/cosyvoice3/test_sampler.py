"""Repetition-aware sampling with the original's peculiarities, and the silence filter."""

import torch

from sonant.families.cosyvoice3.sampler import (
    SilenceFilter,
    greedy,
    mask_before_minimum,
    nucleus,
    race,
    repetition_aware,
)
from sonant.parity.kits.cosyvoice3.front import inverse_cdf

SETTINGS = {"top_p": 0.8, "top_k": 25, "window": 10, "share": 0.1}


def test_draws_are_as_recorded(expected, rows):
    for scores, case in zip(expected["sampling.log_probs"], rows["sampling"]["cases"], strict=True):
        assert nucleus(scores.softmax(0), 0.8, 25)[1].tolist() == case["nucleus_ids"]
        pick = inverse_cdf(iter(case["uniforms"]))
        assert repetition_aware(scores, case["history"], pick, **SETTINGS) == case["chosen"]
        rng = torch.Generator().manual_seed(case["torch_seed"])
        chosen = repetition_aware(scores, case["history"], race(rng), **SETTINGS)
        assert chosen == case["chosen_torch_seeded"]


def test_any_repeat_within_the_window_is_dropped_and_one_outside_is_not():
    scores = torch.tensor([0.0, -9.0, -9.0]).log_softmax(0)
    assert repetition_aware(scores, [0], greedy, **SETTINGS) == 1
    assert repetition_aware(scores, [0] + [2] * 10, greedy, **SETTINGS) == 0


def test_the_second_draw_has_no_nucleus():
    scores = torch.tensor([5.0, 0.0, 0.0, 0.0]).log_softmax(0)
    seen = []

    def last(probabilities):
        seen.append(len(probabilities))
        return len(probabilities) - 1

    assert repetition_aware(scores, [0], last, **SETTINGS) == 3
    assert seen == [1, 4]


def test_scores_are_not_changed():
    scores = torch.randn(20, generator=torch.Generator().manual_seed(0)).log_softmax(0)
    before = scores.clone()
    repetition_aware(scores, list(range(20)), greedy, **SETTINGS)
    mask_before_minimum(scores, 3)
    assert torch.equal(scores, before)


def test_below_the_minimum_only_the_first_special_id_is_masked():
    masked = mask_before_minimum(torch.zeros(10), 6)
    assert torch.isinf(masked).tolist() == [False] * 6 + [True] + [False] * 3


def test_what_lies_behind_a_whole_sum_is_no_candidate_even_at_top_p_1():
    """Parity: how many candidates there are decides how much of the random stream a draw uses."""
    probabilities = torch.tensor([0.75, 1e-9, 0.25])
    assert nucleus(probabilities, 1.0, 25)[1].tolist() == [0, 2]


def test_nucleus_can_be_switched_off():
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    assert nucleus(probabilities, 1.0, 0)[1].tolist() == [1, 2, 0]
    assert nucleus(probabilities, 1.0, 2)[1].tolist() == [1, 2]
    assert nucleus(probabilities, 1e-6, 25)[1].tolist() == [1]


def test_long_silences_are_shortened_as_recorded(rows):
    for row in rows["sampling"]["silent_filter"]:
        silence = SilenceFilter()
        assert [token for token in row["in"] if silence.keeps(token)] == row["out"]
