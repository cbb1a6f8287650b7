"""Stages found by what tensors hold, several tries, and the loop of writing and looking again."""

import json

import numpy as np
import pytest
import torch

from sonant.errors import RequestError
from sonant.parity.compare import compare
from sonant.parity.matching import CERTAIN, LIKELY, POSSIBLE, matched, propose, save_map
from sonant.parity.stages import stage_table
from sonant.parity.trace import Trace, read_names, read_trace
from sonant.parity.tries import change, ranking, watch
from tests.parity import cases
from tests.parity.toy_stages import TABLE, toy_trace

FAMILY = "qwen3_tts"


def port(tmp_path, spoil=lambda name, value: value):
    """Two talker layers of prefill and one step, by a port with names, layouts and a batch of its own."""
    reference = cases.reference(FAMILY)
    table = (
        ("h{i}/x", "talker.layer.{i}.in", lambda x: x[0]),
        ("h{i}/q", "talker.layer.{i}.query", lambda x: x[0].transpose(0, 1).flatten(1)),
        ("h{i}/k", "talker.layer.{i}.key", lambda x: x[0].transpose(0, 1)),
        ("h{i}/att", "talker.layer.{i}.attention", lambda x: x.transpose(1, 2)),
        ("h{i}/ffn", "talker.layer.{i}.mlp", lambda x: torch.cat((x, x * 0))),
        ("h{i}/y", "talker.layer.{i}.out", lambda x: x.half()),
    )
    tensors, right = {}, {}
    for step in (0, 1):
        for layer in (0, 1):
            for theirs, ours, layout in table:
                key = ours.format(i=layer) + (f"@{step}" if step else "")
                name = f"s{step}/" + theirs.format(i=layer + 1)
                value = layout(reference.by_key[key].stored)
                tensors[name] = spoil(name, value.clone()).contiguous().numpy()
                right[name] = key
    np.savez(tmp_path / "port.npz", **tensors)
    return read_trace(tmp_path / "port.npz", family=FAMILY), right


def test_every_tensor_of_a_right_port_is_recognised_and_compared(tmp_path):
    reference = cases.reference(FAMILY)
    other, right = port(tmp_path)
    names = {key.replace("/", "."): value for key, value in right.items()}
    matches = propose(reference, other, stage_table(FAMILY))
    assert {m.theirs: m.ours for m in matches} == names
    assert {m.certainty for m in matches} <= {CERTAIN, LIKELY}
    found = compare(reference, matched(other, matches, stage_table(FAMILY)))
    assert found.status == "right", found.headline
    assert found.judged == 24


@pytest.mark.parametrize("how", ["noise", "scale"])
def test_a_tensor_with_wrong_values_is_recognised_by_the_names_of_the_others(tmp_path, how):
    def spoil(name, value):
        if name == "s0/h2/ffn":
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
            return noise * value.std() if how == "noise" else value * 3
        return value

    reference = cases.reference(FAMILY)
    other, _ = port(tmp_path, spoil)
    matches = propose(reference, other, stage_table(FAMILY))
    found = next(m for m in matches if m.theirs == "s0.h2.ffn")
    assert (found.ours, found.certainty) == ("talker.layer.1.mlp", LIKELY)
    assert found.why == "by the pattern of other names"
    judged = compare(reference, matched(other, matches, stage_table(FAMILY)))
    assert judged.first_failed == "talker.layer.1.mlp"


def test_the_map_is_kept_as_rules_and_says_the_same_again(tmp_path):
    reference = cases.reference(FAMILY)
    other, right = port(tmp_path)
    matches = propose(reference, other, stage_table(FAMILY))
    save_map(tmp_path / "map.json", matches, {})
    names = read_names(tmp_path / "map.json")
    assert len(names) < len(right)
    again = read_trace(tmp_path / "port.npz", names={k.replace(".", "/"): v for k, v in names.items()})
    dotted = read_trace(tmp_path / "port.npz", names=names)
    assert {e.key for e in dotted.entries} == set(right.values()) == {e.key for e in again.entries}


def test_what_looks_like_several_stages_is_proposed_and_not_applied(tmp_path):
    reference = cases.reference(FAMILY)
    noise = torch.randn(1, 17, 40, generator=torch.Generator().manual_seed(3))
    np.savez(tmp_path / "x.npz", thing=(noise * 2).numpy())
    other = read_trace(tmp_path / "x.npz", family=FAMILY)
    matches = propose(reference, other, stage_table(FAMILY))
    assert all(m.certainty == POSSIBLE for m in matches)
    assert matched(other, matches, stage_table(FAMILY)).entries[0].key == "thing"


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pt", "npy", "npz", "safetensors", "raw"])
def test_every_form_of_file_says_the_same(tmp_path, form):
    logits = torch.arange(6.0).reshape(1, 6)
    place = tmp_path / "port"
    if form == "pt":
        place = tmp_path / "port.pt"
        torch.save({"talker": {"logits": [logits, logits + 1]}, "epoch": 3, "note": "x"}, place)
    elif form == "npz":
        place = tmp_path / "port.npz"
        np.savez(place, **{"talker.logits": logits.numpy(), "talker.logits@1": logits.numpy() + 1})
    elif form == "safetensors":
        from safetensors.torch import save_file

        place = tmp_path / "port.safetensors"
        save_file({"talker.logits": logits, "talker.logits@1": logits + 1}, place)
    else:
        place.mkdir()
        for name, value in (("talker.logits", logits), ("talker.logits@1", logits + 1)):
            if form == "npy":
                np.save(place / f"{name}.npy", value.numpy())
            else:
                (place / f"{name}.bin").write_bytes(value.numpy().tobytes())
                (place / f"{name}.json").write_text(json.dumps({"shape": [1, 6], "name": name}))
    trace = read_trace(place)
    assert [e.key for e in trace.entries] == ["talker.logits", "talker.logits@1"]
    assert torch.equal(trace.by_key["talker.logits@1"].stored, logits + 1)


def test_a_torch_file_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"x": Evil()}, tmp_path / "x.pt")
    with pytest.raises(RequestError, match="not a readable torch file"):
        read_trace(tmp_path / "x.pt")


def test_an_empty_torch_file_is_said_to_end_too_early(tmp_path):
    (tmp_path / "x.pt").touch()
    with pytest.raises(RequestError, match=r"plain tensors .it ends too early, EOFError"):
        read_trace(tmp_path / "x.pt")


def test_the_other_byte_order_and_complex_numbers_are_read(tmp_path):
    np.savez(
        tmp_path / "x.npz", a=np.arange(3, dtype=">f4"), b=np.array([1 + 2j]), c=np.array([7], np.uint32)
    )
    trace = read_trace(tmp_path / "x.npz")
    assert trace.by_key["a"].stored.tolist() == [0, 1, 2]
    assert trace.by_key["b"].stored.tolist() == [[1, 2]]
    assert trace.by_key["c"].stored.tolist() == [7]


# -- tries ------------------------------------------------------------------------------------


def off(key, factor):
    """A comparison in which one stage is wrong."""
    from dataclasses import replace

    trace = toy_trace()
    entries = tuple(replace(e, stored=e.stored * factor) if e.key == key else e for e in trace.entries)
    return compare(trace, Trace(entries, {**trace.metadata, "made_by": "port"}), table=TABLE)


def test_tries_are_ranked_by_how_far_they_are_right():
    tries = [("a", off("toy.layer.0.mlp", 2)), ("b", off("toy.conv", 2)), ("c", off("toy.logits", 2))]
    rows = ranking(tries)
    assert [row.split()[0] for row in rows[1:]] == ["b", "c", "a"]
    assert rows[1].endswith("toy.conv")


def test_what_got_better_and_what_got_worse():
    found = change(off("toy.conv", 2), off("toy.logits", 2))
    assert (found.mended, found.broken) == (("toy.conv",), ("toy.logits",))
    nearer = change(off("toy.conv", 2), off("toy.conv", 1.1))
    assert (nearer.closer, nearer.farther) == (("toy.conv",), ())
    assert list(change(off("toy.conv", 2), off("toy.conv", 2)).lines()) == ["nothing changed"]
    assert list(found.lines()) == ["mended: toy.conv", "broken: toy.logits"]


def test_a_file_is_judged_again_once_it_is_written_to_its_end(tmp_path):
    """Times of writing as looks see them; a file that is still being written is left alone."""
    looks = iter([1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 0.0, 4.0, 4.0])
    judged = []

    def wait():
        if not left():
            raise KeyboardInterrupt

    seen = []

    def left():
        return len(seen) < 9

    def times(path):
        seen.append(1)
        return next(looks)

    found = list(watch(tmp_path, lambda: judged.append(len(seen)) or "again", wait=wait, times=times))
    assert found == ["again", "again"]
    assert judged == [5, 9]
