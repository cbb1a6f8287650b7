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
    penalise_told,
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
class TalkerFilter:
    """What may be token 0, whatever the settings: two masks [V] on the device of the logits."""

    is_silent: Tensor
    is_end: Tensor

    @classmethod
    def of(cls, vocabulary: int, end: int, device: torch.device) -> TalkerFilter:
        """`end` is the token that ends the speech; it lies among the silent ones."""
        ids = torch.arange(vocabulary)
        is_silent = (ids >= vocabulary - SUPPRESSED_TAIL) & (ids != end)
        return cls(is_silent.to(device), (ids == end).to(device))

    def __call__(self, logits: Tensor, told: Tensor, frames: Tensor, penalty: Tensor) -> Tensor:
        """Scores [B, V] from logits [B, V], after `frames` [B] frames with the tokens `told` [B, V].

        penalty [B, 1] makes those less likely.
        """
        is_early = (frames < MIN_TOKENS)[:, None] & self.is_end
        return penalise_told(logits, told, penalty).masked_fill(self.is_silent | is_early, NEGATIVE_INFINITY)


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
    logits: Tensor, history: Sequence[int] | Tensor, sampling: Sampling, *, end: int, greedy: bool = False
) -> Tensor:
    """Scores [V] of token 0 from its float32 logits [V], after every filter.

    `history` holds the tokens chosen so far (prompts count none). Greedy choice stops before the
    temperature.
    """
    past = torch.as_tensor(history, dtype=torch.int64, device=logits.device)
    told = torch.zeros_like(logits, dtype=torch.bool)
    told[past] = True
    scores = TalkerFilter.of(len(logits), end, logits.device)(
        logits[None],
        told[None],
        torch.tensor([len(past)], device=logits.device),
        torch.tensor([[sampling.repetition_penalty or 1.0]], device=logits.device, dtype=logits.dtype),
    )
    return _shape(scores, [replace(talker_choice(sampling), is_greedy=greedy)])[0]


def predictor_scores(logits: Tensor, sampling: Sampling) -> Tensor:
    """Scores [B, V] of the code predictor's tokens, all with the same settings: no penalty, no end there."""
    return _shape(logits, [replace(predictor_choice(sampling), is_greedy=False)] * len(logits))


def _shape(scores: Tensor, choices: Sequence[Choice]) -> Tensor:
    best, has_top_p = filters(choices)
    settings = RowSettings.of(choices, scores.device, scores.dtype)
    return shape_rows(scores, settings, best=best, has_top_p=has_top_p)


def choose_talker(
    logits: Tensor, history: Sequence[int], sampling: Sampling, rng: torch.Generator, *, end: int
) -> Tensor:
    """Token 0, [], from logits [V]. Raises NotFiniteError."""
    check_finite(logits)
    greedy = bool(sampling.greedy)
    scores = tap("talker.scores", talker_scores(logits, history, sampling, end=end, greedy=greedy))
    return scores.argmax() if greedy else draw(scores.softmax(dim=-1), rng)


def choose_predictor(
    logits: Tensor, choices: Sequence[Choice], generators: Sequence[torch.Generator]
) -> Tensor:
    """One group's tokens [B] from logits [B, V], each row with its own settings and generator."""
    settings = RowSettings.of(choices, logits.device, logits.dtype)
    best, has_top_p = filters(choices)
    scores = shape_rows(logits, settings, best=best, has_top_p=has_top_p)
    if not all(choice.is_greedy for choice in choices):
        scores = tap("predictor.scores", scores)
    race = torch.ones(logits.shape)
    for row, (choice, rng) in enumerate(zip(choices, generators, strict=True)):
        if not choice.is_greedy:
            race[row].exponential_(1, generator=rng)
    return choose_rows(scores, settings, race.to(logits.device))
