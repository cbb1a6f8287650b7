"""What programs for other servers send means what their senders mean; nothing is dropped in silence."""

import base64
import json
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.request.voice import Voice
from sonant.server.models import ModelSource
from sonant.server.schemas import JUST_READ, Manner, language_of
from sonant.server.service import volume_of
from sonant.server.settings import ServerSettings
from tests.toy import ToyModel


class Cloner(ToyModel):
    """A toy whose preset is bea, and which takes any stored voice."""

    def __init__(self):
        super().__init__(end_bias=float("-inf"))
        can = self.spec.capabilities | {"clone"}
        self.spec = replace(
            self.spec, name="cloner", fingerprint="cloner", voices=("Bea",), default_voice="Bea"
        )
        self.spec = replace(self.spec, capabilities=can)

    def encode_voice(self, audio, transcript):
        return Voice(family="toy", fingerprint="cloner", tensors={"speaker": torch.zeros(1)})


def steady():
    """The toy, which never says nothing."""
    return ToyModel(end_bias=float("-inf"))


def source(model, name):
    return ModelSource(name=name, open=lambda: Engine(model()), spec=model().spec)


def speak(server, **fields):
    body = {"input": "hello there", "response_format": "pcm", **fields}
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)


@pytest.fixture
def server(start):
    return start(source(steady, "first"), source(Cloner, "second"))


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "openai/tts-1", "voice": "alloy"},  # litellm's spelling of a provider
        {"model": "TTS-1", "voice": "Alloy"},
        {"model": "", "voice": ""},  # Open WebUI with empty settings
        {"model": "First"},
        {"voice": "ANN"},
        {"language": "en-US"},
        {"language": "en_GB.UTF-8"},
        {"language": ""},
        {"lang_code": "a"},
        {"seed": -1},
        {"response_format": "PCM"},
    ],
)
def test_other_spellings_mean_the_same(server, fields):
    answer = speak(server, **fields)
    assert (answer.status_code, answer.headers.get("x-sonant-warning")) == (200, None), answer.text
    assert answer.headers["x-sonant-model"] == "first"


def test_a_seed_of_minus_one_is_a_fresh_one_and_told(server):
    seeds = {speak(server, seed=-1).headers["x-sonant-seed"] for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("en-US", "en"),
        ("pt_BR", "pt"),
        ("zh-Hans-CN", "zh"),
        ("ja_JP.UTF-8", "ja"),
        ("z", "zh"),
        ("English", "English"),
        ("auto", "auto"),
    ],
)
def test_locales_are_languages(given, meant):
    assert language_of(given) == meant


def test_fields_without_effect_are_named(server):
    answer = speak(
        server,
        backend="kokoro",
        download_format="mp3",
        temperatur=1,
        normalization_options={"url_normalization": True},
    )
    assert answer.status_code == 200
    assert answer.headers["x-sonant-warning"] == (
        "ignored fields: backend, download_format, temperatur (did you mean temperature?), "
        "normalization_options.url_normalization"
    )
    odd = speak(server, **{"ünï\r\nSet-Cookie: a=b": 1})
    assert odd.headers["x-sonant-warning"] == "ignored fields: %C3%BCn%C3%AF%0D%0ASet-Cookie%3A a%3Db"
    many = speak(server, **{f"field{i}": i for i in range(100)})
    assert many.headers["x-sonant-warning"].endswith("field19, and 80 more")


def test_strict_fields_are_refused(start):
    server = start(settings=ServerSettings(strict_fields=True))
    answer = speak(server, temperatur=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unknown_field"
    assert answer.json()["error"]["param"] == "temperatur"
    assert speak(server, volume_multiplier=1.0).status_code == 200


def test_a_batch_and_a_websocket_name_them_too(server):
    body = {"items": [{"input": "one", "backend": "x"}, {"input": "two"}]}
    first, second = httpx.post(f"{server.url}/v1/audio/speech/batch", json=body).json()["results"]
    assert first["warnings"] == ["ignored fields: backend"]
    assert "warnings" not in second
    with connect(server.url.replace("http", "ws") + "/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "start", "backend": "x"}))
        socket.send(json.dumps({"type": "text", "text": "Hello."}))
        socket.send(json.dumps({"type": "done"}))
        assert json.loads(socket.recv())["warnings"] == ["ignored fields: backend"]


def test_volume_is_honoured_under_both_names(server):
    plain = np.frombuffer(speak(server, seed=1).content, "<i2").astype(float)
    for name in ("volume", "volume_multiplier"):
        half = np.frombuffer(speak(server, seed=1, **{name: 0.5}).content, "<i2").astype(float)
        assert np.abs(half - plain / 2).max() <= 1.5
    with pytest.raises(RequestError, match="disagree"):
        volume_of(Manner(volume=0.5, volume_multiplier=0.6))


def test_what_is_listed_speaks(server, library):
    library.add(Voice(name="zoe", clip=Audio(np.full(8000, 0.1, np.float32), 8000)))
    listed = httpx.get(f"{server.url}/v1/audio/voices").json()["voices"]
    assert [voice["id"] for voice in listed] == ["ann"], "what the first model speaks"
    everything = httpx.get(f"{server.url}/v1/audio/voices?model=all").json()["voices"]
    assert [(voice["id"], voice["models"]) for voice in everything] == [
        ("ann", ["first"]),
        ("Bea", ["second"]),
        ("zoe", ["second"]),
    ]
    for model in ("tts-1", "gpt-4o-mini-tts", None, "openai/TTS-1-hd"):
        for voice in everything:
            answer = speak(server, model=model, voice=voice["id"])
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-sonant-model"] == voice["models"][0]
    assert speak(server, model="first", voice="Bea").status_code == 404, "a named model is meant"
    assert speak(server, model="tts-1", voice="nobody").status_code == 404


def test_a_stored_voice_may_not_hide_a_preset_of_a_model_not_loaded(server, library):
    wav = base64.b64decode("UklGRg==")
    form = {"name": "bea", "consent": "mine"}
    answer = httpx.post(f"{server.url}/v1/audio/voices", data=form, files={"audio_sample": ("a.wav", wav)})
    assert answer.status_code == 400
    assert "a voice of second" in answer.json()["error"]["message"]


def test_an_alias_the_operator_chose_keeps_its_model(start):
    server = start(source(steady, "first"), source(Cloner, "second"), pool={"aliases": {"tts-1": "first"}})
    assert speak(server, model="tts-1", voice="Bea").status_code == 404
    assert speak(server, model="tts-1-hd", voice="Bea").headers["x-sonant-model"] == "second"


def test_what_openais_agents_tell_every_voice_is_what_each_does(server):
    """Its voice pipeline sends this with every text; it was refused by each model without instructions."""
    answer = speak(server, model="gpt-4o-mini-tts", instructions=JUST_READ)
    assert answer.status_code == 200, answer.text
    assert "x-sonant-warning" not in answer.headers
    assert answer.content == speak(server, seed=int(answer.headers["x-sonant-seed"])).content
    refused = speak(server, model="gpt-4o-mini-tts", instructions=f"{JUST_READ} Whisper.")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "instructions")
