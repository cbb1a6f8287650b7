"""A tiny official-layout checkpoint and what the official code computes from it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sonant.families import cosyvoice3
from sonant.request.audio import Audio

DATA = Path(__file__).parents[2] / "data" / "cosyvoice3"
CPU = torch.device("cpu")


def load(folder, dtype=torch.float32):
    return cosyvoice3.load(folder, device=CPU, dtype=dtype)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint():
    return DATA / "checkpoint"


@pytest.fixture
def folder(checkpoint, tmp_path):
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def shared_model(checkpoint):
    return load(checkpoint)


@pytest.fixture(scope="session")
def expected():
    return load_file(DATA / "expected.safetensors")


@pytest.fixture(scope="session")
def rows():
    return json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def clip():
    return Audio.read(DATA / "prompt_24k.wav")


@pytest.fixture(scope="session")
def source():
    return Audio.read(DATA / "source_16k.wav")


@pytest.fixture(scope="session")
def told(shared_model, clip, rows):
    """A voice with transcript."""
    return shared_model.encode_voice(clip, rows["texts"]["prompt"])


@pytest.fixture(scope="session")
def untold(shared_model, clip):
    """A voice without transcript."""
    return shared_model.encode_voice(clip, None)
