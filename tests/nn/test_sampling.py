"""Quick filters are the plain ones, to the bit, ties and rows without choice included."""

import pytest
import torch

from sonant.nn.sampling import keep_top_k, keep_top_k_and_p, keep_top_p, penalise_repetition


@pytest.mark.parametrize("levels", [0, 7, 400])  # how many different scores there are; 0: all differ
@pytest.mark.parametrize("at_least", [1, 2])
def test_both_filters_at_once_are_one_after_the_other(levels, at_least):
    rng = torch.Generator().manual_seed(levels)
    for number in range(60):
        scores = torch.randn(3, 500, generator=rng) * (1 + number % 5)
        if levels:
            scores = (scores * levels / 10).round() * 10 / levels
        if number % 4 == 0:
            scores[:, 20:] = float("-inf")
        k, p = (1, 2, 30, 499, 500, 0)[number % 6], (0.0, 0.3, 0.8, 0.95, 1.0)[number % 5]
        expected = keep_top_p(keep_top_k(scores, k, at_least=at_least), p, at_least=at_least)
        assert torch.equal(keep_top_k_and_p(scores, k, p, at_least=at_least), expected)
        row = keep_top_p(keep_top_k(scores[0], k, at_least=at_least), p, at_least=at_least)
        assert torch.equal(keep_top_k_and_p(scores[0], k, p, at_least=at_least), row)


def test_an_id_is_penalised_once_however_often_it_came():
    scores = torch.tensor([[2.0, -1.0, 4.0], [1.0, 3.0, -2.0]])
    kept = scores.clone()
    found = penalise_repetition(scores, torch.tensor([[0, 1, 0, 0], [2, 2, 2, 1]]), 2.0)
    assert torch.equal(found, torch.tensor([[1.0, -2.0, 4.0], [1.0, 1.5, -4.0]]))
    assert torch.equal(scores, kept)
    assert torch.equal(penalise_repetition(scores[1], torch.tensor([2, 1]), 2.0), found[1])
