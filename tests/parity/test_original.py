"""Against recordings that the originals' own code made on the same tiny checkpoints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sonant.catalogue.registry import load_model
from sonant.families.qwen3_tts.prompt import ROLE_IDS
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


def test_the_original_s_prompt_is_recorded_in_its_parts():
    """Text, codec, speaker and language, as the original's own code added them up."""
    trace = read_trace(DATA / "parity/qwen3_tts_original.safetensors")
    text, codec, speaker, language = (
        trace.by_key[f"prompt.part.{name}"].stored for name in ("text", "codec", "speaker", "language")
    )
    assert torch.equal(text + codec, trace.by_key["prompt.embeds"].stored)
    assert torch.equal(speaker, trace.by_key["speaker.vector"].stored)
    assert (len(language), len(speaker)) == (4, 1)  # with a language named: think, begin, language, end
    assert not codec[:ROLE_IDS].any()  # before the language nothing is heard
    assert torch.equal(codec[ROLE_IDS : ROLE_IDS + 5], torch.cat((language, speaker)))
    assert not any(torch.equal(row, other) for i, row in enumerate(language) for other in language[:i])


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
