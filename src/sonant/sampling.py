"""Choosing tokens: filters on logits in float32, draws from an utterance's own generator, seeds.

A filter takes scores [..., V] and returns scores with removed entries at -inf. Which filters a family
applies, and in which order, is the family's business and part of its parity.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

NEGATIVE_INFINITY = float("-inf")


def generator(seed: int, stream: str) -> torch.Generator:
    """A CPU generator for one named use of one utterance, such as "tokens" or "noise".

    Streams of one seed are independent, so how often one is drawn from never moves another.
    """
    digest = hashlib.sha256(f"sonant:{seed}:{stream}".encode()).digest()
    made = torch.Generator(device="cpu")
    made.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return made


def segment_seed(seed: int, index: int) -> int:
    """The seed of segment number `index` of a request; segment 0 keeps the request's seed."""
    if index == 0:
        return seed
    digest = hashlib.sha256(f"sonant-segment:{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def penalise_repetition(scores: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Scores [V] with each distinct id of `history` [n] divided (or multiplied, below 0) by `penalty`.

    Source: CTRL, arXiv 1909.05858; the sign rule is transformers'.
    """
    if penalty == 1.0 or history.numel() == 0:
        return scores
    scores = scores.clone()
    ids = torch.unique(history)
    chosen = scores[ids]
    scores[ids] = torch.where(chosen < 0, chosen * penalty, chosen / penalty)
    return scores


def keep_top_k(scores: Tensor, k: int, *, at_least: int = 1) -> Tensor:
    """Scores [..., V] with everything below the k-th best removed; ties with it stay. k 0 is off."""
    if k <= 0:
        return scores
    k = min(max(k, at_least), scores.shape[-1])
    threshold = scores.topk(k, dim=-1).values[..., -1:]
    return scores.masked_fill(scores < threshold, NEGATIVE_INFINITY)


def keep_top_p(scores: Tensor, p: float, *, at_least: int = 1) -> Tensor:
    """Scores [..., V] without the tail whose cumulative probability is at most 1 - p. p 1 is off.

    Sorted ascending, as transformers does it, so equal scores fall on the same side.
    """
    if p >= 1.0:
        return scores
    ordered, order = scores.sort(dim=-1, descending=False)
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1)
    remove = cumulative <= 1 - p
    remove[..., -at_least:] = False
    return scores.masked_fill(remove.scatter(-1, order, remove), NEGATIVE_INFINITY)


def draw(probabilities: Tensor, rng: torch.Generator) -> Tensor:
    """One id [] from probabilities [V] on any device, by an exponential race on the CPU generator.

    Equal to `torch.multinomial(probabilities, 1, generator=rng)` on the CPU, and the same on a GPU.
    """
    race = torch.empty(probabilities.shape, dtype=torch.float32).exponential_(1, generator=rng)
    return (probabilities.float() / race.to(probabilities.device)).argmax(dim=-1)
