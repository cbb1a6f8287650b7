"""Against recordings that the originals' own code made on the same tiny checkpoints."""

from pathlib import Path

import pytest

from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace
from sonant.registry import load_model

DATA = Path(__file__).parents[1] / "data"
CASES = {
    "cosyvoice3": (DATA / "parity/cosyvoice3_original.safetensors", DATA / "cosyvoice3/checkpoint"),
    "qwen3_tts": (DATA / "parity/qwen3_tts_original.safetensors", DATA / "qwen3_tts/checkpoints/base_1p7b")
}


@pytest.fixture(params=CASES)
def case(request):
    trace, checkpoint = CASES[request.param]
    return read_trace(trace), checkpoint


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
