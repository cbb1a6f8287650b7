import timeit

import pytest
import torch

from benchmarks.tap_cost import measure, switches
from sonant.nn.tap import tap
from sonant.parity.task import perform
from tests.parity import cases


@pytest.mark.parametrize(
    "family", ["qwen3_tts", *(pytest.param(name, marks=pytest.mark.slow) for name in cases.FAMILIES[1:])]
)
def test_without_taps_the_same_samples_are_computed(family):
    """What benchmarks/tap_cost.py removes is nothing but taps."""
    model, task = cases.load(family), cases.task(family)
    expected = perform(model, task)
    found = switches()
    modules = {function.__module__ for function, *_ in found}
    assert f"sonant.families.{family}" in {name.rpartition(".")[0] for name in modules}
    try:
        for function, _, plain, _ in found:
            function.__code__ = plain
            assert "tap" not in plain.co_names
        assert torch.equal(perform(model, task), expected)
    finally:
        for function, code, *_ in found:
            function.__code__ = code


@pytest.mark.slow
@pytest.mark.parametrize("family", cases.FAMILIES)
def test_inactive_taps_take_less_than_a_hundredth_of_the_time(family):
    """Calls times the price of a call; networks of real size take thousands of times longer between taps."""
    rows, calls = measure(cases.load(family), cases.task(family), rounds=3)
    name, x = "layer", torch.zeros(1)
    price = min(timeit.repeat(lambda: tap(f"{name}.query", x), number=20_000, repeat=5)) / 20_000
    assert calls > 100
    assert calls * price < 0.01 * min(row[1] for row in rows)
