"""From logits to tokens: the original's filters, in its order, for the talker and the code predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sonant.nn.sampling import (
    NEGATIVE_INFINITY,
    Choice,
    RowSettings,
    check_finite,
    choose_rows,
    draw,
    filters,
    penalise_repetition,
    shape_alike,
    shape_rows,
)
from sonant.nn.tap import tap
from sonant.request.speech import Sampling

# Sources for both: constants of the original, not derived from the codebook's size.
SUPPRESSED_TAIL = 1024
"""The last ids of the talker's vocabulary (speakers, languages, markers) are never spoken."""
MIN_TOKENS = 2
"""The end token is impossible before this many tokens."""


@dataclass(frozen=True, eq=False)
class Barred:
    """What token 0 may not be: masks [V] on the device of the logits."""

    early: Tensor
    """Before `MIN_TOKENS` tokens."""
    later: Tensor

    @classmethod
    def of(cls, vocabulary: int, end: int, device: torch.device) -> Barred:
        """`end` is the token that ends the speech, wherever it lies."""
        ids = torch.arange(vocabulary)
        silent = ids >= vocabulary - SUPPRESSED_TAIL
        return cls((silent | (ids == end)).to(device), (silent & (ids != end)).to(device))


def talker_choice(sampling: Sampling) -> Choice:
    """How token 0 is chosen."""
    return _choice(sampling.greedy, sampling.temperature, sampling.top_k, sampling.top_p)


def predictor_choice(sampling: Sampling) -> Choice:
    """How the code predictor's tokens are chosen."""
    return _choice(
        sampling.predictor_greedy,
        sampling.predictor_temperature,
        sampling.predictor_top_k,
        sampling.predictor_top_p,
    )


def _choice(greedy: bool | None, temperature: float | None, top_k: int | None, top_p: float | None) -> Choice:
    return Choice(
        is_greedy=bool(greedy),
        temperature=1.0 if temperature is None else temperature,
        top_k=top_k or 0,
        top_p=1.0 if top_p is None else top_p,
    )


def talker_scores(
    logits: Tensor,
    history: Sequence[int] | Tensor,
    sampling: Sampling,
    barred: Barred,
    *,
    greedy: bool = False,
) -> Tensor:
    """Scores [V] of token 0 from its float32 logits [V], after every filter.

    `history` holds the tokens chosen so far (prompts count none). Greedy choice stops before the
    temperature.
    """
    past = torch.as_tensor(history, dtype=torch.int64, device=logits.device)
    scores = penalise_repetition(logits, past, sampling.repetition_penalty or 1.0)
    scores = scores.masked_fill(barred.early if len(past) < MIN_TOKENS else barred.later, NEGATIVE_INFINITY)
    return shape_alike(scores, replace(talker_choice(sampling), is_greedy=greedy))


def predictor_scores(logits: Tensor, sampling: Sampling) -> Tensor:
    """Scores [..., V] of the code predictor's tokens, all with one choice: no penalty, no end there."""
    return shape_alike(logits, replace(predictor_choice(sampling), is_greedy=False))


def choose_talker(
    logits: Tensor, history: Sequence[int], sampling: Sampling, rng: torch.Generator, barred: Barred
) -> Tensor:
    """Token 0, [], from logits [V]. Raises NotFiniteError."""
    check_finite(logits)
    greedy = bool(sampling.greedy)
    scores = tap("talker.scores", talker_scores(logits, history, sampling, barred, greedy=greedy))
    return scores.argmax() if greedy else draw(scores.softmax(dim=-1), rng)


def choose_predictor(
    logits: Tensor, choices: Sequence[Choice], generators: Sequence[torch.Generator]
) -> Tensor:
    """One group's tokens [B] from logits [B, V], each row with its own settings and generator."""
    if all(choice.is_greedy for choice in choices):
        return logits.argmax(dim=-1)
    settings = RowSettings.of(choices, logits.device, logits.dtype)
    if len(set(choices)) == 1:
        scores = shape_alike(logits, choices[0])
    else:
        best, has_top_p = filters(choices)
        scores = shape_rows(logits, settings, best=best, has_top_p=has_top_p)
    scores = tap("predictor.scores", scores)
    race = torch.ones(logits.shape)
    for row, (choice, rng) in enumerate(zip(choices, generators, strict=True)):
        if not choice.is_greedy:
            race[row].exponential_(1, generator=rng)
    return choose_rows(scores, settings.greedy, race.to(logits.device))
