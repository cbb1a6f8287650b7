"""Uploaded clips, voice names, web addresses: bounded, confined, guarded."""

import asyncio
import base64
import io
import os
import pickle
import struct

import httpx
import numpy as np
import pytest

from sonant.audio.io import write_audio
from sonant.errors import RequestError
from sonant.server.settings import ServerSettings, UploadLimits
from sonant.server.uploads import Clips, fetch, is_public
from sonant.voices.library import SUFFIX


def clip(seconds=2.0, form="wav", rate=16_000, level=0.3):
    rng = np.random.default_rng(0)
    syllables = np.clip(np.sin(np.arange(int(seconds * rate)) * 6 * np.pi / rate), 0, 1)  # as speech does
    samples = (level * syllables * rng.standard_normal(len(syllables)) * 0.3).astype(np.float32)
    target = io.BytesIO()
    write_audio(target, samples, rate, format=form)
    return target.getvalue()


def add(server, name, data, **fields):
    form = {"name": name, "consent": "my own voice", **fields}
    return httpx.post(
        f"{server.url}/v1/audio/voices", data=form, files={"audio_sample": ("a.wav", data)}, timeout=60
    )


def problem(answer):
    content = answer.json()["error"]
    assert set(content) == {"message", "type", "param", "code"}
    return answer.status_code, content["code"], content["param"]


def test_a_voice_is_added_listed_heard_and_removed(start, library):
    server = start()
    made = add(server, "zoe", clip(), ref_text="What is said.", language="en")
    assert made.status_code == 201
    assert made.json()["transcript"] == "What is said."
    assert made.json()["origin"]["consent"] == "my own voice"
    listed = httpx.get(f"{server.url}/v1/audio/voices").json()
    assert [voice["id"] for voice in listed["uploaded_voices"]] == ["zoe"]
    assert [voice["id"] for voice in listed["voices"]] == ["ann"], "the toy cannot clone: it speaks no other"
    assert httpx.get(f"{server.url}/v1/audio/voices/zoe").json()["seconds"] == 2.0
    heard = httpx.get(f"{server.url}/v1/audio/voices/zoe/clip")
    assert heard.headers["content-type"] == "audio/wav"
    assert len(heard.content) == 44 + 2 * 32_000
    assert problem(add(server, "bob", clip(), consent="no"))[1:] == ("invalid_request", "consent")
    assert httpx.delete(f"{server.url}/v1/audio/voices/zoe").json()["deleted"] is True
    assert httpx.delete(f"{server.url}/v1/audio/voices/zoe").status_code == 404
    assert library.names() == []


NAMES = (
    "../up", "..", ".", "/etc/passwd", "a/b", "a\\b", "a\0b", "", " ", "Ann", "con", "nul.txt", "a" * 65,
    "-a", "ä", "a\n", "%2e%2e", "ann",
)  # fmt: skip
"""Names no stored voice may have; the last is a voice of the model."""


def test_voice_names_are_confined(start, library):
    server = start()
    before = sorted(library.folder.parent.rglob("*"))
    for name in NAMES:
        answer = add(server, name, clip())
        assert answer.status_code == 400, (name, answer.text)
    assert sorted(library.folder.parent.rglob("*")) == before


def test_routes_with_names_do_not_leave_the_folder(start, library, tmp_path):
    (tmp_path / f"secret{SUFFIX}").write_bytes(b"x")
    library.folder.mkdir(parents=True)
    (library.folder / f"link{SUFFIX}").symlink_to(tmp_path / f"secret{SUFFIX}")
    server = start()
    for name in ("..%2fsecret", "%2e%2e%2fsecret", "link", "a%00b", "..", "%2fetc%2fpasswd"):
        for method in ("GET", "DELETE"):
            answer = httpx.request(method, f"{server.url}/v1/audio/voices/{name}")
            assert answer.status_code in (404, 405), (name, answer.text)
    assert (tmp_path / f"secret{SUFFIX}").read_bytes() == b"x"
    assert (library.folder / f"link{SUFFIX}").is_symlink()
    assert problem(add(server, "link", clip()))[0] == 400


def wav_header(*, channels=1, rate=16_000, data=0xFFFFFFF0, bits=16):
    frame = channels * bits // 8 & 0xFFFF
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(
            b"RIFF",
            0xFFFFFFFF,
            b"WAVE",
            b"fmt ",
            16,
            1,
            channels,
            rate,
            rate * frame & 0xFFFFFFFF,
            frame,
            bits,
        ),
        *(b"data", data),
    )


def bad_clips():
    yield b"", "empty"
    yield b"not a sound at all", "cannot be read"
    yield b"RIFF", "cannot be read"
    yield wav_header(), "no samples"
    yield wav_header(channels=60_000) + bytes(1000), "60000 channels"
    yield wav_header(rate=4_000_000_000) + bytes(1000), "sample rate of 4000000000 Hz"
    yield wav_header(rate=0) + bytes(1000), "sample rate of 0 Hz"
    yield wav_header(channels=9) + bytes(18_000), "channels"
    yield wav_header(rate=1_000, data=100) + bytes(100), "rate"
    yield clip(150.0, rate=4_000), "lasts"
    yield clip(150.0, rate=8_000, form="flac"), "lasts"
    yield clip(150.0, rate=8_000, form="mp3"), "lasts"
    yield clip(0.1), "0.10 s"
    yield clip(level=0.0), "silent"


def test_bad_clips_are_a_400_that_says_why(start, library):
    server = start()
    for data, word in bad_clips():
        answer = add(server, "zoe", data)
        assert problem(answer)[::2] == (400, "audio_sample"), answer.text
        assert word in answer.json()["error"]["message"]
    assert library.names() == []


def test_a_pickle_is_never_loaded(start, library, tmp_path):
    target = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(target),)

    server = start()
    assert add(server, "ann", pickle.dumps(Evil())).status_code == 400
    data = base64.b64encode(pickle.dumps(Evil())).decode()
    answer = httpx.post(f"{server.url}/v1/audio/speech", json={"input": "hi", "ref_audio": data})
    assert answer.status_code == 400
    assert not target.exists()


def test_a_large_body_is_refused_by_its_header_and_while_it_arrives(start):
    server = start(settings=ServerSettings(max_body=50_000))
    answer = add(server, "zoe", bytes(100_000))
    assert problem(answer)[:2] == (413, "payload_too_large")

    def pieces():
        for _ in range(100):
            yield b" " * 1000

    answer = httpx.post(
        f"{server.url}/v1/audio/speech", content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert problem(answer)[:2] == (413, "payload_too_large")


def test_a_large_clip_is_a_413(start):
    server = start(settings=ServerSettings(uploads=UploadLimits(max_bytes=10_000)))
    assert problem(add(server, "zoe", clip()))[:2] == (413, "payload_too_large")


def test_the_number_of_stored_voices_is_bounded(start):
    server = start(settings=ServerSettings(stored_voices=1))
    assert add(server, "one", clip()).status_code == 201
    assert problem(add(server, "two", clip()))[0] == 400


def test_web_addresses_are_off_by_default():
    clips = Clips(UploadLimits(), allow_urls=False)
    with pytest.raises(RequestError, match="--allow-urls"):
        asyncio.run(clips.read("https://example.com/a.wav", "ref_audio"))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "192.0.2.1", "198.18.0.1",
     "not an address"],
)  # fmt: skip
def test_private_addresses_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address):
    assert is_public(address)


def fetching(url, answers, addresses, max_bytes=1000):
    """Fetch with a stub of the network: `answers` by host, `addresses` by host."""
    asked = []

    def answer(request):
        asked.append((str(request.url), request.headers["host"]))
        return answers[request.headers["host"].split(":")[0]]

    async def resolver(host, port):
        found = addresses[host]
        return [found] if isinstance(found, str) else found

    data = asyncio.run(fetch(url, max_bytes, resolver, "ref_audio", httpx.MockTransport(answer)))
    return data, asked


def test_a_public_address_is_fetched_by_the_address_that_was_checked():
    data, asked = fetching("http://ok.example/a.wav?x=1", {"ok.example": httpx.Response(200, content=b"ab")},
                           {"ok.example": "93.184.216.34"})  # fmt: skip
    assert data == b"ab"
    assert asked == [("http://93.184.216.34/a.wav?x=1", "ok.example")]


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://inside.example/a.wav", "public"),
        ("http://both.example/a.wav", "public"),
        ("http://127.0.0.1/a.wav", "public"),
        ("http://[::1]/a.wav", "public"),
        ("http://user:pass@ok.example/a.wav", "plain http"),
        ("http://turns.example/a.wav", "public"),
        ("http://scheme.example/", "plain http"),
        ("http://loop.example/", "redirects"),
        ("http://big.example/", "MiB"),
        ("http://gone.example/", "404"),
        ("http://ok.example:99999/", "malformed"),
    ],
)
def test_addresses_that_lead_inside_or_nowhere_are_refused(url, word):
    public = "93.184.216.34"
    addresses = {
        "inside.example": "10.0.0.5", "both.example": [public, "127.0.0.1"], "127.0.0.1": "127.0.0.1",
        "::1": "::1", "ok.example": public, "turns.example": public, "scheme.example": public,
        "loop.example": public, "big.example": public, "gone.example": public,
    }  # fmt: skip
    answers = {
        "turns.example": httpx.Response(302, headers={"Location": "http://inside.example/"}),
        "scheme.example": httpx.Response(302, headers={"Location": "file:///etc/passwd"}),
        "loop.example": httpx.Response(302, headers={"Location": "/again"}),
        "big.example": httpx.Response(200, content=bytes(2000)),
        "gone.example": httpx.Response(404),
    }
    with pytest.raises(RequestError, match=word) as caught:
        fetching(url, answers, addresses)
    assert caught.value.field == "ref_audio"


def test_base64_is_taken_plain_and_as_a_data_address():
    clips = Clips(UploadLimits(), allow_urls=False)
    text = base64.b64encode(clip()).decode()
    for value in (text, f"data:audio/wav;base64,{text}", "\n".join([text[:100], text[100:]])):
        audio = asyncio.run(clips.read(value, "ref_audio"))
        assert audio.seconds == 2.0
    for value in ("!!!", "data:audio/wav,abc", "ä"):
        with pytest.raises(RequestError):
            asyncio.run(clips.read(value, "ref_audio"))
