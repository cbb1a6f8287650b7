"""How far two tensors of one stage are apart, in the figures that every report shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sonant.parity.budgets import Budget
from sonant.parity.trace import Entry, stored_pair

ROUNDED = 1e-3
"""A budget above this is one of reduced precision."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Figures of one stage. `status` is "ok", "over", "shape" or "nonfinite"."""

    status: str
    max_abs: float = 0.0
    mean_abs: float = 0.0
    relative: float = 0.0
    """Largest difference over the reference's largest magnitude."""
    l2: float = 0.0
    """Length of the difference over the reference's length."""
    cosine: float = 1.0
    allowed: float = 0.0
    note: str = ""

    @property
    def over(self) -> float:
        """Largest difference in units of what is allowed; infinity for shapes and non-finite values."""
        if self.status in {"shape", "nonfinite"}:
            return math.inf
        if self.allowed == 0:
            return math.inf if self.max_abs else 0.0
        return self.max_abs / self.allowed


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1."""
    return tuple(size for size in shape if size != 1)


def distance(reference: Entry, found: Entry, budget: Budget, *, own: bool = False) -> Distance:
    """`found` measured against `reference`. Integers must be equal; axes of length 1 may be missing."""
    note = ""
    if reference.shape != found.shape:
        if squeezed(reference.shape) != squeezed(found.shape):
            return Distance(
                status="shape", note=f"shape {list(found.shape)}, expected {list(reference.shape)}"
            )
        note = f"shapes {list(reference.shape)} and {list(found.shape)} differ by axes of length 1"
    left, right = stored_pair(reference, found)
    if left.numel() == 0:
        return Distance(status="ok", note=note or "empty")
    if not left.is_floating_point() and not right.is_floating_point():
        return _exact(left, right, note)
    return _close(left.double(), right.double(), budget, own, note)


def _exact(left: Tensor, right: Tensor, note: str) -> Distance:
    difference = (left.long() - right.long()).abs().double()
    wrong = int((difference != 0).sum())
    if wrong:
        first = int(difference.nonzero()[0])
        note = (
            f"{wrong} of {left.numel()} differ, first at {first}: {int(right[first])}, not {int(left[first])}"
        )
    return Distance(
        status="over" if wrong else "ok",
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        relative=wrong / left.numel(),
        cosine=_cosine(left.double(), right.double()),
        note=note,
    )


def _close(left: Tensor, right: Tensor, budget: Budget, own: bool, note: str) -> Distance:
    finite = torch.isfinite(left)
    is_alike = torch.equal(finite, torch.isfinite(right)) and torch.equal(left[~finite], right[~finite])
    if not is_alike and not (left.isnan() == right.isnan()).all():
        return Distance(status="nonfinite", note="not-a-number in one of the two")
    if not is_alike:
        # A filter's threshold falls between other neighbours once scores are rounded.
        if budget.accumulated < ROUNDED:
            return Distance(status="nonfinite", note="infinities at other places")
        moved = int((finite != torch.isfinite(right)).sum())
        note = f"infinities at {moved} other places"
        finite = finite & torch.isfinite(right)
    left, right = left[finite], right[finite]
    if left.numel() == 0:
        return Distance(status="ok", note=note or "nothing finite, equal")
    difference = (left - right).abs()
    scale = float(left.abs().max())
    largest = float(difference.max())
    allowed = budget.allowed(scale, own=own)
    return Distance(
        status="ok" if largest <= allowed else "over",
        max_abs=largest,
        mean_abs=float(difference.mean()),
        relative=_ratio(largest, scale),
        l2=_ratio(float(difference.norm()), float(left.norm())),
        cosine=_cosine(left, right),
        allowed=allowed,
        note=note,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (0.0 if part == 0 else math.inf)


def _cosine(left: Tensor, right: Tensor) -> float:
    length = float(left.norm() * right.norm())
    if length == 0:
        return 1.0 if torch.equal(left, right) else 0.0
    return float(left @ right) / length
