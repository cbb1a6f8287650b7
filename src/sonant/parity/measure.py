"""How far two tensors of one stage are apart, in the figures that every report shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from sonant.parity.budgets import Budget
from sonant.parity.layout import (
    Arrangement,
    arranged,
    axis_names,
    length_words,
    orders,
    relative,
    squeezed,
)
from sonant.parity.reference.tracefile import sample_positions
from sonant.parity.trace import Entry, stored_pair

ROUNDED = 1e-3
"""A budget above this is one of reduced precision."""
FEW = 2
"""A tensor that lacks no more positions than this is too short, not a part that was kept on purpose."""

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
"""Half the distance between neighbours around 1: what storing a number may move it."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Figures of one stage. `status` is "ok", "over", "shape", "nonfinite" or "missing"."""

    status: str
    max_abs: float = 0.0
    mean_abs: float = 0.0
    relative: float = 0.0
    """Largest difference over the reference's largest magnitude."""
    l2: float = 0.0
    """Length of the difference over the reference's length."""
    cosine: float = 1.0
    allowed: float = 0.0
    share: float | None = None
    """Largest difference in units of what is allowed, less what storing may have moved each element."""
    note: str = ""
    is_exact: bool = False
    """Tokens and other whole numbers, which must be equal."""
    is_part: bool = False
    """Only a part of the stage was there to compare."""

    @property
    def over(self) -> float:
        """Largest difference in units of what is allowed; infinity for shapes and non-finite values."""
        if self.status in {"shape", "nonfinite", "missing"}:
            return math.inf
        if self.share is not None:
            return self.share
        if self.allowed == 0:
            return math.inf if self.max_abs else 0.0
        return self.max_abs / self.allowed

    @property
    def is_equal(self) -> bool:
        """Bit for bit equal, as far as both are stored."""
        return self.status == "ok" and self.max_abs == 0 and not self.is_part


def distance(
    reference: Entry,
    found: Entry,
    budget: Budget,
    *,
    own: bool = False,
    unit: float = 0.0,
    any_layout: bool = False,
    documented: str = "",
) -> Distance:
    """`found` measured against `reference`. Whole numbers must be equal; axes of length 1 may be missing.

    `unit` is the relative rounding that storing has added, element by element. With `any_layout` the same
    numbers in another order of axes, or a part of them, are compared as they fit; without, they are a
    wrong shape, and the note says how they would fit.
    """
    note = ""
    if squeezed(reference.shape) == squeezed(found.shape):
        if reference.shape != found.shape:
            note = f"shapes {list(reference.shape)} and {list(found.shape)} differ by axes of length 1"
        return _measured(*stored_pair(reference, found), budget, own, unit, note)
    fit = _fitted(reference, found, documented)
    length = length_words(documented, reference.shape, found.shape)
    wrong = f"shape {list(found.shape)}, expected {list(reference.shape)}{f', {length}' * bool(length)}"
    if fit is None:
        return Distance(status="shape", note=wrong)
    left, right, arrangement, missing = fit
    measured = _measured(left, right, budget, own, unit, arrangement.words)
    measured = replace(measured, is_part=arrangement.is_part)
    is_close = measured.status == "ok" or measured.l2 < 0.2
    if any_layout and not (arrangement.is_part and missing <= FEW):
        return measured
    if not is_close:
        return Distance(status="shape", note=wrong)
    alike = "the same values" if measured.status == "ok" else "similar values"
    return replace(measured, status="shape", note=f"{wrong}: {alike}, {arrangement.words}")


def _fitted(
    reference: Entry, found: Entry, documented: str
) -> tuple[Tensor, Tensor, Arrangement, int] | None:
    """Elements of both in one order, how they were ordered, and how many positions only one of them has."""
    names = axis_names(documented, reference.shape)
    if found.sampled is not None:
        return None
    if reference.sampled is not None:
        if prod(reference.shape) != found.elements:
            return None
        positions = sample_positions(reference.elements, reference.sampled)
        kept = [name for name, size in zip(names, reference.shape, strict=True) if size != 1]
        best: tuple[float, Tensor, str] | None = None
        for values, order, is_reference in orders(reference.shape, found.stored):
            at = values.flatten()[positions]
            score = relative(reference.stored, at)
            if best is None or score < best[0]:
                words = (
                    f"laid out as [{', '.join(kept[axis] for axis in order)}]" if is_reference else "split"
                )
                best = score, at, words
        if best is None:
            return None
        return reference.stored, best[1], Arrangement(values=best[1], words=best[2]), 0
    fit = arranged(reference.stored, found.stored, names)
    if fit is None:
        return None
    left = reference.stored.flatten()
    if fit.kept is not None:
        left = left[fit.kept]
    long, short = sorted((reference.elements, found.elements), reverse=True)
    missing = 0
    if fit.is_part:
        sizes, other = squeezed(reference.shape), squeezed(found.shape)
        pairs = list(zip(sizes, other, strict=True)) if len(sizes) == len(other) else []
        missing = max((abs(a - b) for a, b in pairs), default=max(sizes, default=0))
        if any(min(a, b) == 1 for a, b in pairs) or not pairs or short * 4 <= long:
            missing = max(missing, FEW + 1)
    return left, fit.values.flatten(), fit, missing


def _measured(left: Tensor, right: Tensor, budget: Budget, own: bool, unit: float, note: str) -> Distance:
    if left.numel() == 0:
        return Distance(status="ok", note=note or "empty")
    if not left.is_floating_point() and not right.is_floating_point():
        return _exact(left, right, note)
    if not left.is_floating_point() and _is_whole(right):
        return _exact(left, right.long(), note)
    return _close(left.double(), right.double(), budget, own, unit, note)


def _is_whole(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all()) and bool((values == values.round()).all())


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
        cosine=cosine(left.double(), right.double()),
        note=note,
        is_exact=True,
    )


def _close(left: Tensor, right: Tensor, budget: Budget, own: bool, unit: float, note: str) -> Distance:
    finite = torch.isfinite(left)
    is_alike = torch.equal(finite, torch.isfinite(right)) and torch.equal(left[~finite], right[~finite])
    if not is_alike and not (left.isnan() == right.isnan()).all():
        only = int((left.isnan() != right.isnan()).nonzero()[0])
        return Distance(status="nonfinite", note=f"not-a-number in one of the two, first at {only}")
    if not is_alike:
        places = (finite != torch.isfinite(right)).nonzero()
        first = int(places[0]) if len(places) else int((left != right).nonzero()[0])
        # A filter's threshold falls between other neighbours once scores are rounded.
        if max(budget.accumulated, unit) < ROUNDED:
            words = f"infinities at other places: {len(places)} of {left.numel()}, first at {first}"
            return Distance(status="nonfinite", note=words)
        note = f"infinities at {len(places)} other places"
        finite = finite & torch.isfinite(right)
    left, right = left[finite], right[finite]
    if left.numel() == 0:
        return Distance(status="ok", note=note or "nothing finite, equal")
    difference = (left - right).abs()
    scale = float(left.abs().max())
    largest = float(difference.max())
    allowed = budget.allowed(scale, own=own)
    # What storing may have moved is no part of the difference.
    share = float((difference - unit * left.abs()).clamp(min=0).max()) / allowed
    return Distance(
        status="ok" if share <= 1 else "over",
        max_abs=largest,
        mean_abs=float(difference.mean()),
        relative=_ratio(largest, scale),
        l2=_ratio(float(difference.norm()), float(left.norm())),
        cosine=cosine(left, right),
        allowed=allowed + unit * scale,
        share=share,
        note=note,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else (0.0 if part == 0 else math.inf)


def cosine(left: Tensor, right: Tensor) -> float:
    """Cosine of two flat float64 tensors; 1 when both are zero."""
    length = float(left.norm() * right.norm())
    if length == 0:
        return 1.0 if torch.equal(left, right) else 0.0
    return float(left @ right) / length


def storage_unit(dtypes: Sequence[str]) -> float:
    """The relative rounding of the coarsest of these storage types; 0 when none is narrow."""
    return max((UNITS[dtype] for dtype in dtypes if dtype in ("float16", "bfloat16")), default=0.0)
