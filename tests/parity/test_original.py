"""Against recordings that the originals' own code made on the same tiny checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonant.catalogue.registry import load_model
from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace
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


@pytest.mark.slow
def test_the_documented_example_finds_both_mistakes(tmp_path):
    """As docs/parity.md shows it; in a process of its own, since it breaks things."""
    root = Path(__file__).parents[2]
    checkpoint, clip = DATA / "cosyvoice3/checkpoint", DATA / "cosyvoice3/prompt_24k.wav"
    result = subprocess.run(
        [sys.executable, root / "examples/find_a_fault.py", checkpoint, clip],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    first, second = result.stdout.splitlines()
    assert first.startswith("First stage out of budget: flow.step.1.time.sinus (")
    assert second == "Wrong by themselves: flow.step.{step}.time.sinus, vocoder.conv_post."
    assert {path.name for path in tmp_path.iterdir()} == {"right.safetensors", "port.safetensors"}
