"""Choosing speech tokens as the original does: repetition-aware sampling, and the filter of long silences.

Source: VALL-E 2, arXiv 2406.05370, algorithm 1, with the peculiarities of the original's code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sonant.families.cosyvoice3.config import MAX_SILENT_RUN, SILENT_TOKENS
from sonant.nn.sampling import NEGATIVE_INFINITY

Pick = Callable[[Tensor], int]
"""Index of one entry of probabilities [n], which need not sum to one."""


def nucleus(probabilities: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """The candidates of probabilities [V]: their probabilities and ids, both [n], best first.

    Candidates are taken while those before them sum to less than `top_p` and are fewer than `top_k`.
    top_k 0 is off, and so is top_p 1 but for entries behind those that sum to 1 in float32.
    """
    ordered, ids = probabilities.sort(descending=True, stable=True)
    limit = min(top_k, len(ordered)) if top_k > 0 else len(ordered)
    # Parity: the original sums in float32, one by one; so does numpy's cumsum.
    sums = np.cumsum(ordered[:limit].numpy(), dtype=ordered.numpy().dtype)
    count = min(limit, 1 + int(np.count_nonzero(sums[:-1] < ordered.numpy().dtype.type(top_p))))
    return ordered[:count], ids[:count]


def repetition_aware(
    scores: Tensor,
    history: Sequence[int],
    pick: Pick,
    *,
    top_p: float,
    top_k: int,
    window: int,
    share: float,
) -> int:
    """One id from log-probabilities [V] on the CPU, after the ids of `history`.

    A draw from the nucleus that occurs `window * share` times or more among the last `window` ids is
    dropped, and one is drawn from the whole distribution without it. Parity: the history holds every id
    the model gave, and the second draw has no nucleus.
    """
    probabilities, ids = nucleus(scores.softmax(dim=0), top_p, top_k)
    chosen = int(ids[pick(probabilities)])
    if list(history[-window:]).count(chosen) >= window * share:
        scores = scores.clone()
        scores[chosen] = NEGATIVE_INFINITY
        chosen = pick(scores.softmax(dim=0))
    return chosen


def mask_before_minimum(scores: Tensor, speech_tokens: int) -> Tensor:
    """Log-probabilities [V] with the id that may not be drawn below the minimum length removed.

    Parity: that id is the first special one (start), not the one that ends an utterance: the original kept
    the position it had in CosyVoice2. So an utterance may end early, as it may there.
    """
    scores = scores.clone()
    scores[speech_tokens] = NEGATIVE_INFINITY
    return scores


def race(generator: torch.Generator) -> Pick:
    """Draws by an exponential race, equal to `torch.multinomial(probabilities, 1)` on this generator."""

    def pick(probabilities: Tensor) -> int:
        return int(torch.multinomial(probabilities, 1, replacement=True, generator=generator))

    return pick


def greedy(probabilities: Tensor) -> int:
    """The best entry, the first of equals."""
    return int(probabilities.numpy().argmax())


class SilenceFilter:
    """Drops silent tokens of a run beyond the fifth; any other token starts anew."""

    def __init__(self) -> None:
        self.run = 0

    def keeps(self, token: int) -> bool:
        """Whether this next token of the utterance is spoken."""
        self.run = self.run + 1 if token in SILENT_TOKENS else 0
        return self.run <= MAX_SILENT_RUN
