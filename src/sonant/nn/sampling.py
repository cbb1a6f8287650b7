"""Choosing tokens: filters on logits in float32, draws from an utterance's own generator, seeds.

A filter takes scores [..., V] and returns scores with removed entries at -inf. Which filters a family
applies, and in which order, is the family's business and part of its parity.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.errors import NotFiniteError

NEGATIVE_INFINITY = float("-inf")


def generator(seed: int, stream: str) -> torch.Generator:
    """A CPU generator for one named use of one utterance, such as "tokens" or "noise".

    Streams of one seed are independent, so how often one is drawn from never moves another.
    """
    digest = hashlib.sha256(f"sonant:{seed}:{stream}".encode()).digest()
    made = torch.Generator(device="cpu")
    made.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return made


def check_finite(logits: Tensor) -> Tensor:
    """The raw logits of an utterance, of any shape. Raises NotFiniteError where one is NaN or infinite."""
    if not math.isfinite(float(logits.sum(dtype=torch.float32))) and not bool(logits.isfinite().all()):
        raise not_finite()
    return logits


def not_finite() -> NotFiniteError:
    """The error for scores that are no numbers."""
    return NotFiniteError(
        "the model's scores for the next token are no numbers (NaN or infinite). The weights or the "
        "precision are at fault; try --dtype float32 without --precision, and sonant parity to find "
        "the stage."
    )


def chance_of(token: int, scores: Tensor) -> tuple[int, float]:
    """Rank (0 is the likeliest) and probability of a token under raw scores [V]."""
    scores = scores.float()
    return int((scores > scores[token]).sum()), float(scores.softmax(dim=-1)[token])


def penalise_repetition(scores: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Scores [..., V] with each id of `history` [..., n] divided (or multiplied, below 0) by `penalty`, once.

    Source: CTRL, arXiv 1909.05858; the sign rule is transformers'.
    """
    if penalty == 1.0 or history.numel() == 0:
        return scores
    chosen = scores.gather(-1, history)  # an id that comes twice is given the same value twice
    return scores.scatter(-1, history, _penalised(chosen, penalty))


def penalise_told(scores: Tensor, told: Tensor, penalty: Tensor) -> Tensor:
    """`penalise_repetition` of the ids marked in `told` [B, V], with a penalty of each row's own [B, 1]."""
    return torch.where(told, _penalised(scores, penalty), scores)


def _penalised(scores: Tensor, penalty: float | Tensor) -> Tensor:
    return torch.where(scores < 0, scores * penalty, scores / penalty)


def keep_top_k(scores: Tensor, k: int, *, at_least: int = 1) -> Tensor:
    """Scores [..., V] with everything below the k-th best removed; ties with it stay. k 0 is off."""
    if k <= 0:
        return scores
    k = min(max(k, at_least), scores.shape[-1])
    return _without_worse(scores, scores.topk(k, dim=-1).values[..., -1:])


def keep_top_p(scores: Tensor, p: float, *, at_least: int = 1) -> Tensor:
    """Scores [..., V] without the tail whose cumulative probability is at most 1 - p. p 1 is off.

    Sorted ascending, as transformers does it, so equal scores fall on the same side.
    """
    return scores if p >= 1.0 else _without_tail(scores, 1 - p, at_least=at_least)


def _without_worse(scores: Tensor, threshold: Tensor) -> Tensor:
    """Scores [..., V] with what is below a threshold [..., 1] removed."""
    return scores.masked_fill(scores < threshold, NEGATIVE_INFINITY)


def _without_tail(scores: Tensor, surplus: float | Tensor, *, at_least: int = 1) -> Tensor:
    """Scores [..., V] without the worst, as long as they sum to at most `surplus`, a number or [..., 1]."""
    ordered, order = scores.sort(dim=-1, descending=False)
    remove = ordered.softmax(dim=-1).cumsum(dim=-1) <= surplus
    remove[..., -at_least:] = False
    return scores.masked_fill(remove.scatter(-1, order, remove), NEGATIVE_INFINITY)


def keep_top_k_and_p(scores: Tensor, k: int, p: float, *, at_least: int = 1) -> Tensor:
    """`keep_top_p` of `keep_top_k`, to the bit, mostly without sorting more than what the first leaves."""
    # Whether the quick way holds has to be looked at, which elsewhere would wait for the device.
    if scores.device.type == "cpu" and k > 0 and p < 1.0 and max(k, at_least) < scores.shape[-1]:
        best, places = scores.topk(max(k, at_least), dim=-1)
        is_kept = scores >= best[..., -1:]
        # Among equal scores the sort decides which go; and a k-th that has equals keeps them all.
        if int(is_kept.count_nonzero()) == best.numel() and not bool((best[..., 1:] == best[..., :-1]).any()):
            ordered = torch.full_like(scores, NEGATIVE_INFINITY)
            ordered[..., -best.shape[-1] :] = best.flip(-1)  # as long as ever, so that sums are the same
            cumulative = ordered.softmax(dim=-1)[..., -best.shape[-1] :].cumsum(dim=-1)
            remove = cumulative <= 1 - p
            remove[..., -at_least:] = False
            left = best.masked_fill(remove.flip(-1), NEGATIVE_INFINITY)
            return torch.full_like(scores, NEGATIVE_INFINITY).scatter(-1, places, left)
    return keep_top_p(keep_top_k(scores, k, at_least=at_least), p, at_least=at_least)


def draw(probabilities: Tensor, rng: torch.Generator) -> Tensor:
    """One id [] from probabilities [V] on any device, by an exponential race on the CPU generator.

    Equal to `torch.multinomial(probabilities, 1, generator=rng)` on the CPU, and the same on a GPU.
    """
    race = torch.empty(probabilities.shape, dtype=torch.float32).exponential_(1, generator=rng)
    return _winner(probabilities, race.to(probabilities.device))


def _winner(probabilities: Tensor, race: Tensor) -> Tensor:
    """Ids [...] of an exponential race, of probabilities [..., V] and variates of the same shape."""
    return (probabilities.float() / race).argmax(dim=-1)


@dataclass(frozen=True)
class Choice:
    """How one row chooses; the values given here filter nothing."""

    is_greedy: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def filters(choices: Sequence[Choice]) -> tuple[int, bool]:
    """`best` and `has_top_p` of `shape_rows`: the largest top_k (0: all off), and whether any has a top_p."""
    return max(choice.top_k for choice in choices), any(choice.top_p < 1.0 for choice in choices)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSettings:
    """How each row of a batch chooses: tensors [B] on the device of the scores."""

    greedy: Tensor
    """bool"""
    temperature: Tensor
    top_k: Tensor
    """int64; 0 is off."""
    surplus: Tensor
    """1 - top_p; 0 is off."""

    @classmethod
    def of(
        cls, choices: Sequence[Choice], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> RowSettings:
        """Of rows that choose so; `dtype` is that of the scores."""
        return cls(
            greedy=torch.tensor([choice.is_greedy for choice in choices]).to(device),
            temperature=torch.tensor([choice.temperature for choice in choices], dtype=dtype).to(device),
            top_k=torch.tensor([choice.top_k for choice in choices]).to(device),
            surplus=torch.tensor([_surplus(choice) for choice in choices], dtype=dtype).to(device),
        )

    def set(self, row: int, choice: Choice) -> None:
        """Let another utterance have the row."""
        self.greedy[row] = choice.is_greedy
        self.temperature[row] = choice.temperature
        self.top_k[row] = choice.top_k
        self.surplus[row] = _surplus(choice)

    def rows(self, count: int) -> RowSettings:
        """Of the first `count` rows."""
        return RowSettings(
            greedy=self.greedy[:count],
            temperature=self.temperature[:count],
            top_k=self.top_k[:count],
            surplus=self.surplus[:count],
        )


def _surplus(choice: Choice) -> float:
    return 0.0 if choice.top_p >= 1.0 else 1 - choice.top_p


def shape_alike(scores: Tensor, choice: Choice) -> Tensor:
    """`shape_rows` of scores [..., V] that all choose alike: the same values, with less work on a CPU."""
    if choice.is_greedy:
        return scores
    return keep_top_k_and_p(scores / choice.temperature, choice.top_k, choice.top_p)


def shape_rows(scores: Tensor, settings: RowSettings, *, best: int, has_top_p: bool) -> Tensor:
    """Scores [B, V] after temperature, `keep_top_k` and `keep_top_p`; a greedy row's stay as they are.

    Every row has its own settings, and nothing depends on their values but the result, so a device need
    not be waited for. `best` is at least the largest top_k (0 when it is off in all rows), `has_top_p` false
    when that is off in all rows.
    """
    shaped = scores / settings.temperature[:, None]
    if best:
        ordered = shaped.topk(min(best, shaped.shape[-1]), dim=-1).values
        place = (settings.top_k - 1).clamp(0, ordered.shape[-1] - 1)[:, None]
        is_off = (settings.top_k <= 0)[:, None]
        shaped = _without_worse(shaped, ordered.gather(-1, place).masked_fill(is_off, NEGATIVE_INFINITY))
    if has_top_p:
        nothing = -1.0  # no sum of probabilities is as little, not even of those that are 0
        surplus = settings.surplus.masked_fill(settings.surplus <= 0, nothing)
        shaped = _without_tail(shaped, surplus[:, None])
    return torch.where(settings.greedy[:, None], scores, shaped)


def choose_rows(shaped: Tensor, greedy: Tensor, race: Tensor) -> Tensor:
    """Ids [B] from what `shape_rows` gave [B, V]: the best of a `greedy` row, or what `draw` chooses.

    race [B, V] are the exponential variates that `draw` would take.
    """
    return torch.where(greedy, shaped.argmax(dim=-1), _winner(shaped.softmax(dim=-1), race))
