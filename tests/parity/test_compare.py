import math
from dataclasses import replace

import pytest
import torch

from sonant.parity.bisect import bisect
from sonant.parity.budgets import Budget, budget_table, coarser, find_budget
from sonant.parity.compare import compare
from sonant.parity.measure import distance
from sonant.parity.stages import FAMILIES, stage_table
from sonant.parity.stages.table import Stage, StageTable
from sonant.parity.trace import Entry, Trace
from tests.parity.toy_stages import TABLE, toy_task, toy_trace
from tests.toy import ToyModel


def entry(tensor, key="x", kind="stage"):
    dtype = str(tensor.dtype).removeprefix("torch.")
    return Entry(key=key, kind=kind, shape=tuple(tensor.shape), dtype=dtype, stored=tensor)


def broken(change):
    model = ToyModel(end_bias=float("-inf"))
    change(model)
    return model


def double_mlp(layer):
    def change(model):
        model.stack.layers[layer].mlp.down_proj.weight.data *= 1.5

    return change


def test_a_run_equals_itself_in_all_three_verdicts():
    found = compare(toy_trace(), toy_trace(), table=TABLE)
    assert found.first_failed is None
    assert {name: v.status for name, v in found.verdicts.items()} == {
        "single_forward": "equal",
        "teacher_forced": "equal",
        "free_decode": "equal",
    }
    assert found.warnings == ()


def test_the_first_stage_out_of_budget_is_named_and_its_inputs_agree():
    other = toy_trace(broken(double_mlp(1)))
    found = compare(toy_trace(), other, table=TABLE)
    assert found.first_failed == "toy.layer.1.mlp"
    assert found.inputs_differed is False
    later = next(s for s in found.stages if s.key == "toy.layer.1.out")
    assert later.inputs_differed is True
    assert "the fault is in this stage" in found.headline


def test_without_the_faulty_stage_the_headline_says_that_its_inputs_are_unknown_or_differ():
    reference = toy_trace(stages="toy.logits")
    found = compare(reference, toy_trace(broken(double_mlp(1))), table=TABLE)
    assert found.first_failed == "toy.logits"
    assert found.inputs_differed is None


def test_another_seed_is_a_matter_of_the_draws_not_of_a_stage():
    found = compare(toy_trace(seed=7), toy_trace(seed=8), table=TABLE)
    assert found.first_failed == "toy.token"
    assert found.inputs_differed is True
    assert any("random draws differ" in warning for warning in found.warnings)
    assert any("seeds" in warning for warning in found.warnings)
    assert found.verdicts["free_decode"].first_failed == "toy.token"
    assert "rank" in found.verdicts["free_decode"].detail


def test_stages_after_a_differing_token_are_not_judged():
    found = compare(toy_trace(seed=7), toy_trace(seed=8), table=TABLE)
    place = [s.key for s in found.stages].index("toy.token")
    assert not any(s.has_failed for s in found.stages[place + 1 :])


def test_teacher_forcing_separates_the_verdicts():
    reference = toy_trace()
    model = broken(lambda m: m.head.weight.data.mul_(-1))
    forced = toy_trace(model, forced=reference)
    found = compare(reference, forced, table=TABLE)
    assert found.first_failed == "toy.logits"
    assert found.verdicts["teacher_forced"].status == "out of budget"
    assert found.verdicts["free_decode"].status == "differs"
    keys = [s.key for s in found.stages if s.group == "teacher_forced" and s.has_failed]
    assert len(keys) == 12  # every later step's logits, and nothing else
    assert all(key.startswith("toy.logits@") for key in keys)


def test_a_trace_forced_by_another_reference_is_noticed():
    forced = toy_trace(forced=toy_trace(seed=8))
    found = compare(toy_trace(seed=7), forced, table=TABLE)
    assert any("another reference" in warning for warning in found.warnings)


def test_the_answer_as_data_holds_what_scripts_need():
    data = compare(toy_trace(), toy_trace(broken(double_mlp(0))), table=TABLE).data()
    assert data["first_failed"] == "toy.layer.0.mlp"
    assert data["inputs_differed"] is False
    first = next(s for s in data["stages"] if s["key"] == "toy.layer.0.mlp")
    assert first["has_failed"]
    assert first["max_abs"] > first["allowed"]


def test_bisection_lists_every_stage_that_is_wrong_by_itself():
    def change(model):
        double_mlp(0)(model)
        model.head.bias.data += 0.5
        model.up.weight.data *= 2

    found = bisect(broken(change), toy_trace(), task=toy_task(), table=TABLE)
    assert [fault.stage for fault in found.faults] == ["toy.layer.{layer}.mlp", "toy.logits", "toy.up"]
    assert found.faults[0].first == "toy.layer.0.mlp"
    assert found.faults[0].wrong == 12 + 1  # layer 0 only, in prefill and every step
    assert found.faults[0].of == 2 * 13


def test_bisection_goes_on_after_a_stage_of_the_wrong_shape():
    def change(model):
        plain = model.conv.forward
        model.conv.forward = lambda x, past=None: (plain(x, past)[0][..., 1:], None)
        model.up.bias.data += 1

    found = bisect(broken(change), toy_trace(), task=toy_task(), table=TABLE)
    assert [fault.stage for fault in found.faults] == ["toy.conv", "toy.up"]
    assert not found.stopped


def test_a_clean_model_has_no_fault():
    found = bisect(ToyModel(end_bias=float("-inf")), toy_trace(), task=toy_task(), table=TABLE)
    assert found.faults == ()
    assert found.uncovered == ()


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        (torch.ones(3), torch.ones(3) + 1e-7, "ok"),
        (torch.ones(3), torch.ones(3) + 1e-2, "over"),
        (torch.ones(3), torch.ones(4), "shape"),
        (torch.ones(1, 3), torch.ones(3), "ok"),
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0]), "nonfinite"),
        (torch.tensor([1.0, -math.inf]), torch.tensor([1.0, -math.inf]), "ok"),
        (torch.tensor([1.0, -math.inf]), torch.tensor([1.0, 0.0]), "nonfinite"),
        (torch.tensor([1, 2]), torch.tensor([1, 2]), "ok"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "over"),
        (torch.zeros(2), torch.zeros(2), "ok"),
        (torch.zeros(0), torch.zeros(0), "ok"),
    ],
)
def test_distances(a, b, status):
    assert distance(entry(a), entry(b), Budget(1e-4, 1e-5)).status == status


def test_a_filters_edge_may_move_in_reduced_precision_only():
    a, b = torch.tensor([1.0, 0.5, -math.inf]), torch.tensor([1.0, -math.inf, -math.inf])
    assert distance(entry(a), entry(b), Budget(1e-4, 1e-5)).status == "nonfinite"
    assert distance(entry(a), entry(b), Budget(0.1, 0.01)).status == "ok"


def test_two_precisions_are_judged_by_the_coarser():
    assert coarser("float32", "bfloat16") == "bfloat16"
    assert coarser("int8", "float32") == "int8"


def test_own_budgets_are_never_above_accumulated_ones():
    for family, by_precision in budget_table().items():
        for precision, stages in by_precision.items():
            for stage, (accumulated, own) in stages.items():
                assert 0 < own <= accumulated < 10, (family, precision, stage)


def test_budgets_name_documented_stages_only():
    for family in FAMILIES:
        table = stage_table(family)
        for stages in budget_table().get(family, {}).values():
            assert set(stages) - {"*"} <= {stage.name for stage in table}
        assert find_budget(table, "float32", "no such stage").accumulated > 0


def test_an_input_with_a_number_of_its_own_is_found_by_the_numbers_that_are_known():
    """`mean.{stage}` is computed from `block.{stage}.{block}`: the latest block of the same stage."""
    table = StageTable(
        "x",
        [
            Stage(name="block.{stage}.{block}", shape="", what="", part="audio"),
            Stage(name="mean.{stage}", shape="", what="", part="audio", inputs=("block.{stage}.{block}",)),
        ],
    )
    names = ("block.0.0", "block.0.1", "mean.0", "block.1.0", "mean.1")
    trace = Trace(tuple(entry(torch.ones(2), key=name) for name in names))
    inputs = {stage.key: stage.inputs for stage in compare(trace, trace, table=table).stages}
    assert inputs["mean.0"] == ("block.0.1",)
    assert inputs["mean.1"] == ("block.1.0",)


def test_bisection_by_a_reference_of_samples_blames_the_first_wrong_stage_only():
    """Where only samples are kept, the network's own value goes on; what follows is wrong because of it."""
    reference = toy_trace(max_elements=3)
    clean = bisect(ToyModel(end_bias=float("-inf")), reference, task=toy_task(), table=TABLE)
    assert clean.faults == ()
    assert "toy.logits" in clean.sampled
    found = bisect(broken(double_mlp(1)), reference, task=toy_task(), table=TABLE)
    assert [fault.stage for fault in found.faults] == ["toy.layer.{layer}.mlp"]


def test_a_forced_draw_of_another_shape_is_not_put_in():
    reference = toy_trace()
    wider = Trace(
        tuple(
            replace(e, stored=torch.ones(5), shape=(5,)) if e.kind == "draw" else e for e in reference.entries
        ),
        reference.metadata,
    )
    found = toy_trace(forced=wider)
    assert found.by_key["draw.exponential"].shape == reference.by_key["draw.exponential"].shape
