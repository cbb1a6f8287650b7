"""The official Node client against a real server process with the built-in voice."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sonant.audio.io import read_audio
from tests.server.conftest import KEY

NODE, NPM = shutil.which("node"), shutil.which("npm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NODE or not NPM, reason="no Node on this machine"),
]

SCRIPT = Path(__file__).parent / "node_client.mjs"


@pytest.fixture(scope="module")
def told(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    shutil.copy(SCRIPT, folder / "script.mjs")
    install = [NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts", "openai"]
    made = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=200)
    if made.returncode:
        pytest.skip(f"the npm package openai cannot be installed: {made.stderr[-200:]}")
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    command = [NODE, "script.mjs", f"{served.url}/v1", KEY, str(folder)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), folder


def test_every_format_decodes_to_the_same_speech(told):
    _, folder = told
    pcm = np.frombuffer((folder / "whole.pcm").read_bytes(), "<i2")
    seconds = len(pcm) / 24_000
    assert 1.5 < seconds < 6
    for form in ("mp3", "opus", "aac", "flac", "wav"):
        samples, rate = read_audio(folder / f"whole.{form}")
        assert len(samples) / rate == pytest.approx(seconds, abs=0.15), form


def test_streams_to_file_and_events_carry_the_same_bytes(told):
    report, folder = told
    assert (folder / "streamed.wav").read_bytes() == (folder / "whole.wav").read_bytes()
    assert (folder / "events.mp3").read_bytes() == (folder / "whole.mp3").read_bytes()
    assert report["last"]["type"] == "speech.audio.done"


def test_errors_have_their_classes_codes_and_fields(told):
    errors = told[0]["errors"]
    assert errors["key"] == ["AuthenticationError", 401, "invalid_api_key", None]
    assert errors["voice"] == ["NotFoundError", 404, "voice_error", "voice"]
    assert errors["model"] == ["NotFoundError", 404, "model_not_found", "model"]
    assert errors["format"] == ["BadRequestError", 400, "unsupported_response_format", "response_format"]
    assert errors["knob"] == ["BadRequestError", 400, "unsupported", "instructions"]


def test_a_long_input_is_spoken_and_a_cancelled_one_stops(told):
    report, _ = told
    assert report["long"] > 1_000_000
    assert report["outcome"] == "client_gone"
    assert report["models"][0] == "builtin"


def test_the_example_of_the_handbook_runs(told, served):
    folder = told[1]
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```js\n(.*?)```", page, re.S)
    code = code.replace("http://127.0.0.1:8000", served.url).replace('"none"', json.dumps(KEY))
    (folder / "example.mjs").write_text(code, encoding="utf-8")
    subprocess.run([NODE, "example.mjs"], cwd=folder, check=True, timeout=60)
    assert read_audio(folder / "hello.mp3")[1] == 24_000
