"""The same numbers in another order: axes exchanged, heads split or joined, flat, a batch axis more, a part.

Ports keep tensors in the layout of their own framework. `arranged` finds the order in which a tensor says
the same as the reference, by its shape where only one order fits and by its values where several do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import prod

import torch
from torch import Tensor

from sonant.errors import RequestError
from sonant.parity.reference.tracefile import split_key

MOST_AXES = 4
MOST_ITEMS = 8
"""A leading axis up to this may be a batch axis that the other side lacks."""
MOST_AT_ONCE = 4_000_000
"""Values of which spectra are made at once."""
ROUNDING = 1e-12
"""Of the squares' sum, more than sums by way of spectra in float64 lose."""
_PART = re.compile(r"(.+)\[(\d+)\]")
"""A part of a stage that is kept as several tensors: `STAGE[0]`, `STAGE[1]`, ..."""

ALIKE = 0.05
"""A part of a tensor is taken for a part of the reference below this relative distance only."""


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """`values` in the reference's order; of a part, `kept` are the reference's flat positions it covers."""

    values: Tensor
    words: str
    kept: Tensor | None = None
    is_part: bool = False


WORDS = {
    "T": "frame",
    "N": "position",
    "S": "sample",
    "H": "head",
    "B": "batch item",
    "V": "id",
    "M": "mel band",
    "C": "channel",
    "D": "channel",
    "head": "head channel",
}


def axis_word(name: str) -> str:
    """What one index along an axis is called."""
    last = name.split()[-1]
    return WORDS.get(last, "index" if last.isdigit() else f"index of {name}")


def length_words(documented: str, expected: Sequence[int], found: Sequence[int]) -> str:
    """How much longer one shape is along the only axis in which the two differ, in words, or ""."""
    if len(expected) != len(found):
        expected, found = squeezed(expected), squeezed(found)
    if len(expected) != len(found):
        return ""
    pairs = list(zip(axis_names(documented, expected), expected, found, strict=True))
    if sum(a != b for _, a, b in pairs) != 1:
        return ""
    name, right, count = next(pair for pair in pairs if pair[1] != pair[2])
    word = axis_word(name)
    if word.startswith("index"):
        word = "position"
    number = abs(right - count)
    what = f"{number} {word}{'s' * (number > 1)}"
    return f"{what} of {right} missing" if count < right else f"{what} more than {right}"


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape without axes of length 1."""
    return tuple(size for size in shape if size != 1)


def axis_names(documented: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Letters of the axes of a documented shape such as "[B, T, C]"; numbers where it does not say."""
    letters = documented.split(" or ")[0].strip("[] ").split(",") if documented else []
    if len(letters) != len(shape):
        return tuple(f"axis {index}" for index in range(len(shape)))
    return tuple(letter.strip() for letter in letters)


def arranged(reference: Tensor, found: Tensor, names: Sequence[str]) -> Arrangement | None:
    """`found` in the order of `reference` (both whole), or None when no order fits."""
    candidates = list(_candidates(tuple(reference.shape), found, names))
    if not candidates:
        return _part(reference, found, names)
    scored = sorted(candidates, key=lambda item: relative(reference, item.values))
    return scored[0]


def relative(reference: Tensor, found: Tensor) -> float:
    """Length of the difference over the reference's length, infinities left out."""
    a, b = reference.flatten().double(), found.flatten().double()
    both = torch.isfinite(a) & torch.isfinite(b)
    a, b = a[both], b[both]
    length = float(a.norm())
    return float((a - b).norm()) / length if length else float((a - b).norm())


def orders(shape: tuple[int, ...], found: Tensor) -> Iterator[tuple[Tensor, tuple[int, ...], bool]]:
    """`found` in every order that its shape allows for `shape`: values, permutation of the longer form's
    axes, and whether it is the reference whose axes were exchanged.
    """
    sizes = squeezed(shape)
    other = squeezed(found.shape)
    plain = found.reshape(other)
    if len(sizes) > MOST_AXES or len(other) > MOST_AXES or prod(sizes) != prod(other):
        return
    for order in permutations(range(len(sizes))):
        moved = tuple(sizes[axis] for axis in order)
        if _merges(moved, other):
            back = [order.index(axis) for axis in range(len(order))]
            yield plain.reshape(moved).permute(back).reshape(shape), order, True
    for order in permutations(range(len(other))):
        moved = tuple(other[axis] for axis in order)
        if len(other) > len(sizes) and _merges(moved, sizes):
            yield plain.permute(order).reshape(shape), order, False


def _candidates(shape: tuple[int, ...], found: Tensor, names: Sequence[str]) -> Iterator[Arrangement]:
    kept = [name for name, size in zip(names, shape, strict=True) if size != 1]
    other = squeezed(found.shape)
    for values, order, is_reference in orders(shape, found):
        if is_reference:
            moved = [kept[axis] for axis in order]
            words = f"laid out as [{', '.join(moved)}]" if list(order) != sorted(order) else "in one order"
            if len(other) != len(order):
                words += f", kept as {list(found.shape)}"
        else:
            words = f"kept with its axes split as {list(found.shape)}"
        yield Arrangement(values=values, words=words)
    if other and prod(other) != prod(shape) and other[0] <= MOST_ITEMS and prod(other[1:]) == prod(shape):
        for index, item in enumerate(found.reshape(other)):
            for inner in _candidates(shape, item, names):
                words = f"item {index} of {other[0]} on a batch axis that the reference lacks"
                yield Arrangement(values=inner.values, words=words)


def _merges(fine: tuple[int, ...], coarse: tuple[int, ...]) -> bool:
    """Does joining neighbouring axes of `fine` give `coarse`?"""
    index = 0
    for size in coarse:
        product = 1
        while product < size and index < len(fine):
            product *= fine[index]
            index += 1
        if product != size:
            return False
    return index == len(fine)


def _part(reference: Tensor, found: Tensor, names: Sequence[str]) -> Arrangement | None:
    """`found` as a slice of `reference` along one axis (or the last part of a longer `found`)."""
    sizes, other = squeezed(reference.shape), squeezed(found.shape)
    kept = [name for name, size in zip(names, reference.shape, strict=True) if size != 1]
    best: tuple[float, Arrangement] | None = None
    if not (reference.numel() and found.numel()):
        return None  # a run that ended at once: nothing is no part
    whole = reference.reshape(sizes)
    for axis in range(len(sizes)):
        rest = sizes[:axis] + sizes[axis + 1 :]
        if other == rest:
            piece, count = found.reshape(other).unsqueeze(axis), 1
        elif len(other) == len(sizes) and other[:axis] + other[axis + 1 :] == rest:
            piece, count = found.reshape(other), other[axis]
        else:
            continue
        if count > sizes[axis]:
            piece, count = piece.narrow(axis, count - sizes[axis], sizes[axis]), sizes[axis]
            words = f"the last {count} of {other[axis]} along {kept[axis]}"
            score = relative(whole, piece)
            is_better = best is None or score < best[0]
            if score <= ALIKE and is_better:
                best = score, Arrangement(values=piece.reshape(reference.shape), words=words, is_part=True)
            continue
        score, start = _nearest(whole, piece, axis)
        if score <= ALIKE and (best is None or score < best[0]):
            span = f"{start}" if count == 1 else f"{start} to {start + count - 1}"
            words = f"{span} of {sizes[axis]} along {kept[axis]} only"
            positions = torch.arange(prod(sizes)).reshape(sizes).narrow(axis, start, count).flatten()
            best = score, Arrangement(values=piece.flatten(), words=words, kept=positions, is_part=True)
    return best[1] if best else None


def _nearest(whole: Tensor, piece: Tensor, axis: int) -> tuple[float, int]:
    """Where along an axis `piece` is most like a part of `whole`: relative distance and first index.

    Correlations (Fourier) bound the distance at every place; only where the bounds leave a doubt is it
    measured. So the work grows with the length, not with its square, unless most places are alike.
    """
    count = piece.shape[axis]
    starts = whole.shape[axis] - count + 1
    long, short = (tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis]) for tensor in (whole, piece))
    scale = float(torch.where(torch.isfinite(long), long, 0).abs().amax()) or 1.0
    apart = lengths = long.new_zeros(starts, dtype=torch.float64)
    noise = 0.0
    rows = max(1, MOST_AT_ONCE // (long.shape[1] + count))
    for a, b in zip(torch.split(long, rows), torch.split(short, rows), strict=True):
        here, there = torch.isfinite(a), torch.isfinite(b)
        a, b = (torch.where(*pair, 0).double() / scale for pair in ((here, a), (there, b)))
        # Only where both are finite: (a - b)^2 = a^2 - 2ab + b^2, and a^2 for the length.
        length = _correlated((a**2, there.double()))
        lengths = lengths + length
        apart = apart + length + _correlated((here.double(), b**2), (a, -2 * b))
        noise += ROUNDING * float((a**2).sum() + (b**2).sum())
    least = (apart - noise).clamp(min=0) / (lengths + noise).clamp(min=1e-300)
    most = (apart + noise) / (lengths - noise).clamp(min=1e-300)
    doubtful = (least <= most.amin()).nonzero().flatten().tolist()
    scores = {start: relative(whole.narrow(axis, start, count), piece) for start in doubtful}
    best = min(scores, key=lambda start: (scores[start], start))
    return scores[best], best


def _correlated(*pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Sums over rows and places of a[row, start + i] * b[row, i], for every start; all pairs together."""
    (long, short), *_ = pairs
    size = long.shape[1] + short.shape[1]
    spectra = [(torch.fft.rfft(a, size) * torch.fft.rfft(b, size).conj()).sum(0) for a, b in pairs]
    return torch.fft.irfft(torch.stack(spectra).sum(0), size)[: long.shape[1] - short.shape[1] + 1]


def part_key(key: str, index: int) -> str:
    """The key of part `index` of a stage."""
    name, occurrence = split_key(key)
    return f"{name}[{index}]" + (f"@{occurrence}" if occurrence else "")


def joined_parts(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors with the parts of each stage stacked, [parts, ...], at the place of the first one.

    Raises RequestError where one is missing between others or shapes differ; `where` says in what.
    """
    made: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in tensors.items():
        name, occurrence = split_key(key)
        match = _PART.fullmatch(name)
        if match is None:
            made[key] = tensor
            continue
        whole = match.group(1) + (f"@{occurrence}" if occurrence else "")
        parts.setdefault(whole, {})[int(match.group(2))] = tensor
        made[whole] = tensor
    for whole, found in parts.items():
        shapes = {tuple(tensor.shape) for tensor in found.values()}
        more = " and it whole" if whole in tensors else ""
        if more or sorted(found) != list(range(len(found))) or len(shapes) > 1:
            listed = ", ".join(f"[{index}] {list(found[index].shape)}" for index in sorted(found))
            raise RequestError(
                f"{where} has the parts {listed} of {whole}{' and it whole' * (whole in tensors)}; expected "
                "[0], [1], ... without a gap, all of one shape. Correct the names, with {n-1} where numbers "
                "begin with one."
            )
        made[whole] = torch.stack([found[index] for index in range(len(found))])
    return made
