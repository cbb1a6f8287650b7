"""A small conformance kit: tiny random checkpoints in the official layout and what the original computes.

The checkpoints share tokenizer and codec, which are kept once; the fixture puts them together.
"""

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch

from sonant.families.qwen3_tts import load

DATA = Path(__file__).parents[2] / "data" / "qwen3_tts"
SHARED = ("vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3_tts") / "kit"
    shutil.copytree(DATA, folder)
    source = folder / "checkpoints" / "base_1p7b"
    for checkpoint in (folder / "checkpoints").iterdir():
        if checkpoint != source:
            for name in SHARED:
                shutil.copyfile(source / name, checkpoint / name)
            shutil.copytree(source / "speech_tokenizer", checkpoint / "speech_tokenizer")
    return folder


@pytest.fixture(scope="session")
def loaded(kit):
    """Checkpoint name -> its model in float32, loaded once."""
    return cache(
        lambda name: load(kit / "checkpoints" / name, device=torch.device("cpu"), dtype=torch.float32)
    )


@pytest.fixture
def copied(kit, tmp_path):
    """Checkpoint name -> a copy of its folder that a test may damage."""

    def copy(name):
        return Path(shutil.copytree(kit / "checkpoints" / name, tmp_path / name))

    return copy
