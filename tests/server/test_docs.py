"""The examples of docs/server.md run against a real server; the files of deploy/ name what is there."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sonant.audio.io import read_audio, write_audio
from sonant.catalogue.registry import load
from sonant.cli.app import tree
from sonant.request.speech import SpeechRequest
from sonant.server.app import create_app
from sonant.server.models import ModelPool, ModelSource
from sonant.server.settings import ServerSettings
from sonant.voices.library import VoiceLibrary
from tests.server.conftest import ThreadServer

cli = tree()

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / "server.md").read_text(encoding="utf-8"), re.S)


def blocks(language, word):
    return [code for kind, code in BLOCKS if kind == language and word in code]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A server without a key on the built-in voice, and a folder with the files the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    with load("builtin") as engine:
        speech = engine.synthesize(SpeechRequest("What Ann says, in a few words.", seed=1))
    write_audio(folder / "ann.wav", speech.samples, speech.sample_rate)
    pool = ModelPool([ModelSource(name="builtin", open=partial(load, "builtin"))])
    server = ThreadServer(create_app(pool, VoiceLibrary(folder / "voices"), ServerSettings()))
    yield server, folder
    server.stop()


def run(example, command, code):
    server, folder = example
    code = code.replace("http://127.0.0.1:8000", server.url)
    code = code.replace("ws://127.0.0.1:8000", server.url.replace("http", "ws"))
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    made = subprocess.run(
        [*command, code], cwd=folder, capture_output=True, text=True, timeout=200, env=environment
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
@pytest.mark.parametrize("code", blocks("sh", "curl"))
def test_curl_examples_run(example, code):
    run(example, ["sh", "-ec"], code)
    if "hello.mp3" in code:
        assert read_audio(example[1] / "hello.mp3")[1] == 24_000


@pytest.mark.parametrize("code", blocks("python", "127.0.0.1"))
def test_python_examples_run(example, code):
    run(example, [sys.executable, "-c"], code)
    name = "live.wav" if "live.wav" in code else "hello.wav"
    samples, rate = read_audio(example[1] / name)
    assert len(samples) / rate > 0.5


def test_every_option_of_the_page_exists():
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    known = "".join(
        CliRunner(env={"COLUMNS": "200"}).invoke(cli, [name, "--help"]).output for name in ("serve", "key")
    )
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--from"}
    assert options
    assert [option for option in sorted(options) if option not in known] == []


def test_deploy_files_name_what_is_there():
    for name in ("Dockerfile.cpu", "Dockerfile.cuda"):
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
        assert "USER sonant" in text
        command = re.findall(r"^CMD (\[.*\])$", text, re.M)[-1]
        check_options(yaml.safe_load(command))
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        assert (ROOT / service["build"]["dockerfile"]).exists()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        check_options(service.get("command", []))
    unit = (ROOT / "deploy" / "sonant.service").read_text(encoding="utf-8")
    check_options(re.search(r"^ExecStart=(.*)$", unit, re.M)[1].split()[1:])


def check_options(command):
    known = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["serve", "--help"]).output
    for word in command:
        if word.startswith("--"):
            assert word in known, word
