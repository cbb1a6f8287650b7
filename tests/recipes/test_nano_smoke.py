"""The nano recipe from texts to a judged checkpoint, on a toy scale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sonant

ROOT = Path(__file__).parents[2]


def curve(folder: Path, key: str) -> list[float]:
    """The numbers called `key` in a stage's curve."""
    lines = (folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry[key] for entry in map(json.loads, lines) if key in entry]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_stage_runs_learns_and_the_checkpoint_speaks(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    trained = ("texts", "speech", "codes", "pace", "decoder", "encoder", "talker")
    for stages in (("all",), trained):  # the second run finds everything done
        curves = {path: path.read_bytes() for path in tmp_path.glob("*/curve.jsonl")}
        command = [sys.executable, "-m", "recipes.nano", *stages, "--work", str(tmp_path), "--scale", "smoke"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.read_bytes() for path in curves} == curves, "a finished stage trained again"
    left = curve(tmp_path / "codes", "left")
    assert left[-1] < left[1]
    for stage, key in (("decoder", "mel"), ("encoder", "left"), ("talker", "first"), ("pace", "apart_ms")):
        numbers = curve(tmp_path / stage, key)
        assert numbers[-1] < numbers[0], f"{stage} learned nothing: {numbers}"
    speech = sonant.load(tmp_path / "model").synthesize(sonant.SpeechRequest("Hello there.", seed=1))
    assert speech.sample_rate == 24_000
    assert abs(speech.samples).max() > 0
    table = json.loads((tmp_path / "judge" / "table.json").read_text(encoding="utf-8"))
    assert table["sentences"] == 1
