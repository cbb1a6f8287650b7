"""A port by somebody who has only docs/parity.md: its mistakes are named, in names and layouts of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sonant.errors import RequestError
from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.matching import matched, propose, save_map
from sonant.parity.naming import hint
from sonant.parity.stages import stage_table
from sonant.parity.trace import Entry, Trace, read_names, read_trace
from tests.parity import cases, stranger

FAMILY = "qwen3_tts"
TABLE = stage_table(FAMILY)
ATTENTION, OUT = "talker.layer.{layer}.attention", "talker.layer.{layer}.out"
LAYER = tuple(f"talker.layer.0.{leaf}" for leaf in ("query", "key", "attention", "mlp", "out"))

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


def shifted(entry, key):
    """The entry, far off where it is the one of this key."""
    return replace(entry, stored=entry.stored + 1) if entry.key == key else entry


def first_of(found):
    return TABLE.pattern_of(found.first_failed.split("@")[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_right_port_is_right_in_every_layout(tmp_path, layout):
    other, count = port(tmp_path, layout=layout)
    found = compare(cases.reference(FAMILY), other)
    assert (found.status, found.judged) == ("right", count)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", stranger.MISTAKES)
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


def test_a_stage_is_blamed_with_what_its_own_pass_lacks(tmp_path):
    """The prefill holds every input of a layer's output, the steps only some of them."""

    def keep(name):
        return name.startswith("pass_0") or not name.endswith(("att", "ffn"))

    other, _ = port(tmp_path, ("heads of a group in turns",), keep=keep)
    found = bisect(cases.load(FAMILY), other, task=cases.task(FAMILY), forced=cases.reference(FAMILY))
    (fault,) = [fault for fault in found.faults if fault.stage == OUT]
    assert fault.first == "talker.layer.0.out@1"
    assert {"talker.layer.0.attention@1", "talker.layer.0.mlp@1"} <= set(fault.between)
    assert ATTENTION in found.partly
    assert ATTENTION not in found.uncovered


def test_what_the_prefill_s_names_say_is_carried_over_to_the_frames(tmp_path):
    """The cache is wrong, so that of the frames only layer 0's queries and keys are told by their values."""
    words = {"att": "foo", "ffn": "bar"}

    def rename(name):
        step, layer, what = name.removeprefix("pass_").replace("/blk", "_").split("_")
        where = "pre" if step == "0" else f"tok{step}"
        return f"{where}.b{layer}.{words.get(what, what)}"

    other, count = port(tmp_path, ("cache one step behind",), rename=rename)
    found = compare(cases.reference(FAMILY), other)
    assert (found.judged, found.unused) == (count, ())
    assert found.first_failed == "talker.layer.0.attention@1"


@pytest.mark.slow
def test_a_layer_s_input_is_the_output_that_is_handed_on_to_it(tmp_path):
    other, _ = port(tmp_path, ("positions from one",), only=1)
    first = compare(cases.reference(FAMILY), other).first
    assert first.key == "talker.layer.1.query"
    assert (first.inputs, first.between) == (("talker.layer.0.out",), ())


@pytest.mark.slow
def test_names_may_hold_any_sign(tmp_path):
    def rename(name):
        step, layer, what = name.removeprefix("pass_").replace("/blk", "_").split("_")
        return f"#{step} {{L}}[{layer}]*{what}"

    other, count = port(tmp_path, ("scale left out",), rename=rename)
    found = compare(cases.reference(FAMILY), other)
    assert (found.judged, found.first_failed) == (count, "talker.layer.0.attention")


@pytest.mark.parametrize("mistakes", [(), ("query norm over all heads", "scale left out")])
def test_heads_that_are_one_array_each_are_taken_together(tmp_path, mistakes):
    _, count = port(tmp_path, mistakes)
    made = dict(np.load(tmp_path / "port.npz"))
    heads = {
        f"{name}{head + 1}": value[:, head]
        for name, value in made.items()
        if name.endswith(("_q", "_k"))
        for head in range(value.shape[1])
    }
    np.savez(tmp_path / "apart.npz", **heads, **{k: v for k, v in made.items() if k[-2:] not in ("_q", "_k")})
    reference, other = cases.reference(FAMILY), read_trace(tmp_path / "apart.npz", family=FAMILY)
    matches = propose(reference, other, TABLE)
    found = compare(reference, matched(other, matches, TABLE))
    assert (found.judged, found.unused) == (count, ())
    assert found.first_failed == ("talker.layer.0.query" if mistakes else None)
    save_map(tmp_path / "map.json", matches, {})
    named = read_trace(tmp_path / "apart.npz", names=read_names(tmp_path / "map.json"))
    assert {s.key for s in compare(reference, named).stages} == {s.key for s in found.stages}


@pytest.mark.parametrize(
    ("names", "shapes"), [(("q[0]", "q[2]"), (3, 3)), (("q[0]", "q[1]"), (3, 4)), (("q[0]", "q"), (3, 3))]
)
def test_parts_of_a_stage_that_do_not_fit_together_are_refused(tmp_path, names, shapes):
    np.savez(tmp_path / "x.npz", a=np.ones(shapes[0]), b=np.ones(shapes[1]))
    with pytest.raises(RequestError, match=r"expected .0., .1., \.\.\. without a gap, all of one shape"):
        read_trace(tmp_path / "x.npz", names=dict(zip("ab", names, strict=True)))


@pytest.mark.slow
def test_bisection_blames_nothing_that_is_right_but_for_what_was_written_down(tmp_path):
    """Queries dumped before their rotation, say: the attention was computed from others."""
    other, _ = port(tmp_path)
    entries = tuple(
        replace(e, stored=e.stored + 1) if e.name.endswith(".query") else e for e in other.entries
    )
    found = bisect(
        cases.load(FAMILY),
        Trace(entries, other.metadata),
        task=cases.task(FAMILY),
        forced=cases.reference(FAMILY),
    )
    (fault,) = found.faults
    assert (fault.stage, fault.agreeing) == ("talker.layer.{layer}.query", (ATTENTION,))
    assert found.headline.startswith(
        f"Wrong by themselves: {fault.stage}. What the file holds of {fault.stage}"
    )
    assert found.status == "wrong"


def queries_misdumped(tmp_path, mistakes, only=None):
    other, _ = port(tmp_path, mistakes, only=only)
    entries = tuple(
        replace(e, stored=e.stored + 1) if e.name.endswith(".query") else e for e in other.entries
    )
    task, forced = cases.task(FAMILY), cases.reference(FAMILY)
    return bisect(cases.load(FAMILY), Trace(entries, other.metadata), task=task, forced=forced)


def test_a_misdumped_tensor_hides_no_fault_and_adds_none(tmp_path):
    """The attention is wrong in one layer: the other layer's, fed with the wrong dump, is not blamed."""
    query, attention = queries_misdumped(tmp_path, ("heads of a group in turns",), only=1).faults
    assert (query.stage, query.agreeing) == ("talker.layer.{layer}.query", (ATTENTION,))
    assert (attention.stage, attention.first, attention.wrong) == (ATTENTION, "talker.layer.1.attention", 3)


@pytest.mark.slow
def test_a_fault_upstream_keeps_no_victim_of_a_misdumped_tensor(tmp_path):
    found = queries_misdumped(tmp_path, ("residual of the normed input",))
    assert [fault.stage for fault in found.faults] == ["talker.layer.{layer}.query", OUT]


@pytest.mark.slow
def test_several_faults_of_one_stage_are_all_told(tmp_path):
    other, _ = port(tmp_path)
    turned = {"talker.layer.0.out": lambda x: x * 1.5, "talker.layer.1.out@2": lambda x: x + 0.3}
    entries = tuple(
        replace(e, stored=turned[e.key](e.stored)) if e.key in turned else e for e in other.entries
    )
    found = bisect(
        cases.load(FAMILY),
        Trace(entries, other.metadata),
        task=cases.task(FAMILY),
        forced=cases.reference(FAMILY),
    )
    fault = next(fault for fault in found.faults if fault.stage == OUT)
    assert fault.diagnosis[0].startswith("a constant factor of 1.5")
    ((key, words),) = fault.others
    assert key == "talker.layer.1.out@2"
    assert words.startswith("a constant offset of 0.3")


def test_inputs_of_another_pass_are_not_called_inputs(tmp_path):
    other, _ = port(tmp_path)
    given = cases.reference(FAMILY).by_key["talker.layer.0.in"]
    entries = (given, *(shifted(e, "talker.layer.0.attention@2") for e in other.entries))
    first = compare(cases.reference(FAMILY), Trace(entries, other.metadata)).first
    assert first.key == "talker.layer.0.attention@2"
    assert "talker.layer.0.in" not in first.inputs
    assert first.between == ("talker.layer.0.in@2",)


def test_a_tensor_that_was_written_down_elsewhere_is_told_from_a_fault(tmp_path):
    """Far off, and what is computed from it is right: as where a sum was dumped for a summand."""
    other, _ = port(tmp_path)
    entries = tuple(shifted(e, "talker.layer.0.attention") for e in other.entries)
    found = compare(cases.reference(FAMILY), Trace(entries, other.metadata))
    assert found.first_failed == "talker.layer.0.attention"
    assert found.first.agreeing == ("talker.layer.0.mlp", "talker.layer.0.out")
    assert "Was it written down at the place that its name means?" in found.headline
    assert "the fault is in this stage" not in found.headline


def test_layers_counted_from_one_under_documented_names_are_told(tmp_path):
    right = cases.reference(FAMILY).by_key
    made = {name.replace("0", "1"): right[name].stored.numpy() for name in LAYER}
    np.savez(tmp_path / "x.npz", **made)
    found = compare(cases.reference(FAMILY), read_trace(tmp_path / "x.npz", family=FAMILY))
    assert found.first_failed == "talker.layer.1.query"
    assert found.diagnosis[0].startswith("these are the values of talker.layer.0.query")


def test_of_two_files_with_names_of_their_own_no_inputs_are_claimed(tmp_path):
    for name, wrong in (("a", 0.0), ("b", 1.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.ones((3, 4)), y=np.ones((3, 5)) + wrong, z=np.ones(3))
    found = compare(*(read_trace(tmp_path / f"{name}.npz") for name in "ab"), table=TABLE)
    assert (found.first_failed, found.inputs_differed, found.first.inputs) == ("y", None, ())
    assert "No input of it is documented" in found.headline
    assert any("neither file says in which order" in warning for warning in found.warnings)


def test_tensors_that_nothing_is_known_of_are_in_the_headline(tmp_path):
    other, count = port(tmp_path)
    heads = tuple(
        Entry(
            key=f"pre/b0/Q{n}",
            kind="stage",
            shape=(5, 16),
            dtype="float32",
            stored=torch.full((5, 16), n + 0.5),
        )
        for n in (1, 2)
    )
    found = compare(cases.reference(FAMILY), Trace((*other.entries, *heads), other.metadata))
    assert found.headline.startswith(
        f"All {count} common stages are in budget; 2 tensors of the file were not"
    )


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
