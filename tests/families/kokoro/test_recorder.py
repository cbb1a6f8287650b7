"""The recorder beside the original gives what Sonant computes, stage by stage."""

import subprocess
import sys
from pathlib import Path

import torch

import sonant.parity.reference
from sonant.parity.record import record
from sonant.parity.task import task_of
from sonant.parity.trace import read_trace

from .conftest import once

SCRIPT = Path(sonant.parity.reference.__file__).with_name("kokoro.py")


def test_what_the_recorder_writes_is_what_the_family_computes(folder, model, tmp_path):
    text = "Hello there, all of you."
    phonemes = once("english", british=False)(text)
    command = [sys.executable, SCRIPT, folder, "--text", text, "--voice", "af_bella", "--speed", "0.8"]
    output = tmp_path / "original.safetensors"
    subprocess.run([*command, "--phonemes", phonemes, "-o", output], check=True, timeout=120)
    original = read_trace(output)
    ours = record(model, task_of(original))
    for name in ("voice.styles", "text.ids", "waveform", "output.samples"):
        left, right = original.by_key[name].stored, ours.by_key[name].stored
        assert left.shape == right.shape, name
        assert torch.equal(left.float(), right.float()), name
    assert original.metadata["family"] == ours.metadata["family"] == "kokoro"
