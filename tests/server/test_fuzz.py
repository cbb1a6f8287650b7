"""Random requests from the OpenAPI document, and damaged sound files: no 500, no hang, no file left."""

import io
import json
import math
import random
import tempfile
from collections import Counter
from functools import cache

import httpx
import numpy as np
import pytest

from sonant.audio.io import write_audio
from sonant.server.app import create_app
from sonant.server.models import ModelPool
from sonant.server.settings import ServerSettings, UploadLimits
from sonant.voices.library import VoiceLibrary
from tests.server.conftest import ThreadServer, toy_source

AMOUNTS = [150, pytest.param(10_500, marks=[pytest.mark.slow, pytest.mark.timeout(1_500)])]
SECONDS = 120.0
"""A request that takes longer hangs, on however busy a machine."""

ODD = (
    None, True, False, 0, 1, -1, 2**31, -(2**63), 2**70, 0.0, -0.5, 1e308, math.inf, -math.inf, math.nan,
    "", " ", "a", "\0", "\ud800", "é" * 50, "a" * 3_000, "../../etc/passwd", "%00", "'; drop", "{{7*7}}",
    "<script>", "\r\nX: y", "nan", "1e999", "data:audio/wav;base64,AAAA", "http://127.0.0.1:1/",
    "file:///etc/passwd", "UklGRg==", [], {}, [None], [[[[[]]]]], {"id": "ann"}, {"a": {"b": {}}},
    [0.1] * 8, [1e400] * 8, ["x"] * 100,
)  # fmt: skip


class Fuzzer:
    """Values for a JSON schema: often right, often nearly right, sometimes anything."""

    def __init__(self, seed, document):
        self.random = random.Random(seed)
        self.document = document

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def value(self, schema, depth=0):
        pick = self.random
        schema = self.resolve(schema)
        if pick.random() < 0.15 or depth > 5:
            return pick.choice(ODD)
        if "anyOf" in schema:
            return self.value(pick.choice(schema["anyOf"]), depth + 1)
        if "enum" in schema:
            return pick.choice([*schema["enum"], "other"])
        kind = schema.get("type")
        if kind == "object":
            return self.object(schema, depth)
        if kind == "array":
            return [
                self.value(schema.get("items", {}), depth + 1) for _ in range(pick.choice((0, 1, 2, 8, 40)))
            ]
        if kind == "boolean":
            return pick.random() < 0.5
        if kind == "integer":
            return pick.choice((0, 1, 2, 5, 50, -1, 10**6, 2**40))
        if kind == "number":
            return pick.choice((0, 0.1, 0.5, 1, 1.5, 4, -1, 1e9))
        if kind == "null":
            return None
        return pick.choice(
            ("hi", "toy", "ann", "english", "Hello. You", "x" * pick.choice((1, 60, 700)), "\u202e", "你好")
        )

    def object(self, schema, depth):
        pick = self.random
        made = {}
        for name, one in schema.get("properties", {}).items():
            if (name in schema.get("required", ()) and pick.random() < 0.9) or pick.random() < 0.12:
                made[name] = self.value(one, depth + 1)
        if pick.random() < 0.05:
            made[pick.choice(("x", "", "__proto__", "inpt", "a" * 500))] = pick.choice(ODD)
        if not schema.get("properties"):
            made["happy"] = pick.choice(ODD)
        return made

    def request(self):
        """Method, path and arguments of one request."""
        pick = self.random
        path, operations = pick.choice(list(self.document["paths"].items()))
        method, operation = pick.choice(list(operations.items()))
        if pick.random() < 0.4:
            path = pick.choice([p for p in self.document["paths"] if p.startswith("/v1/audio/speech")])
            method, operation = "post", self.document["paths"][path]["post"]
        while "{" in path:
            begin, end = path.index("{"), path.index("}")
            part = pick.choice(("toy", "ann", "none", "%00", "%2e%2e", "a" * 300, "%ff", "é", "..%2f..", "*"))
            path = path[:begin] + part + path[end + 1 :]
        arguments = {}
        if pick.random() < 0.2:
            arguments["params"] = {
                pick.choice(("model", "x")): pick.choice(("toy", "none", "\0", "a" * 2000, ""))
            }
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            data = json.dumps(self.value(content["application/json"]["schema"])).encode()
            if pick.random() < 0.1:
                data = mutated(data, pick)
            arguments["content"] = data
            kind = (
                "application/json"
                if pick.random() < 0.95
                else pick.choice(("text/plain", "x/y", "application/xml"))
            )
            arguments["headers"] = {"Content-Type": kind}
        elif content:
            schema = self.resolve(next(iter(content.values()))["schema"])
            form = {k: str(v) for k, v in self.object(schema, 0).items() if k != "audio_sample"}
            arguments["data"] = {k: v.encode("utf-8", "replace").decode() for k, v in form.items()}
            if pick.random() < 0.7:
                arguments["files"] = {"audio_sample": ("a", pick.randbytes(pick.choice((0, 1, 50, 3000))))}
        return method.upper(), path, arguments


def mutated(data, pick):
    """The bytes with some of them changed, lost, doubled or blown up."""
    data = bytearray(data)
    for _ in range(pick.choice((1, 1, 2, 4, 16))):
        kind = pick.randrange(7)
        at = pick.randrange(len(data) + 1) if pick.random() < 0.5 else pick.randrange(min(len(data), 64) + 1)
        if kind == 0 and data:
            data[at % len(data)] = pick.randrange(256)
        elif kind == 1 and data:
            data[at % len(data)] ^= 1 << pick.randrange(8)
        elif kind == 2:
            del data[at : at + pick.choice((1, 4, 100, 5000))]
        elif kind == 3:
            data[at:at] = data[at : at + pick.choice((4, 40, 400))]
        elif kind == 4:
            data[at : at + 4] = pick.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80")
            )
        elif kind == 5:
            data[at : at + 2] = pick.choice((b"\xff\xff", b"\0\0", b"\x01\0", b"\0\xff"))
        else:
            del data[at:]
    return bytes(data)


@cache
def sounds():
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(4_000)).astype(np.float32)
    made = []
    for form in ("wav", "flac", "mp3", "opus", "aac"):
        target = io.BytesIO()
        write_audio(target, samples, 8_000, format=form)
        made.append(target.getvalue())
    floats = np.concatenate([samples[:100], [np.nan, np.inf, -np.inf, 1e38]]).astype("<f4").tobytes()
    head = made[0][:20] + b"\x03\0" + made[0][22:32] + b"\x04\0\x20\0" + made[0][36:40]
    made.append(head + len(floats).to_bytes(4, "little") + floats)
    return made


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server whose every file would lie under tmp_path."""
    for name in ("temporary", "voices"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    settings = ServerSettings(
        max_input=2_000, stored_voices=5, uploads=UploadLimits(max_bytes=200_000, max_seconds=20.0)
    )
    pool = ModelPool([toy_source()])
    made = ThreadServer(create_app(pool, VoiceLibrary(tmp_path / "voices"), settings))
    yield made
    made.stop()
    assert list((tmp_path / "temporary").iterdir()) == []


def check(answer, outcomes, what):
    outcomes[answer.status_code] += 1
    assert answer.status_code not in (500, 501), (what, answer.text[:300])
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, what


@pytest.mark.parametrize("amount", AMOUNTS)
def test_random_requests_are_answered_or_refused(server, amount):
    document = httpx.get(f"{server.url}/openapi.json").json()
    fuzzer = Fuzzer(1, document)
    outcomes = Counter()
    with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
        while sum(count for status, count in outcomes.items() if status >= 400) < amount:
            method, path, arguments = fuzzer.request()
            check(client.request(method, path, **arguments), outcomes, (method, path, arguments))
        assert client.get("/health").status_code == 200
    assert outcomes[200] > 0
    assert server.service.shelves.shared.names() == []


@pytest.mark.parametrize("amount", AMOUNTS)
def test_damaged_sound_files_are_refused_or_read(server, amount):
    pick = random.Random(2)
    outcomes = Counter()
    form = {"name": "zoe", "consent": "mine"}
    with httpx.Client(base_url=server.url, timeout=SECONDS) as client:
        for _ in range(amount):
            data = mutated(pick.choice(sounds()), pick)
            answer = client.post("/v1/audio/voices", data=form, files={"audio_sample": ("a", data)})
            check(answer, outcomes, data[:200])
            if answer.status_code == 201:
                assert client.delete("/v1/audio/voices/zoe").status_code == 200
        assert client.get("/health").status_code == 200
    assert outcomes[400] > amount / 10
    assert list(server.service.shelves.shared.folder.iterdir()) == []
