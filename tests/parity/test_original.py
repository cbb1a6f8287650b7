"""Against recordings that the originals' own code made on the same tiny checkpoints."""

from pathlib import Path

import pytest

from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace
from sonant.registry import load_model
from tests.parity import cases

DATA = Path(__file__).parents[1] / "data"
FAMILIES = ("qwen3_tts", "cosyvoice3", "indextts2")


@pytest.fixture(params=FAMILIES)
def case(request):
    trace = read_trace(DATA / "parity" / f"{request.param}_original.safetensors")
    return trace, cases.checkpoint(request.param)


def test_sonant_equals_the_original_stage_by_stage_and_token_by_token(case):
    reference, checkpoint = case
    ours = record(load_model(checkpoint, device="cpu"), task_of(reference), forced=reference)
    found = compare(reference, ours)
    assert found.first_failed is None, found.headline
    assert not found.missing
    assert len(found.stages) > 300
    assert found.verdicts["single_forward"].status in {"equal", "in budget"}
    assert found.verdicts["teacher_forced"].status in {"equal", "in budget"}
    assert found.verdicts["free_decode"].status == "equal"


def test_no_stage_is_wrong_by_itself(case):
    reference, checkpoint = case
    found = bisect(load_model(checkpoint, device="cpu"), reference)
    assert found.faults == ()
    assert not found.stopped
