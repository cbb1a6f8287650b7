"""Emotion arithmetic: eight numbers, two matrices and a blend -> the emotion vector [D].

Order everywhere: happy, angry, sad, afraid, disgusted, melancholic, surprised, calm. The two matrices
hold, for each emotion, a group of recorded speakers: their style vectors and their emotion vectors.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Source: the original's web page, normalize_emo_vec.
BIAS = (0.9375, 0.875, 1.0, 1.0, 0.9375, 0.9375, 0.6875, 0.5625)
LARGEST_SUM = 0.8


def balanced(vector: Sequence[float], *, bias: bool = True) -> list[float]:
    """A vector as the original's web page sends it: each emotion weighed, the sum at most 0.8."""
    values = [value * weight for value, weight in zip(vector, BIAS, strict=True)] if bias else list(vector)
    total = sum(values)
    if total > LARGEST_SUM:
        factor = LARGEST_SUM / total
        values = [value * factor for value in values]
    return values


def scaled(vector: Sequence[float], strength: float) -> list[float]:
    """A vector times a strength held to 0..1, cut (not rounded) to four decimals."""
    factor = max(0.0, min(1.0, strength))
    return [int(value * factor * 10000) / 10000 for value in vector]


def with_strength(vector: Sequence[float], strength: float) -> list[float]:
    """`scaled`, but a full strength leaves the vector as it is, without the cut."""
    return list(vector) if max(0.0, min(1.0, strength)) == 1.0 else scaled(vector, strength)


def nearest_rows(style: Tensor, speakers: Sequence[Tensor]) -> list[int]:
    """In each group [n, S] the row most like style [S], by cosine similarity."""
    return [
        int(F.cosine_similarity(style[None].float(), group.float(), dim=1).argmax()) for group in speakers
    ]


def random_rows(rng: random.Random, sizes: Sequence[int]) -> list[int]:
    """In each group any row: one call of Python's generator a group, in order."""
    return [rng.randint(0, size - 1) for size in sizes]


def mixed_rows(vector: Sequence[float], emotions: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
    """Weighted sum [D] of one row of each group [n, D]."""
    chosen = torch.stack([group[row] for group, row in zip(emotions, rows, strict=True)])  # [8, D]
    weights = torch.tensor(list(vector), dtype=chosen.dtype, device=chosen.device)
    return (weights[:, None] * chosen).sum(dim=0)


def add_vector(base: Tensor, mixed: Tensor, vector: Sequence[float]) -> Tensor:
    """The blend's emotion [D] and the vector's: what the numbers leave over stays with the base.

    Parity: a sum above 1 makes the base's share negative; nothing limits it here.
    """
    weights = torch.tensor(list(vector), dtype=base.dtype, device=base.device)
    return mixed + (1 - weights.sum()) * base


def blend(own: Tensor, other: Tensor, strength: float) -> Tensor:
    """From the speaker's own emotion [D] towards another's; the strength is not limited."""
    return own + strength * (other - own)
