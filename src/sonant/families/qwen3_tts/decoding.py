"""From logits to tokens: the original's filters, in its order, for the talker and the code predictor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sonant.nn.native_frame import Choice
from sonant.nn.sampling import (
    NEGATIVE_INFINITY,
    check_finite,
    draw,
    keep_top_k_and_p,
    penalise_repetition,
)
from sonant.nn.tap import tap
from sonant.request.speech import Sampling

# Sources for both: constants of the original, not derived from the codebook's size.
SUPPRESSED_TAIL = 1024
"""The last ids of the talker's vocabulary (speakers, languages, markers) are never spoken."""
MIN_TOKENS = 2
"""The end token is impossible before this many tokens."""


def talker_scores(
    logits: Tensor, history: Sequence[int] | Tensor, sampling: Sampling, *, end: int, greedy: bool = False
) -> Tensor:
    """Scores [V] of token 0 from its float32 logits [V], after every filter.

    `history` holds the tokens chosen so far (prompts count none). Greedy choice stops before the
    temperature.
    """
    past = torch.as_tensor(history, dtype=torch.int64, device=logits.device)
    scores = penalise_repetition(logits, past, sampling.repetition_penalty or 1.0)
    scores = scores.clone()
    if len(past) < MIN_TOKENS:
        scores[end] = NEGATIVE_INFINITY
    kept = scores[end].clone()
    scores[-SUPPRESSED_TAIL:] = NEGATIVE_INFINITY
    scores[end] = kept
    if greedy:
        return scores
    return _shape(scores, sampling.temperature, sampling.top_k, sampling.top_p)


def predictor_scores(logits: Tensor, sampling: Sampling) -> Tensor:
    """Scores [..., V] of one of the code predictor's tokens: no penalty and no end there."""
    return _shape(logits, sampling.predictor_temperature, sampling.predictor_top_k, sampling.predictor_top_p)


def _shape(scores: Tensor, temperature: float | None, top_k: int | None, top_p: float | None) -> Tensor:
    scores = scores / (1.0 if temperature is None else temperature)
    return keep_top_k_and_p(scores, top_k or 0, 1.0 if top_p is None else top_p)


def quick_choices(
    samplings: Sequence[Sampling], generators: Sequence[torch.Generator]
) -> list[Choice] | None:
    """The same settings for the code predictor in C; None when one of them is not for it (top_p)."""
    if any(not s.predictor_greedy and (s.predictor_top_p or 1.0) < 1.0 for s in samplings):
        return None
    return [
        Choice(
            is_greedy=bool(s.predictor_greedy),
            temperature=1.0 if s.predictor_temperature is None else s.predictor_temperature,
            top_k=s.predictor_top_k or 0,
            generator=rng,
        )
        for s, rng in zip(samplings, generators, strict=True)
    ]


def choose_talker(
    logits: Tensor, history: Sequence[int], sampling: Sampling, rng: torch.Generator, *, end: int
) -> Tensor:
    """Token 0, [], from logits [V]. Raises NotFiniteError."""
    check_finite(logits)
    greedy = bool(sampling.greedy)
    scores = tap("talker.scores", talker_scores(logits, history, sampling, end=end, greedy=greedy))
    return scores.argmax() if greedy else draw(scores.softmax(dim=-1), rng)


def choose_predictor(
    logits: Tensor, samplings: Sequence[Sampling], generators: Sequence[torch.Generator]
) -> Tensor:
    """One group's tokens [B] from logits [B, V], each row with its own settings and generator."""
    tokens: list[Tensor] = [logits.new_zeros(())] * len(samplings)
    rows_of: dict[tuple[object, ...], list[int]] = {}
    for row, sampling in enumerate(samplings):
        key = (
            bool(sampling.predictor_greedy),
            sampling.predictor_temperature,
            sampling.predictor_top_k,
            sampling.predictor_top_p,
        )
        rows_of.setdefault(key, []).append(row)
    for (greedy, *_), rows in rows_of.items():
        chosen = logits if len(rows) == len(samplings) else logits[rows]
        if greedy:
            for row, token in zip(rows, chosen.argmax(dim=-1), strict=True):
                tokens[row] = token
            continue
        scores = tap("predictor.scores", predictor_scores(chosen, samplings[rows[0]]))
        probabilities = scores.softmax(dim=-1)
        for row, row_probabilities in zip(rows, probabilities, strict=True):
            tokens[row] = draw(row_probabilities, generators[row])
    return torch.stack(tokens)
