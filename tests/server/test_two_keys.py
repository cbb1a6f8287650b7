"""What one key has is nobody else's: every route that takes a name is tried with the other's names."""

import json

import httpx
import pytest
from websockets.sync.client import connect

from sonant.server.auth import keys_of
from sonant.server.settings import RIGHTS, ServerSettings
from tests.server.conftest import wait_until
from tests.server.test_others_words import Cloner, source
from tests.server.test_uploads import clip

pytest.importorskip("bs4")

ANN, BOB = ({"Authorization": f"Bearer sk-{who}"} for who in ("ann", "bob"))
FREE = ("/v1/models/",)
"""Routes whose names are everybody's."""
BODIES = {"/v1/text-to-speech/{voice}": {"text": "hi"}, "/v1/audio/books/{book}/lines": {}}


@pytest.fixture
def server(start):
    keys = (*keys_of(["sk-ann", "sk-bob"]), *keys_of(["sk-boss"], rights=frozenset(RIGHTS)))
    return start(source(Cloner, "cloner"), settings=ServerSettings(keys=keys))


def ask(server, who, method, path, **more):
    return httpx.request(method, server.url + path, headers=who, timeout=60, **more)


def speak(server, who, **body):
    return ask(server, who, "POST", "/v1/audio/speech", json={"input": "hello there", **body})


@pytest.fixture
def things(server):
    """What Ann has, by the names that routes give it."""
    form = {"name": "zoe", "consent": "my own voice"}
    files = {"audio_sample": ("a.wav", clip())}
    assert ask(server, ANN, "POST", "/v1/audio/voices", data=form, files=files).status_code == 201
    spoken = speak(server, ANN, voice="zoe")
    assert spoken.status_code == 200, spoken.text
    tale = {"file": ("tale.txt", b"One line here.\n\nTwo lines here.\n")}
    book = ask(server, ANN, "POST", "/v1/audio/books", files=tale).json()["id"]
    asked = {"book": book, "voice": "zoe", "format": "wav"}
    reading = ask(server, ANN, "POST", "/v1/audio/readings", json=asked).json()["id"]
    path = f"/v1/audio/readings/{reading}"
    wait_until(lambda: ask(server, ANN, "GET", path).json()["status"] == "completed", 60)
    names = {"voice": "zoe", "book": book, "reading": reading, "request_id": spoken.headers["x-request-id"]}
    return names | {"name": "zoe"}


def named_routes(server, things):
    """Method, path with Ann's names in it, and a body where one is needed."""
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path, operations in paths.items():
        if "{" in path and not path.startswith(FREE):
            names = things | ({"name": "book.wav"} if "/files/" in path else {})
            for method in operations:
                yield method.upper(), path.format(**names), BODIES.get(path)


def test_no_route_gives_takes_or_stops_what_is_anothers(server, things):
    tried = 0
    for method, path, body in named_routes(server, things):
        more = {} if body is None else {"json": body}
        answer = ask(server, BOB, method, path, **more)
        assert answer.status_code == 404, (method, path, answer.text[:200])
        for name in things.values():
            # Its own name comes back in the message; nothing else of it does.
            assert answer.text.count(name) <= 1
        tried += 1
    assert tried >= 12
    for path in ("/v1/audio/voices", "/v1/audio/books", "/v1/audio/readings", "/v1/status"):
        assert not [name for name in things.values() if name in ask(server, BOB, "GET", path).text]
    for method, path, _ in named_routes(server, things):
        if method == "GET" and not path.endswith("/cover"):
            assert ask(server, ANN, method, path).status_code == 200, path


@pytest.mark.parametrize("voice", ["zoe", "zoe:0.5+Bea:0.5", "key-x/zoe", "../zoe"])
def test_no_way_of_speaking_takes_anothers_voice(server, things, voice):
    assert speak(server, BOB, voice=voice).status_code in (400, 404)
    item = {"items": [{"input": "hi", "voice": voice}]}
    [result] = ask(server, BOB, "POST", "/v1/audio/speech/batch", json=item).json()["results"]
    assert result["status"] in (400, 404)
    turns = {"turns": [{"voice": "Bea", "text": "hi"}, {"voice": voice, "text": "hi"}]}
    assert ask(server, BOB, "POST", "/dev/dialogue", json=turns).status_code in (400, 404)
    tags = {"input": f"[voice:{voice}] hi", "allow_voice_tags": True}
    assert ask(server, BOB, "POST", "/v1/audio/speech", json=tags).status_code in (400, 404)
    alias = {"voice_aliases": {"mine": voice}, "voice": "mine"}
    assert speak(server, BOB, **alias).status_code in (400, 404)
    address = server.url.replace("http", "ws") + "/v1/audio/speech/stream"
    for first, text in (("start", "text"), ("session.config", "input.text")):
        with connect(address, additional_headers=BOB) as socket:
            for message in ({"type": first, "voice": voice}, {"type": text, "text": "hi"}):
                socket.send(json.dumps(message))
            socket.send(json.dumps({"type": "flush" if first == "start" else "input.done"}))
            assert json.loads(socket.recv(timeout=20))["type"] == "error"
    tale = {"file": ("tale.txt", b"A line.\n")}
    book = ask(server, BOB, "POST", "/v1/audio/books", files=tale).json()["id"]
    for more in ({"voice": voice}, {"cast": {"roles": {"narrator": {"voice": voice}}}}):
        answer = ask(server, BOB, "POST", "/v1/audio/readings", json={"book": book, **more})
        assert answer.status_code in (400, 404), answer.text


def test_anothers_book_is_not_read(server, things):
    answer = ask(server, BOB, "POST", "/v1/audio/readings", json={"book": things["book"], "voice": "Bea"})
    assert answer.status_code == 404
