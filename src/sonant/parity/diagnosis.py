"""What is wrong with a tensor, in words: the relations that mistakes leave between right and wrong.

Each relation is tried on the part of the tensor that differs, and the one that explains the difference
best is said, with the first index that differs. What no relation explains is said to be so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from sonant.parity.layout import axis_names, axis_word, orders, relative, squeezed
from sonant.parity.parts import part_of
from sonant.parity.reference.tracefile import sample_positions
from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Entry, Trace

EXPLAINED = 0.02
"""A relation explains a difference when no more than this part of its length is left."""
EXACT = 1e-6
"""So little is left where a relation is the whole truth, whatever others explain nearly."""
SAME_SUM = 1e-4
"""Relative distance of a sum of float32 tensors from what another program made of them."""
MOST = 4_000_000
"""Larger tensors are told by their first elements."""
MOST_SLICES = 4096


@dataclass(frozen=True)
class _Relation:
    words: str
    left: float
    """Part of the difference that it does not explain."""


def diagnose(
    reference: Entry,
    found: Entry,
    *,
    documented: str = "",
    trace: Trace | None = None,
    table: StageTable | None = None,
) -> tuple[str, ...]:
    """Sentences about `found`, the most telling one first; empty when the two are equal."""
    pair = _pair(reference, found, documented)
    if pair is None:
        return ()
    a, b, names = pair
    if not a.is_floating_point() or not b.is_floating_point():
        return tuple(_whole_numbers(a, b, names, reference, trace, table))
    a, b = a.double(), b.double()
    return tuple(_real_numbers(a, b, names, reference, trace, table))


def _pair(reference: Entry, found: Entry, documented: str) -> tuple[Tensor, Tensor, tuple[str, ...]] | None:
    """Both as tensors of one shape without axes of length 1, and the names of the axes."""
    if documented.count(",") + 1 == len(found.shape) != len(reference.shape) and reference.sampled is None:
        # Of a port's file it is ours that has the documented layout.
        reference = _as_found(reference, found)
    names = axis_names(documented, reference.shape)
    kept = tuple(name for name, size in zip(names, reference.shape, strict=True) if size != 1)
    if found.sampled is not None or reference.sampled is not None:
        if squeezed(reference.shape) != squeezed(found.shape):
            return None
        a, b = reference.stored.flatten(), found.stored.flatten()
        if reference.sampled != found.sampled:
            limit = reference.sampled if reference.sampled is not None else found.sampled
            at = sample_positions(reference.elements, limit or 0)
            a, b = (a[at] if reference.sampled is None else a), (b[at] if found.sampled is None else b)
        return (a, b, ("sample of the whole",)) if a.shape == b.shape else None
    sizes = squeezed(reference.shape)
    if sizes == squeezed(found.shape):
        return reference.stored.reshape(sizes), found.stored.reshape(sizes), kept
    best: tuple[float, Tensor] | None = None
    for values, _, _ in orders(reference.shape, found.stored):
        score = float((values.double() - reference.stored.double()).nan_to_num().norm())
        if best is None or score < best[0]:
            best = score, values.reshape(sizes)
    if best is not None:
        return reference.stored.reshape(sizes), best[1], kept
    return _common(reference, found, kept)


def _as_found(reference: Entry, found: Entry) -> Entry:
    fitting = [values for values, _, _ in orders(found.shape, reference.stored)]
    if not fitting or found.sampled is not None:
        return reference
    nearest = min(fitting, key=lambda values: relative(found.stored, values))
    return replace(reference, shape=found.shape, stored=nearest)


def _common(
    reference: Entry, found: Entry, names: tuple[str, ...]
) -> tuple[Tensor, Tensor, tuple[str, ...]] | None:
    """The part that tensors of different lengths along their axes have in common, from the front."""
    sizes, other = squeezed(reference.shape), squeezed(found.shape)
    if len(sizes) != len(other):
        return None
    a, b = reference.stored.reshape(sizes), found.stored.reshape(other)
    for axis, (m, n) in enumerate(zip(sizes, other, strict=True)):
        a, b = a.narrow(axis, 0, min(m, n)), b.narrow(axis, 0, min(m, n))
    return a, b, names


def _whole_numbers(
    a: Tensor, b: Tensor, names: Sequence[str], entry: Entry, trace: Trace | None, table: StageTable | None
) -> Iterator[str]:
    a, b = a.long(), b.long()
    wrong = a != b
    if not wrong.any():
        return
    yield f"{int(wrong.sum())} of {wrong.numel()} differ{_first(wrong, a, b, names)}"
    yield from _place(wrong, names, entry, trace, table)
    if a.ndim and a.numel() > 2:
        flat_a, flat_b = a.flatten(), b.flatten()
        for step in (1, -1):
            if torch.equal(
                flat_b[max(step, 0) : len(flat_b) + min(step, 0)],
                flat_a.roll(step)[max(step, 0) : len(flat_a) + min(step, 0)],
            ) and not torch.equal(flat_a, flat_b):
                yield f"shifted by one: an element is the reference's {'one before' if step > 0 else 'next'}"
        difference = (flat_b - flat_a)[flat_a != flat_b]
        if len(difference) > 1 and (difference == difference[0]).all():
            yield f"a constant offset of {int(difference[0])}"
        elif torch.equal(flat_a.sort().values, flat_b.sort().values):
            yield "the same numbers in another order"


def _real_numbers(
    a: Tensor, b: Tensor, names: Sequence[str], entry: Entry, trace: Trace | None, table: StageTable | None
) -> Iterator[str]:
    odd = a.isfinite() != b.isfinite()
    if b.isnan().any() and not a.isnan().any():
        yield f"not-a-number in {int(b.isnan().sum())} of {b.numel()}{_first(b.isnan(), a, b, names)}"
        yield from _place(b.isnan(), names, entry, trace, table)
        return
    if odd.any():
        more, less = int((a.isfinite() & ~b.isfinite()).sum()), int((~a.isfinite() & b.isfinite()).sum())
        yield (
            f"a filter removes {more} elements that the reference keeps and keeps {less} that it removes"
            f"{_first(odd, a, b, names)}"
        )
    is_known = a.isfinite() & b.isfinite()
    a, b = torch.where(is_known, a, 0.0), torch.where(is_known, b, 0.0)
    difference = (a - b).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    if largest == 0:
        return
    scale = float(a.abs().max())
    # What rounding makes of another program's elements is not a wrong element.
    wrong = difference > min(largest * 0.1, max(largest * 1e-5, scale * 2e-6))
    relation = _best(a, b, names, lambda: _sum(a, b, entry, trace, table))
    is_whole = relation is not None and relation.left <= EXPLAINED
    first = _first(wrong, a, b, names)
    part = _wrong_part(wrong, names)
    said = f"{relation.words}{first}" if relation is not None and is_whole else ""
    if said:
        yield said
    if part is not None and not (is_whole and not part[0].startswith(("only", "wrong only"))):
        words, axis, kept = part
        yield words if said else f"{words}{first}"
        inner = _best(a.index_select(axis, kept), b.index_select(axis, kept), names)
        if inner is not None and inner.left <= EXPLAINED:
            if not said:
                yield f"there: {inner.words}"
            said = said or inner.words
    if not said:
        relations = _by_slice(a, b, names)
        slices = (w for w, e in relations if float((b - e).norm()) <= EXPLAINED * float((a - b).norm()))
        said = next(slices, "")
        if said:
            yield f"{said}{first if part is None else ''}"
        elif part is None:
            yield f"no simple relation; {int(wrong.sum())} of {a.numel()} differ{first}"
    yield from _place(wrong, names, entry, trace, table)


def _first(wrong: Tensor, a: Tensor, b: Tensor, names: Sequence[str]) -> str:
    place = wrong.nonzero()[0].tolist() if wrong.any() else []
    if not place and wrong.ndim:
        return ""
    found, right = b[tuple(place)].item(), a[tuple(place)].item()
    where = f"[{', '.join(map(str, place))}]"
    if names and len(names) == len(place):
        where += f" of [{', '.join(names)}]"
    numbers = f"{found:.6g}, not {right:.6g}" if isinstance(found, float) else f"{found}, not {right}"
    return f"; first at {where}: {numbers}"


def _place(
    wrong: Tensor, names: Sequence[str], entry: Entry, trace: Trace | None, table: StageTable | None
) -> Iterator[str]:
    """Which parts of a prompt the wrong positions belong to."""
    if trace is None or table is None or wrong.ndim == 0:
        return
    axis = next((i for i, name in enumerate(names) if name in {"T", "N"}), None)
    if axis is None or wrong.ndim != len(names):
        return
    rows = wrong.movedim(axis, 0).reshape(wrong.shape[axis], -1).any(dim=1).nonzero().flatten().tolist()
    parts: dict[tuple[str, int], list[int]] = {}
    for row in rows:
        part = part_of(trace, entry, row, table.family)
        if part[0]:
            parts.setdefault(part, []).append(row)
    for (words, length), places in parts.items():
        of = f", {len(places)} of {length}" if length > 1 else ""
        yield f"position{'s' * (len(places) > 1)} {_span(places)}: {words}{of}"


def _span(places: Sequence[int]) -> str:
    if len(places) > 2 and places[-1] - places[0] == len(places) - 1:
        return f"{places[0]} to {places[-1]}"
    return ", ".join(map(str, places[:12])) + (" and more" if len(places) > 12 else "")


def _sum(
    a: Tensor, b: Tensor, entry: Entry, trace: Trace | None, table: StageTable | None
) -> _Relation | None:
    """Is it another sum of what the stage is computed from: without one of them, or with one more?"""
    if trace is None or table is None or entry.sampled is not None:
        return None
    inputs: dict[str, Tensor] = {}
    for name in table.inputs(entry.name) or ():
        key = f"{name}@{entry.occurrence}" if entry.occurrence else name
        given = trace.by_key.get(key)
        is_plain = given is not None and given.sampled is None and given.stored.is_floating_point()
        if given is not None and is_plain and squeezed(given.shape) == tuple(a.shape):
            inputs[key] = given.stored.reshape(a.shape).double()
    length = float((a - b).norm())
    is_sum = len(inputs) > 1 and relative(a, sum(inputs.values(), torch.zeros_like(a))) <= SAME_SUM
    for count in range(1, len(inputs) + 1):
        for keys in combinations(inputs, count):
            made = sum((inputs[key] for key in keys), torch.zeros_like(a))
            said = " and ".join(keys)
            guesses = []
            if is_sum and count < len(inputs):
                lacking = " and ".join(key for key in inputs if key not in keys)
                guesses.append((f"{said}{' added up' * (count > 1)}, without {lacking}", made))
            if count == 1 or not is_sum:
                words = f"the reference's plus {said}: written down after a sum, or added once more"
                guesses.append((words, a + made))
            if count == 1 and not is_sum:
                guesses.append((f"it is {said}, as if this stage did nothing", made))
            for words, expected in guesses:
                left = float((b - expected).norm())
                if left <= min(SAME_SUM * float(expected.norm()), EXPLAINED * length):
                    return _Relation(words, left / length)
    return None


# -- which part is wrong ----------------------------------------------------------------------


def _wrong_part(wrong: Tensor, names: Sequence[str]) -> tuple[str, int, Tensor] | None:
    """Words, axis and indices of the wrong slices, where they are only a part along one axis."""
    best: tuple[float, str, int, Tensor] | None = None
    for axis, name in enumerate(names if wrong.ndim == len(names) else ()):
        size = wrong.shape[axis]
        if size < 2:
            continue
        rows = wrong.movedim(axis, 0).reshape(size, -1).any(dim=1)
        count = int(rows.sum())
        if count == size or not count:
            continue
        indices = rows.nonzero().flatten()
        first, last = int(indices[0]), int(indices[-1])
        word = axis_word(name)
        if count == 1 and last == size - 1:
            words = f"only the last {word} is wrong"
        elif count == 1:
            words = f"only {word} {first} of {size} is wrong"
        elif last == size - 1 and count == size - first:
            words = f"wrong only from {word} {first} on (of {size})"
        elif first == 0 and count == last + 1:
            words = f"wrong only in the first {count} of {size} ({word}s)"
        else:
            many = "indices" if word == "index" else f"{word}s"
            words = f"{count} of {size} {many} are wrong: {_span(indices.tolist())}"
        share = count / size
        if best is None or share < best[0]:
            best = share, words, axis, indices
    return best[1:] if best else None


# -- relations --------------------------------------------------------------------------------


def _best(
    a: Tensor,
    b: Tensor,
    names: Sequence[str],
    other: Callable[[], _Relation | None] = lambda: None,
) -> _Relation | None:
    """The relation that explains most of the difference, simple ones first where several explain it all.

    `other` is asked for one to other tensors where none to the reference's is the whole truth.
    """
    if a.numel() > MOST:
        rows = max(1, int(len(a) * MOST / a.numel()))
        a, b = a[:rows], b[:rows]
    length = float((a - b).norm())
    if not length:
        return None
    found: list[_Relation] = []
    # What float32 rounds away is explained as well.
    rounding = 1e-7 * float(a.norm())
    if length <= rounding:
        return _Relation("of the size of what float32 rounds away", 0.0)
    for relation in _relations:
        for words, expected in relation(a, b, names):
            left = max(float((b - expected).norm()) - rounding, 0.0) / length
            found.append(_Relation(words, left))
            if left <= EXACT:
                return found[-1]
    explained = other() or next((item for item in found if item.left <= EXPLAINED), None)
    if explained is not None:
        return explained
    for verdict in _verdicts:
        for words in verdict(a, b, names):
            return _Relation(words, 0.0)
    return min(found, key=lambda item: item.left, default=None)


_Guess = Iterator[tuple[str, Tensor]]


def _zeros(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    if not b.any():
        yield "all zeros", torch.zeros_like(a)
    elif b.numel() > 1 and bool((b == b.flatten()[0]).all()):
        yield f"the same number everywhere: {float(b.flatten()[0]):.6g}", b


def _rounded(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    for dtype, bits in ((torch.float16, "float16"), (torch.bfloat16, "bfloat16")):
        yield f"rounded to {bits}", a.float().to(dtype).double()
    yield "rounded to float32", a.float().double()


def _signs(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    yield "the sign is turned", -a


def _scaled(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    power = float((a * a).sum())
    if power:
        factor = float((a * b).sum()) / power
        yield f"a constant factor of {_number(factor)}", factor * a


def _number(factor: float) -> str:
    """A factor; near 1 by how much it is off."""
    return f"1 {factor - 1:+.3g}" if 0 < abs(factor - 1) < 1e-3 else f"{factor:.6g}"


def _offset(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    offset = float((b - a).mean())
    yield f"a constant offset of {offset:.6g}", a + offset
    if a.numel() > 3:
        centred = a - a.mean()
        power = float((centred * centred).sum())
        if power:
            factor = float((centred * (b - b.mean())).sum()) / power
            rest = float(b.mean() - factor * a.mean())
            yield f"a factor of {_number(factor)} and an offset of {rest:.6g}", factor * a + rest


def _shifted(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    for axis in range(a.ndim):
        size = a.shape[axis]
        if size < 3:
            continue
        name = names[axis] if len(names) == a.ndim else f"axis {axis}"
        word = axis_word(name)
        for step in (1, -1, 2, -2):
            if abs(step) * 3 > size:
                continue
            # What enters at the end is not known: it counts as explained.
            moved = a.roll(step, axis)
            edge = range(step) if step > 0 else range(size + step, size)
            index = torch.tensor(list(edge))
            moved = moved.index_copy(axis, index, b.index_select(axis, index))
            late = "late" if step > 0 else "early"
            yield f"shifted along {name}: {abs(step)} {word}{'s' * (abs(step) > 1)} {late}", moved
        half = size // 2
        if size % 2 == 0:
            yield f"the halves of {name} exchanged", a.roll(half, axis)
            split = [size // 2, 2] if size > 2 else None
            if split:
                pairs = _split(a, axis, (2, half)).transpose(axis, axis + 1).flatten(axis, axis + 1)
                yield f"{name} in adjacent pairs for halves", pairs
                halves = _split(a, axis, (half, 2)).transpose(axis, axis + 1).flatten(axis, axis + 1)
                yield f"{name} in halves for adjacent pairs", halves
        yield f"{name} the other way round", a.flip(axis)


def _split(x: Tensor, axis: int, sizes: tuple[int, int]) -> Tensor:
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def _transposed(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    for first in range(a.ndim):
        for second in range(first + 1, a.ndim):
            if a.shape[first] == a.shape[second] and len(names) == a.ndim:
                yield f"transposed: {names[first]} and {names[second]} exchanged", a.transpose(first, second)
            elif len(names) == a.ndim:
                # The shape was made to fit without exchanging the axes.
                turned = a.transpose(first, second).reshape(a.shape)
                yield f"transposed: {names[second]} before {names[first]}, with the shape as it was", turned
                back = list(a.shape)
                back[first], back[second] = back[second], back[first]
                turned = a.reshape(back).transpose(first, second)
                yield f"transposed: read as {names[second]} before {names[first]}", turned


def _permuted(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    for axis in range(a.ndim):
        size = a.shape[axis]
        name = names[axis] if len(names) == a.ndim else f"axis {axis}"
        if not 2 <= size <= 512:
            continue
        left = a.movedim(axis, 0).reshape(size, -1)
        right = b.movedim(axis, 0).reshape(size, -1)
        order = torch.cdist(right, left).argmin(dim=1)
        if sorted(order.tolist()) == list(range(size)) and order.tolist() != list(range(size)):
            word = axis_word(name)
            moved = [i for i, at in enumerate(order.tolist()) if i != at]
            shown = f" ({_span(moved)})" if len(moved) < size else ""
            yield (
                f"{word}s permuted: they are the reference's {_listed(order)}{shown}",
                a.index_select(axis, order),
            )


def _listed(order: Tensor) -> str:
    numbers = order.tolist()
    return ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")


def _clipped(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    low, high = float(b.min()), float(b.max())
    if (low > float(a.min()) or high < float(a.max())) and low < high:
        words = f"clipped to {low:.6g} .. {high:.6g}"
        if low == 0 and high == float(a.max()):
            words = "negative values cut to zero"
        yield words, a.clamp(low, high)


def _magnitudes(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    yield "absolute values of the reference's", a.abs()
    for words, function in (("exponential", torch.exp), ("square", torch.square)):
        yield f"the {words} of the reference's", function(a)
    if bool((a > 0).all()):
        yield "the logarithm of the reference's", a.log()
        yield "the decimal logarithm of the reference's", a.log10()
    last = names[-1] if names else ""
    if last in {"V", "K"} or last.startswith("V"):
        yield "the reference's after a softmax", a.softmax(dim=-1)
        yield "the reference's after a logarithmic softmax", a.log_softmax(dim=-1)


def _by_slice(a: Tensor, b: Tensor, names: Sequence[str]) -> _Guess:
    """One factor or one offset for each slice along an axis: norms, scales and means of another kind."""
    for axis in range(a.ndim):
        size = a.shape[axis]
        if size < 2 or a.numel() // size < 4 or size > MOST_SLICES:
            continue
        name = names[axis] if len(names) == a.ndim else f"axis {axis}"
        word = axis_word(name)
        rest = tuple(index for index in range(a.ndim) if index != axis)
        power = (a * a).sum(dim=rest, keepdim=True)
        factor = torch.where(power > 0, (a * b).sum(dim=rest, keepdim=True) / power.clamp(min=1e-300), 1.0)
        yield (
            f"one factor for each {word}, {float(factor.min()):.6g} to {float(factor.max()):.6g}",
            factor * a,
        )
        offset = (b - a).mean(dim=rest, keepdim=True)
        yield (
            f"one offset for each {word}, {float(offset.min()):.4g} to {float(offset.max()):.4g}",
            a + offset,
        )


_relations: tuple[Callable[[Tensor, Tensor, Sequence[str]], _Guess], ...] = (
    _zeros,
    _rounded,
    _signs,
    _scaled,
    _offset,
    _clipped,
    _shifted,
    _transposed,
    _permuted,
    _magnitudes,
)


def _rotations(a: Tensor, b: Tensor, names: Sequence[str]) -> Iterator[str]:
    """Vectors of equal length in every head: turned by other angles, or in other pairs."""
    if not names or (names[-1] != "head" and not names[-1].endswith("D")):
        return
    if a.ndim < 2 or a.shape[-1] % 2:
        return
    left, right = a.norm(dim=-1), b.norm(dim=-1)
    if float((left - right).norm()) > 1e-4 * float(left.norm()) or float((a - b).norm()) < 1e-3 * float(
        a.norm()
    ):
        return
    half = a.shape[-1] // 2

    def lengths(x: Tensor, in_halves: bool) -> Tensor:
        pairs = _split(x, x.ndim - 1, (2, half) if in_halves else (half, 2))
        return pairs.norm(dim=-2 if in_halves else -1)

    kept = [
        float((lengths(a, way) - lengths(b, way)).norm()) < 1e-3 * float(a.norm()) for way in (True, False)
    ]
    if kept[0] or kept[1]:
        pairs = "halves" if kept[0] else "adjacent pairs"
        yield (
            f"a rotation of the right pairs ({pairs}) by other angles: position, base or sign of the rotary "
            "embedding"
        )
    else:
        yield "a rotation in other pairs: halves against adjacent pairs of the rotary embedding"


def _other_noise(a: Tensor, b: Tensor, names: Sequence[str]) -> Iterator[str]:
    """The same mean and spread, and nothing else in common."""
    if a.numel() < 64:
        return
    x, y = (a - a.mean()).flatten(), (b - b.mean()).flatten()
    spread = float(x.norm() * y.norm())
    if not spread:
        return
    is_alike = abs(float(x.norm() / y.norm()) - 1) < 0.2
    is_level = abs(float(a.mean() - b.mean())) < 0.3 * float(x.norm()) / math.sqrt(len(x))
    if is_alike and is_level and abs(float(x @ y)) / spread < 4 / math.sqrt(len(x)):
        yield (
            "of the same mean and spread, not correlated: values of other places, or where a draw enters, "
            "noise of another seed"
        )


_verdicts: tuple[Callable[[Tensor, Tensor, Sequence[str]], Iterator[str]], ...] = (_rotations, _other_noise)
