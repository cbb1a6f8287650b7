"""Answers leave at the server's loudness or the body's; the clip of a designed voice as the model said it."""

import httpx
import numpy as np
import pytest

from sonant.audio.loudness import Leveller
from sonant.request.audio import Audio
from sonant.server.settings import ServerSettings

from .conftest import toy_source

TEXT = "long enough to be heard as speech"


def said(server, **more):
    body = {"input": TEXT, "seed": 1, "response_format": "wav", "stream": False, **more}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)


def test_the_body_wins_over_the_server_and_off_is_the_models_own(start):
    server = start(toy_source(length=400), settings=ServerSettings(loudness=-19.0))
    own = Audio.read(said(server, loudness="off").content)
    for more, target in (({}, -19.0), ({"loudness": -30}, -30.0)):
        answer = Audio.read(said(server, **more).content)
        levelled = Leveller(target, own.sample_rate).push(own.samples)
        assert np.abs(answer.samples - levelled).max() < 2e-3  # both were rounded to 16 bits
    streamed = Audio.read(said(server, stream=True).content)
    assert np.abs(streamed.samples - Audio.read(said(server).content).samples).max() < 1e-4


@pytest.mark.parametrize("wrong", ["loud", 5, True])
def test_an_impossible_loudness_is_refused_by_name(start, wrong):
    answer = said(start(), loudness=wrong)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["param"].startswith("loudness")
