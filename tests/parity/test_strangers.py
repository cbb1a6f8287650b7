"""A port by somebody who has only docs/parity.md: its mistakes are named, in names and layouts of its own."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.matching import matched, propose
from sonant.parity.naming import hint
from sonant.parity.stages import stage_table
from sonant.parity.trace import Trace, read_trace
from tests.parity import cases, stranger

FAMILY = "qwen3_tts"
TABLE = stage_table(FAMILY)
QUICK = ("scale left out", "norm weights plus one", "residual of the normed input")

LAYOUTS = {
    "as it is": lambda x: x,
    "flat": lambda x: x.reshape(len(x), -1),
    "heads first": lambda x: x.transpose(1, 0, 2) if x.ndim == 3 else x[None],
    "time last": lambda x: x.T,
}


def port(
    tmp_path, mistakes=(), layout="as it is", only=None, rename=lambda name: name, keep=lambda name: True
):
    """A file of the port, its tensors under our names."""
    reference = cases.reference(FAMILY)
    weights = load_file(cases.checkpoint(FAMILY) / "model.safetensors")
    inputs = {e.key: e.stored.numpy() for e in reference.entries if e.name == "talker.layer.0.in"}
    made = stranger.speak(
        {name: weight.float().numpy() for name, weight in weights.items() if name.startswith("talker.model")},
        inputs,
        mistakes,
        layout=lambda name, x: LAYOUTS[layout](x),
        only=only,
    )
    np.savez(tmp_path / "port.npz", **{rename(k): v for k, v in made.items() if keep(k)})
    other = read_trace(tmp_path / "port.npz", family=FAMILY)
    return matched(other, propose(reference, other, TABLE), TABLE), len(made)


def first_of(found):
    return TABLE.pattern_of(found.first_failed.split("@")[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_right_port_is_right_in_every_layout(tmp_path, layout):
    other, count = port(tmp_path, layout=layout)
    found = compare(cases.reference(FAMILY), other)
    assert (found.status, found.judged) == ("right", count)


@pytest.mark.parametrize(
    "mistake", [pytest.param(m, marks=[pytest.mark.slow] * (m not in QUICK)) for m in stranger.MISTAKES]
)
@pytest.mark.slow
def test_a_mistake_of_both_layers_is_named(tmp_path, mistake):
    other, count = port(tmp_path, (mistake,), layout="heads first")
    found = compare(cases.reference(FAMILY), other)
    assert found.judged == count
    assert found.status == "wrong"
    assert first_of(found) == stranger.MISTAKES[mistake][0]
    assert found.inputs_differed in (False, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistakes", "only"),
    [
        (("scale left out", "positions from one", "gelu for silu"), None),
        (("heads of a group in turns", "second norm of the input", "attention added twice"), 1),
        (("theta of another model", "no mask", "silu on the other half"), 0),
        (("key norm left out", "cache one step behind", "second residual left out"), None),
    ],
)
def test_three_mistakes_at_once_are_all_named(tmp_path, mistakes, only):
    other, _ = port(tmp_path, mistakes, "flat", only)
    reference = cases.reference(FAMILY)
    found = bisect(cases.load(FAMILY), other, task=cases.task(FAMILY), forced=reference)
    assert {fault.stage for fault in found.faults} == {s for m in mistakes for s in stranger.MISTAKES[m]}


def test_times_and_layers_may_be_counted_from_one_and_the_prefill_named_apart(tmp_path):
    def rename(name):
        step, layer, what = name.removeprefix("pass_").replace("/blk", "_").split("_")
        where = "prefill" if step == "0" else f"decode{int(step) - 1}"
        return f"{where}.L{int(layer) + 1}.{what}"

    other, count = port(tmp_path, ("scale left out",), rename=rename)
    found = compare(cases.reference(FAMILY), other)
    assert (found.judged, found.first_failed) == (count, "talker.layer.0.attention")


def test_a_stage_behind_a_cache_that_is_not_in_the_file_is_not_blamed(tmp_path):
    """Only the steps, wrong keys of the prefill left out: nobody can tell what the steps attended to."""

    def keep(name):
        return not name.startswith("pass_0")

    other, _ = port(tmp_path, ("rotation of keys left out",), keep=keep)
    reference = cases.reference(FAMILY)
    found = compare(reference, other)
    assert first_of(found) == "talker.layer.{layer}.key"
    attention = next(r for r in found.stages if r.key == "talker.layer.0.attention@1")
    assert "talker.layer.0.key" in attention.between
    right = {e.key: e for e in reference.entries}
    entries = tuple(right[e.key] if e.name.endswith("key") else e for e in other.entries)
    found = bisect(
        cases.load(FAMILY), Trace(entries, other.metadata), task=cases.task(FAMILY), forced=reference
    )
    assert not [fault for fault in found.faults if fault.stage.endswith("attention")]


def test_of_two_files_with_names_of_their_own_no_inputs_are_claimed(tmp_path):
    for name, wrong in (("a", 0.0), ("b", 1.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((3, 4)), y=np.ones((3, 5)) + wrong, z=np.ones(3))
    found = compare(*(read_trace(tmp_path / f"{name}.npz") for name in "ab"), table=TABLE)
    assert (found.first_failed, found.inputs_differed, found.first.inputs) == ("y", None, ())
    assert "No input of it is documented" in found.headline


@pytest.mark.parametrize(
    ("theirs", "leaf", "least"),
    [
        ("step#.layer#.q_rope", "query", 1.0),
        ("blk#/attnOut", "attention", 1.0),
        ("layers.#.mlp.down_proj", "mlp", 0.5),
        ("talker_layer#_out", "out", 1.0),
        ("dit.#.feed_forward", "feed_forward", 1.0),
    ],
)
def test_what_a_name_says(theirs, leaf, least):
    assert hint(theirs, f"dit.layer.#.{leaf}@#") >= least
    others = {"query", "key", "attention", "mlp", "out"} - {leaf}
    assert all(hint(theirs, f"dit.layer.#.{other}@#") < least for other in others)


def test_two_names_that_say_the_same_of_wrong_tensors_are_not_applied(tmp_path):
    reference = cases.reference(FAMILY)
    shape = reference.by_key["talker.layer.0.mlp"].shape
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(n)).numpy() for n in (1, 2)]
    np.savez(tmp_path / "x.npz", mlp_a0=noise[0], mlp_b0=noise[1])
    other = read_trace(tmp_path / "x.npz", family=FAMILY)
    assert not matched(other, propose(reference, other, TABLE), TABLE).entries[0].name.startswith("talker")
