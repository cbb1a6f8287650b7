"""The built-in voice is spoken without what it does not need: loading torch takes longer than speaking."""

import subprocess
import sys

import pytest

from sonant.request.audio import Audio

COMMAND = """
import os, sys
sys.argv = ["sonant", "say", "Hello there.", "-o", "hello.wav", "--seed", "1"]
from sonant.cli import main
try:
    main()
finally:
    print(*sys.modules, *(f"{name}={value}" for name, value in os.environ.items()))
"""
LIBRARY = """
import os, sys
import sonant
sonant.say("Hello there.", seed=1).save("hello.wav")
print(*sys.modules, *(f"{name}={value}" for name, value in os.environ.items()))
"""


@pytest.mark.parametrize("script", [COMMAND, LIBRARY], ids=["say", "sonant.say"])
def test_the_built_in_voice_speaks_without_torch(tmp_path, script):
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "ORT_DISABLE_TELEMETRY=1" in done.stdout.split()
    loaded = set(done.stdout.split())
    assert "onnxruntime" in loaded
    heavy = {"torch", "scipy.signal", "av", "rich", "safetensors", "huggingface_hub"}
    assert loaded & heavy == set()
    assert Audio.read(tmp_path / "hello.wav").seconds > 0.5
