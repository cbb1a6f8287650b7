"""Browsers, probes, FLAC, full disks, left-over files: what people meet first."""

import errno
import io
import os
import subprocess
import sys

import httpx
import pytest
import soundfile

from sonant.files import sweep_parts, write_atomically
from sonant.server.settings import ServerSettings
from sonant.server.uploads import is_public
from tests.server.test_uploads import add, clip, problem

STAINLESS = (
    "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
"""What OpenAI's client for JavaScript 6.49 asks leave for from a page."""


def preflight(server, origin):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": STAINLESS,
    }
    return httpx.options(f"{server.url}/v1/audio/speech", headers=asked)


def speak(server, **fields):
    headers = fields.pop("headers", None)
    return httpx.post(f"{server.url}/v1/audio/speech", json={"input": "hi", **fields}, headers=headers)


def test_openais_client_in_a_browser_is_let_in_from_an_allowed_page_only(start):
    server = start(settings=ServerSettings(cors_origins=("https://friend.example",)))
    answer = preflight(server, "https://friend.example")
    assert answer.status_code == 200
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].lower().split(",")}
    assert set(STAINLESS.split(",")) <= allowed
    assert preflight(server, "https://evil.example").status_code == 400


def test_any_origin_is_any_origin(start):
    server = start(settings=ServerSettings(cors_origins=("*",)))
    assert preflight(server, "https://any.example").status_code == 200
    answer = speak(server, headers={"Origin": "https://any.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/v1/models", "/v1/audio/voices", "/docs"])
def test_head_is_get_without_a_body(start, path):
    server = start()
    plain, head = httpx.get(server.url + path), httpx.head(server.url + path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert head.headers["content-type"] == plain.headers["content-type"]
    assert httpx.head(f"{server.url}/v1/audio/speech").status_code == 405
    assert httpx.head(f"{server.url}/nothing").status_code == 404


@pytest.mark.parametrize("stream", [True, False])
def test_flac_opens_with_libsndfile(start, stream):
    server = start()
    answer = speak(server, response_format="flac", seed=1, stream=stream)
    samples, _ = soundfile.read(io.BytesIO(answer.content))
    assert soundfile.info(io.BytesIO(answer.content)).frames == len(samples) > 0


def test_an_upload_is_answered_with_advice(start):
    answer = add(start(), "zoe", clip(40.0))
    assert answer.status_code == 201
    content = answer.json()
    assert content["is_good"] is False
    assert any("40 s" in remark["message"] and remark["is_problem"] for remark in content["advice"])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_storage_that_cannot_be_written_is_named(start, library, monkeypatch, number):
    server = start()

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(library, "add", fail)
    answer = add(server, "zoe", clip())
    assert problem(answer)[:2] == (507, "storage_unavailable")
    assert os.strerror(number) in answer.json()["error"]["message"]


def test_left_over_parts_are_swept_at_start_and_nothing_else(start, library):
    library.folder.mkdir(parents=True)
    left = library.folder / ".zoe.voice.safetensors.k3f9.part"
    kept = [library.folder / name for name in ("notes.part", ".hidden", "ann.voice.safetensors")]
    for path in (left, *kept):
        path.write_bytes(b"x")
    start()
    assert not left.exists()
    assert all(path.exists() for path in kept)


def test_a_part_that_is_being_written_is_left_alone(tmp_path):
    writer = (
        "import sys, pathlib, os, sonant.files as f\n"
        "os.fsync = lambda number: (print('writing', flush=True), sys.stdin.read())\n"
        "f.write_atomically(pathlib.Path(sys.argv[1]), b'whole')\n"
    )
    path = tmp_path / "a.voice"
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        assert sweep_parts(tmp_path) == []
        process.stdin.close()
        assert process.wait(30) == 0
    assert path.read_bytes() == b"whole"
    write_atomically(path, b"again")
    assert path.read_bytes() == b"again"
    assert [one.name for one in tmp_path.iterdir()] == ["a.voice"]


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::808:808", "64:ff9b:1::808:808", "::8.8.8.8", "::ffff:0:8.8.8.8", "fec0::1", "192.0.0.8",
     "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2002:808:808::1", "::ffff:192.0.0.8"],
)  # fmt: skip
def test_ways_around_into_private_networks_are_not_public(address):
    assert not is_public(address)


def test_a_clip_whose_numbers_are_16_bit_integers_is_told_of(start):
    target = io.BytesIO()
    samples, rate = soundfile.read(io.BytesIO(clip(6.0)), dtype="float32")
    soundfile.write(target, samples * 32768, rate, format="WAV", subtype="FLOAT")
    answer = add(start(), "zoe", target.getvalue())
    assert answer.json()["is_good"] is False
