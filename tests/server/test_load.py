"""The load script for a few seconds: no answer lost or mixed up, nothing left running, memory flat."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"


def load(*options):
    command = [sys.executable, str(ROOT / "benchmarks" / "server_load.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert made.returncode == 0, made.stderr[-2_000:]
    return json.loads(made.stdout)


def check(report):
    assert report["answers"] > 0
    assert report["wrong"] == []
    assert report["refused"] == 0
    assert report["left_in_the_middle"] > 0
    assert report["work_stopped_after_leaving"]["most"] < 1.0
    assert report["bytes_of_the_slow_reader"] > 0
    assert report["still_running_at_the_end"] == 0
    memory = report["memory_mib"]
    assert memory["last_quarter"] - memory["second_quarter"] < 60


@pytest.mark.slow
def test_a_crowd_gets_what_each_gets_alone():
    check(load("--seconds", "5", "--clients", "12", "--variants", "4"))


@pytest.mark.slow
def test_fifty_clients_and_eight_on_a_tiny_cloning_model():
    report = load("--seconds", "30", "--clients", "50", "--tiny", str(TINY), "--tiny-clients", "8")
    check(report)
    assert set(report["first_audio"]) == {"builtin", "tiny"}
