"""The diagnosis in words, each relation planted in a tensor; and layouts that ports keep."""

import pytest
import torch

from sonant.parity.budgets import Budget
from sonant.parity.diagnosis import diagnose
from sonant.parity.layout import _nearest, relative
from sonant.parity.measure import distance
from sonant.parity.reference.tracefile import statistics
from sonant.parity.trace import Entry
from tests.parity import faults_kinds as kinds
from tests.parity.toy_stages import TABLE, toy_trace

TIGHT = Budget(5e-6, 5e-6)


def entry(tensor, key="x", kind="stage", sampled=None):
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Entry(
        key=key,
        kind=kind,
        shape=tuple(tensor.shape),
        dtype=dtype,
        stored=tensor,
        sampled=sampled,
        statistics=statistics(tensor),
    )


@pytest.fixture
def heads():
    """[B, H, T, head]"""
    return torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def rows():
    """[B, T, C], smooth in time as activations are."""
    return torch.randn(1, 20, 24, generator=torch.Generator().manual_seed(6)).cumsum(1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def said(right, wrong, documented):
    return " | ".join(diagnose(entry(right), entry(wrong), documented=documented))


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x: x + 0.05, "a constant offset of 0.05"),
        (lambda x: x * 1.02, "a constant factor of 1.02"),
        (lambda x: x * (1 + 2e-6), "a constant factor of 1 +2"),
        (lambda x: -x, "the sign is turned"),
        (lambda x: torch.zeros_like(x), "all zeros"),
        (lambda x: x.clamp(-1, 2), "clipped to -1 .. 2"),
        (lambda x: x.clamp(min=0), "negative values cut to zero"),
        (lambda x: x.abs(), "absolute values"),
        (lambda x: x.bfloat16().float(), "rounded to bfloat16"),
        (lambda x: x.half().float(), "rounded to float16"),
        (kinds.late(1), "shifted along T: 1 frame late"),
        (lambda x: x.roll(-1, 1), "shifted along T: 1 frame early"),
        (kinds.turned, "transposed"),
        (kinds.only(1, 7, lambda x: x + 1), "only frame 7 of 20 is wrong"),
        (kinds.only(1, -1, lambda x: x + 1), "only the last frame is wrong"),
        (
            kinds.since(1, 9, lambda x: x * 2),
            "wrong only from frame 9 on (of 20) | there: a constant factor of 2",
        ),
        (kinds.only(2, 3, lambda x: -x), "only channel 3 of 24 is wrong | there: the sign is turned"),
        (
            lambda x: x[..., torch.randperm(24, generator=torch.Generator().manual_seed(2))],
            "channels permuted",
        ),
        (lambda x: x * torch.linspace(1, 2, 20)[:, None], "one factor for each frame, 1 to 2"),
        (kinds.whole(kinds.noise), "noise of another seed"),
        (lambda x: x.sin() * 3, "no simple relation"),
        (lambda x: torch.where(x > 3, float("nan"), x), "not-a-number in"),
    ],
)
def test_relations_are_said_with_the_first_index(rows, turn, words):
    wrong = turn(rows, 0) if turn.__code__.co_argcount == 2 else turn(rows)
    found = said(rows, wrong, "[B, T, C]")
    assert [part for part in words.split(" | ") if part not in found] == [], found
    first = (wrong != rows)[0].nonzero()[0].tolist()
    if "permuted" not in words and "2e-6" not in words:
        assert "first at [" in found
    if words.startswith(("a constant offset", "the sign", "only frame")):
        assert f"first at {first} of [T, C]" in found


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x: x[:, [1, 0, 2, 3]], "heads permuted: they are the reference's 1, 0, 2, 3"),
        (lambda x: x[:, [3, 2, 1, 0]], "the other way round"),
        (kinds.only(1, 2, lambda x: x * 3), "only head 2 of 4 is wrong | there: a constant factor of 3"),
        (kinds.halves, "the halves of head exchanged"),
        (kinds.pairs, "head in adjacent pairs for halves"),
    ],
)
def test_heads(heads, turn, words):
    wrong = turn(heads, 0) if turn.__code__.co_argcount == 2 else turn(heads)
    found = said(heads, wrong, "[B, H, T, head]")
    assert [part for part in words.split(" | ") if part not in found] == [], found


def test_a_rotation_of_other_pairs_and_one_by_other_angles_are_told_apart(heads):
    from sonant.nn.rope import rope_table, rotate_half_split, rotate_interleaved

    cos, sin = rope_table(torch.arange(12)[None], 16, 1e4)
    cos, sin = cos[:, None], sin[:, None]
    right = rotate_half_split(heads, cos, sin)
    assert "in other pairs" in said(right, rotate_interleaved(heads, cos, sin), "[B, H, T, head]")
    assert "by other angles" in said(right, rotate_half_split(heads, cos, -sin), "[B, H, T, head]")


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], "a constant offset of -1"),
        ([7, 1, 9, 4], [7, 9, 1, 4], "the same numbers in another order"),
        ([7, 1, 9, 4, 2], [3, 7, 1, 9, 4], "shifted by one: an element is the reference's one before"),
        ([7, 1, 9, 4], [7, 1, 9, 8], "1 of 4 differ; first at [3] of [N]: 8, not 4 | only the last position"),
    ],
)
def test_whole_numbers(a, b, words):
    found = said(torch.tensor(a), torch.tensor(b), "[N]")
    assert all(part in found for part in words.split(" | ")[:1])


def test_equal_tensors_have_no_diagnosis(rows):
    assert diagnose(entry(rows), entry(rows.clone()), documented="[B, T, C]") == ()


@pytest.mark.parametrize(
    ("leaf", "made", "words"),
    [
        (
            "out",
            ("attention", "mlp"),
            "toy.layer.1.attention and toy.layer.1.mlp added up, without toy.layer.1.in",
        ),
        ("out", ("mlp",), "toy.layer.1.mlp, without toy.layer.1.in and toy.layer.1.attention"),
        ("out", ("out", "attention"), "the reference's plus toy.layer.1.attention: written down after a sum"),
        ("attention", ("attention", "in"), "the reference's plus toy.layer.1.in: written down after a sum"),
        ("attention", ("in",), "it is toy.layer.1.in, as if this stage did nothing"),
        ("mlp", ("mlp", "attention", "in"), "the reference's plus toy.layer.1.in and toy.layer.1.attention"),
    ],
)
def test_a_sum_that_lacks_something_or_has_something_more_is_said(leaf, made, words):
    trace = toy_trace()
    right = trace.by_key[f"toy.layer.1.{leaf}"]
    wrong = sum(trace.by_key[f"toy.layer.1.{name}"].stored for name in made)
    found = diagnose(right, entry(wrong), documented="[B, T, D]", trace=trace, table=TABLE)
    assert found[0].startswith(words), found


# -- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda x: x.transpose(1, 2), "laid out as [C, T]"),
        (lambda x: x.flatten(), "in one order, kept as [480]"),
        (lambda x: x.transpose(1, 2).flatten(), "laid out as [C, T], kept as [480]"),
        (lambda x: x[0].unflatten(-1, (4, 6)).transpose(0, 1), "kept with its axes split as [4, 20, 6]"),
        (lambda x: torch.cat((x * 0 + 1, x)), "item 1 of 2 on a batch axis"),
        (lambda x: x[:, -1:], "19 of 20 along T only"),
        (lambda x: x[:, :5], "0 to 4 of 20 along T only"),
        (lambda x: torch.cat((x * 0, x), dim=1), "the last 20 of 40 along T"),
    ],
)
def test_the_same_numbers_in_another_layout_are_compared(rows, turn, words):
    other = turn(rows).contiguous()
    found = distance(entry(rows), entry(other), TIGHT, any_layout=True, documented="[B, T, C]")
    assert (found.status, found.max_abs) == ("ok", 0)
    assert words in found.note
    wrong = distance(entry(rows), entry(other * 1.01), TIGHT, any_layout=True, documented="[B, T, C]")
    assert wrong.status == "over"


def test_heads_joined_are_compared_with_heads_apart(heads):
    joined = heads[0].transpose(0, 1).reshape(12, 64)
    found = distance(entry(heads), entry(joined), TIGHT, any_layout=True, documented="[B, H, T, head]")
    assert found.status == "ok"
    assert "laid out as [T, H, head]" in found.note


def test_one_of_our_own_runs_may_not_change_its_layout_and_is_told_how_it_fits(rows):
    found = distance(entry(rows), entry(rows.transpose(1, 2)), TIGHT, documented="[B, T, C]")
    assert found.status == "shape"
    assert "the same values, laid out as [C, T]" in found.note


def test_a_tensor_one_frame_short_is_no_part_that_was_kept_on_purpose(rows):
    short = distance(entry(rows), entry(rows[:, :-1]), TIGHT, any_layout=True, documented="[B, T, C]")
    assert short.status == "shape"
    assert "shape [1, 19, 24], expected [1, 20, 24], 1 frame of 20 missing: " in short.note
    assert "0 to 18 of 20 along T only" in short.note


@pytest.mark.parametrize("size", [(1, 0, 24), (0, 24), (24, 0), (0,)])
def test_a_tensor_of_nothing_is_of_another_shape_either_way(rows, size):
    """A run that ended at once leaves such: no sound, no frames."""
    for pair in ((rows, torch.empty(size)), (torch.empty(size), rows)):
        found = distance(*map(entry, pair), TIGHT, any_layout=True, documented="[B, T, C]")
        assert found.status == "shape"


def test_samples_are_compared_with_a_whole_tensor_in_another_layout(rows):
    from sonant.parity.reference.tracefile import sample_positions

    samples = rows.flatten()[sample_positions(480, 50)]
    reference = Entry(key="x", kind="stage", shape=(1, 20, 24), dtype="float32", stored=samples, sampled=50)
    found = distance(reference, entry(rows.transpose(1, 2)), TIGHT, any_layout=True, documented="[B, T, C]")
    assert (found.status, found.max_abs) == ("ok", 0)


def test_a_part_of_a_long_signal_is_found_wherever_it_is_and_whatever_is_not_finite():
    """As slowly as one can: every place measured by itself."""

    def everywhere(whole, piece):
        count = piece.shape[1]
        scores = [relative(whole.narrow(1, at, count), piece) for at in range(whole.shape[1] - count + 1)]
        return min(scores), scores.index(min(scores))

    generator = torch.Generator().manual_seed(7)
    for case in range(60):
        whole = torch.randn(2, 90, 3, generator=generator) * 10 ** (case % 7 - 3)
        whole[:, :40] *= 1e-6 if case % 5 == 0 else 1
        piece = whole[:, case % 50 : case % 50 + 1 + case % 40].clone()
        piece += 0.01 * piece.abs().max() * torch.randn(piece.shape, generator=generator) * (case % 3)
        if case % 4 == 0:
            piece[0, 0, 0], whole[1, 33, 2] = float("-inf"), float("nan")
        if case % 6 == 1:  # a masked column
            whole[..., 1] = piece[..., 1] = -1e9
        if case % 6 == 2:  # a constant with hardly anything on it
            whole = 3 + 1e-6 * whole.double()
            piece = whole[:, case % 50 : case % 50 + 1 + case % 40].clone()
        assert _nearest(whole, piece, 1) == everywhere(whole, piece), case
    ten_seconds = torch.randn(1, 240_000, generator=generator)
    assert _nearest(ten_seconds, ten_seconds[:, 1_001:201_001], 1) == (0.0, 1_001)
