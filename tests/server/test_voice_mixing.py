"""A mixture of stored voices, asked for over HTTP: it speaks, as neither of them, or is refused by name."""

from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest

from sonant.catalogue.registry import load
from sonant.request.audio import Audio
from sonant.request.voice import Voice
from sonant.server.models import ModelSource
from tests.server.test_others_words import Cloner, source

pytestmark = pytest.mark.slow  # loads a model; tests/voices/test_mixing.py is quick

DATA = Path(__file__).parents[1] / "data"
QWEN = DATA / "qwen3_tts" / "checkpoints" / "base_1p7b"


@pytest.fixture
def library(library):
    for name, file in (("ann", "ref_a_24k_mono.wav"), ("bea", "ref_b_16k_stereo.wav")):
        library.add(Voice(name=name, clip=Audio.read(DATA / "qwen3_tts" / "audio" / file)))
    return library


def ask(server, voice):
    body = {"input": "Hi.", "voice": voice, "seed": 1, "response_format": "wav", "stream": False}
    body |= {"loudness": "off", "sampling": {"max_frames": 12}}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)


def test_a_mixture_is_spoken_by_a_voice_between(start):
    qwen = ModelSource(name="qwen", open=lambda: load(QWEN, device="cpu", slots=1))
    server = start(qwen)
    said = {
        name: ask(server, name) for name in ("ann", "bea", "ann:1", "ann:0.5+bea:0.5", "Bea+ann", "ann:3+bea")
    }
    assert {answer.status_code for answer in said.values()} == {200}
    assert unquote(said["ann:3+bea"].headers["x-sonant-voice"]) == "ann:0.75+bea:0.25"
    assert said["ann:1"].content == said["ann"].content, "of one voice alone it is that voice"
    assert said["Bea+ann"].content == said["ann:0.5+bea:0.5"].content
    different = ("ann", "bea", "ann:0.5+bea:0.5", "ann:3+bea")
    assert len({said[name].content for name in different}) == len(different)
    for name in different:
        samples = np.frombuffer(said[name].content[44:], "<i2")
        assert len(samples) > 1_000
        assert samples.any(), name
    for voice, told in (
        ("ann+nobody", "nobody"), ("ann:0+bea", "weights above 0"), ("ann:1e308+bea:1e308", "too large"),
        ("ann:nan+bea", "weights above 0"), ("+".join(["ann"] * 9), "at most 8"),
    ):  # fmt: skip
        refused = ask(server, voice)
        assert (refused.status_code, refused.json()["error"]["param"]) == (404, "voice")
        assert told in refused.json()["error"]["message"]


def test_a_model_that_mixes_nothing_refuses_a_mixture_by_name(start):
    refused = ask(start(source(Cloner, "cloner")), "ann+bea")
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "voice")
    assert "ann+bea" in refused.json()["error"]["message"]
