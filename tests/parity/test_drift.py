import json
from importlib import import_module

import pytest
from torch import nn

from sonant.errors import RequestError
from sonant.nn.narrow_products import RoundedRows
from sonant.nn.packed import PackedLinear
from sonant.nn.precision import PlainLinear
from sonant.parity.budgets import budget_table, find_budget
from sonant.parity.drift import drift_of, modules_of, quantized, update_budgets
from sonant.parity.stages import stage_table
from tests.parity import cases
from tests.parity.toy_stages import TABLE, toy_task
from tests.toy import ToyModel


def toy(precision):
    import torch

    return ToyModel(end_bias=float("-inf"), dtype=getattr(torch, precision))


def test_drift_tells_how_much_each_stage_loses_by_itself_and_in_all():
    found = drift_of(toy, toy_task(), ("float64", "bfloat16", "int4"), table=TABLE)
    losses = {precision: {x.stage: x for x in found.losses[precision]} for precision in found.precisions}
    assert max(x.own for x in losses["float64"].values()) < 1e-5
    assert 1e-4 < losses["bfloat16"]["toy.layer.{layer}.mlp"].own < 0.1
    assert losses["int4"]["toy.layer.{layer}.mlp"].own > losses["bfloat16"]["toy.layer.{layer}.mlp"].own
    assert losses["int4"]["toy.conv"].own == 0  # no linear layer in it
    assert found.worst("int4")[0].own == max(x.own for x in found.losses["int4"])
    assert found.worst("int4")[0].stage in found.headline("int4")


def test_quantising_reaches_every_linear_layer_of_a_model():
    model = quantized(toy("float32"), "int8")
    kinds = [type(m).__name__ for top in modules_of(model) for m in top.modules()]
    assert kinds.count("PlainLinear") == 2 * 7  # the head itself is the model's own attribute
    assert kinds.count("Linear") == 1


def test_a_family_with_a_plan_narrows_what_the_plan_says():
    model = quantized(cases.load("qwen3_tts"), "int8")
    assert any(isinstance(m, PlainLinear) for m in model.network.talker.decoder.modules())
    assert not any(isinstance(m, PlainLinear) for m in model.network.talker.text_projection.modules())
    assert not any(isinstance(m, PlainLinear) for m in model.speech_tokenizer.codec.modules())


@pytest.mark.parametrize("family", ["cosyvoice3", "indextts2"])
def test_the_other_families_narrow_what_they_narrow_when_speaking(family):
    model = quantized(cases.load(family), "int8")
    package = import_module(f"sonant.families.{family}.weights")
    stack, flow = (
        (model.language, model.flow)
        if family == "cosyvoice3"
        else (model.parts.gpt, model.parts.s2mel.estimator)
    )
    kinds = {PlainLinear: package.narrowed(stack), RoundedRows: package.narrow_parts(flow)}
    for kind, parts in kinds.items():
        inside = [m for part in parts for m in part.modules()]
        assert any(isinstance(m, kind) for m in inside)
        assert not any(isinstance(m, nn.Linear | PackedLinear) for m in inside)
        everywhere = [m for top in modules_of(model) for m in top.modules() if isinstance(m, kind)]
        assert {id(m) for m in everywhere} <= {id(m) for m in inside}


def test_drift_gives_both_figures():
    found = drift_of(toy, toy_task(), ("bfloat16",), table=TABLE)
    for loss in found.losses["bfloat16"]:
        assert (loss.own_l2 > 0) == (loss.own > 0)
        assert loss.accumulated_l2 <= 30 * loss.accumulated
    assert {"own_l2", "accumulated_l2"} <= set(found.data()["precisions"]["bfloat16"]["stages"][0])


def test_an_unknown_precision_is_refused():
    with pytest.raises(RequestError, match="int3"):
        drift_of(toy, toy_task(), ("int3",), table=TABLE)


def test_budgets_are_written_with_a_margin_and_keep_larger_ones(tmp_path):
    found = drift_of(toy, toy_task(), ("bfloat16",), table=TABLE)
    path = tmp_path / "b.json"
    update_budgets(path, found, margin=2)
    written = json.loads(path.read_text())["toy"]["bfloat16"]
    for loss in found.losses["bfloat16"]:
        accumulated, own = written[loss.stage]
        assert 2 * loss.own <= own <= max(2.3 * loss.own, 1e-6)
        assert own <= accumulated
    update_budgets(path, found, margin=1)
    assert json.loads(path.read_text())["toy"]["bfloat16"] == written


@pytest.mark.parametrize("family", cases.FAMILIES)
@pytest.mark.parametrize(
    ("base", "precision"),
    [
        ("float32", "bfloat16"),
        pytest.param("float32", "int8", marks=pytest.mark.slow),
        pytest.param("float32", "mixed", marks=pytest.mark.slow),
        pytest.param("float32", "int4", marks=pytest.mark.slow),
        pytest.param("float64", "float32", marks=pytest.mark.slow),
    ],
)
def test_the_committed_budgets_hold_and_are_not_slack(family, base, precision):
    if precision == "mixed" and family != "qwen3_tts":
        with pytest.raises(RequestError, match="mixed"):
            quantized(cases.load(family), precision)
        return
    found = drift_of(lambda name: cases.load(family, name), cases.task(family), (precision,), base=base)
    table = stage_table(family)
    losses = found.losses[precision]
    for loss in losses:
        assert loss.stage in budget_table()[family][precision], loss.stage
        budget = find_budget(table, precision, loss.stage)
        assert loss.own <= budget.own, loss
        assert loss.accumulated <= budget.accumulated, loss
    largest = max(find_budget(table, precision, loss.stage).own for loss in losses)
    assert largest <= 30 * max(loss.own for loss in losses)
