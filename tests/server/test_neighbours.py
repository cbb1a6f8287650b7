"""What a hostile neighbour tries with books, readings, clips and heads: nobody else pays."""

import http.client
import io
import json
import random
import struct
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sonant.readings.pieces import PieceStore
from sonant.server.settings import ReadingLimits, ServerSettings

from .conftest import wait_until

pytestmark = pytest.mark.slow  # each starts a server of its own

pytest.importorskip("bs4")

TALE = b"One line here.\n\nTwo lines here.\n\nThree lines here.\n"


def send(server, data=TALE, name="tale.txt"):
    return httpx.post(f"{server.url}/v1/audio/books", files={"file": (name, data)}, timeout=60)


def read(server, book, **fields):
    return httpx.post(f"{server.url}/v1/audio/readings", json={"book": book, **fields}, timeout=60)


def known(answer):
    """Its status; no internal error, and an error of our shape."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code


def at_once(count, call):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_many_at_once_are_no_more_than_one_by_one(start):
    server = start(settings=ServerSettings(readings=ReadingLimits(books=2, readings=3)))
    sent = at_once(6, lambda _: send(server))
    assert sorted(map(known, sent)) == [201, 201, 429, 429, 429, 429]
    book = next(answer.json()["id"] for answer in sent if answer.status_code == 201)
    asked = at_once(8, lambda _: read(server, book, format="wav"))
    assert sorted(map(known, asked)) == [202] * 3 + [429] * 5


def test_readings_cancelled_resumed_and_deleted_at_once_leave_nothing_behind(start, caplog):
    server = start()
    book = send(server).json()["id"]
    readings = [read(server, book, format="wav").json()["id"] for _ in range(6)]

    def storm(seed):
        pick = random.Random(seed)
        with httpx.Client(base_url=f"{server.url}/v1/audio/readings", timeout=60) as client:
            for _ in range(40):
                one = pick.choice(readings)
                way = pick.choice(("cancel", "resume", "cancel", "resume", "delete", "show"))
                if way == "delete":
                    answer = client.delete(f"/{one}")
                else:
                    answer = client.get(f"/{one}") if way == "show" else client.post(f"/{one}/{way}")
                assert known(answer) in (200, 404, 409)

    at_once(6, storm)
    for one in readings:
        known(httpx.delete(f"{server.url}/v1/audio/readings/{one}", timeout=60))
    desk = server.app.state.desk
    wait_until(lambda: not desk._running)
    assert list(desk.shelf.readings()) == []
    assert not [record for record in caplog.records if record.exc_info]
    again = read(server, book, format="wav").json()["id"]
    url = f"{server.url}/v1/audio/readings/{again}"
    wait_until(lambda: httpx.get(url).json()["status"] == "completed", 30)


def test_one_thing_is_deleted_by_many_at_once(start):
    server = start()
    book = send(server).json()["id"]
    reading = read(server, book, format="wav").json()["id"]
    for path in (f"readings/{reading}", f"books/{book}"):
        found = at_once(6, lambda _, path=path: httpx.delete(f"{server.url}/v1/audio/{path}", timeout=60))
        assert 200 in map(known, found)


def test_readings_in_a_row_take_no_more_room_than_one_may(start, monkeypatch):
    """Each has room when it is asked for; the last of them has none when its turn comes."""
    turn = threading.Event()
    tell = PieceStore.tell

    def held(store, text, **pace):
        assert turn.wait(30)
        return tell(store, text, **pace)

    monkeypatch.setattr(PieceStore, "tell", held)
    server = start(settings=ServerSettings(readings=ReadingLimits(owner_bytes=10_000_000)))
    book = send(server).json()["id"]
    readings = [read(server, book, format="wav").json()["id"] for _ in range(3)]
    small = ReadingLimits(owner_bytes=server.app.state.desk._readings[readings[0]].wanted + 5_000)
    monkeypatch.setattr(server.app.state.desk, "_limits", small)
    turn.set()

    def states():
        listed = httpx.get(f"{server.url}/v1/audio/readings").json()["data"]
        return {one["id"]: (one["status"], (one["error"] or {}).get("code")) for one in listed}

    wait_until(lambda: not {"queued", "running"} & {status for status, _ in states().values()}, 30)
    assert states()[readings[0]] == ("completed", None)
    assert states()[readings[2]] == ("failed", "too_much_kept")


@pytest.mark.parametrize(
    "name", ["书" * 150 + ".txt", "😀" * 90 + "é" * 90 + ".txt", "a/" * 400 + "b.txt", "-.txt"]
)
def test_a_long_name_is_shortened(start, name):
    answer = send(start(), name=name)
    assert known(answer) == 201
    assert len(answer.json()["name"].encode()) < 200


def archive(**files):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name.replace("__", "/"), data)
    return target.getvalue()


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="a.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="a.xhtml" '
    'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>'
)
ZEROS = b"<p>" + bytes(70 * 2**20)
MANY = b"<p>a</p>" * 120_000


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("a.epub", {"META-INF__container.xml": CONTAINER, "a.opf": PACKAGE, "a.xhtml": ZEROS}),
        ("a.docx", {"word__document.xml": ZEROS, "[Content_Types].xml": "<a/>"}),
        pytest.param("a.html", MANY, marks=pytest.mark.slow),
    ],
)
def test_what_unpacks_to_far_more_is_refused(start, name, files):
    server = start()
    data = files if isinstance(files, bytes) else archive(**files)
    assert len(data) < 2**20
    answer = send(server, data, name)
    assert known(answer) == 400
    assert "characters" in answer.text or "unpacks" in answer.text
    assert httpx.get(f"{server.url}/v1/audio/books").json()["data"] == []


def test_ranges_beyond_the_file_are_refused_and_many_are_no_burden(start):
    server = start()
    reading = read(server, send(server).json()["id"], format="wav").json()["id"]
    url = f"{server.url}/v1/audio/readings/{reading}"
    wait_until(lambda: httpx.get(url).json()["status"] == "completed", 30)
    for asked in (
        "bytes=99999999999-", "bytes=5-2", "bytes=-0", "bytes=a-b", "lines=0-1", "bytes=", "bytes=-9999999",
        "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(0, 4_000, 4)), "bytes=" + "0-," * 3_000,
    ):  # fmt: skip
        answer = httpx.get(f"{url}/files/book.wav", headers={"Range": asked}, timeout=60)
        assert answer.status_code in (200, 206, 400, 416), asked
        assert len(answer.content) < 2**22
    for name in ("../reading.json", "..%2freading.json", "reading.json", "pieces", "%00", "book.wav/.."):
        assert known(httpx.get(f"{url}/files/{name}")) == 404


def wav(rate=24_000, channels=1, samples=bytes(4_800), kind=1, bits=16, claimed=None):
    size = len(samples) if claimed is None else claimed
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, min(rate * block, 2**32 - 1), block, bits)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WAVE" + chunks


LIES = {
    "no rate": wav(rate=0),
    "a rate of four billion": wav(rate=2**32 - 1),
    "no channels": wav(channels=0),
    "thirty thousand channels": wav(channels=30_000),
    "two channels": wav(channels=2),
    "more than is there": wav(claimed=2**32 - 1),
    "nothing": wav(samples=b""),
    "half a sample": wav(samples=b"a"),
    "no numbers": wav(samples=struct.pack("<f", float("nan")) * 2_400, kind=3, bits=32),
    "large numbers": wav(samples=struct.pack("<f", 3e38) * 2_400, kind=3, bits=32),
    "an odd rate": wav(rate=7_919),
    "a high rate": wav(rate=191_999),
    "a head alone": wav()[:30],
    "an empty file": b"",
    "a page": b"<html></html>",
    "an mp3 that is none": b"ID3" + bytes(3_000),
    "an ogg that is none": b"OggS" + bytes(3_000),
    "an mp4 that is none": b"\0\0\0\x20ftypM4A " + bytes(3_000),
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
}


@pytest.mark.parametrize("name", LIES)
def test_what_lies_about_its_sound_is_packed_or_refused(start, name):
    server = start()
    for form in ("mp3", "opus", "aac", "flac", "wav", "pcm"):
        answer = httpx.post(
            f"{server.url}/v1/audio/encode",
            files={"audio": ("../../x.wav", LIES[name])}, data={"response_format": form}, timeout=60,
        )  # fmt: skip
        assert known(answer) in (200, 400, 413)
        assert b"root:" not in answer.content


@pytest.mark.parametrize(
    ("voice", "fields"),
    [
        ("a" * 300, {}),
        ("ann", {"stream_format": 5}),
        ("ann", {"voice_settings": {"speed": 1e9}}),
        ("%ff", {}),
    ],
)
def test_another_programs_body_that_cannot_be_ours_is_a_400(start, voice, fields):
    server = start()
    answer = httpx.post(f"{server.url}/v1/text-to-speech/{voice}", json={"text": "Hi.", **fields})
    assert known(answer) in (200, 400, 404)


@pytest.mark.parametrize("host", ["[", "a:b:c", "[::1", "%", "a b", "\xff"])
def test_a_host_that_is_none_is_no_internal_error(start, host):
    server = start()
    for path in ("/none", "/v1/models", "/docs/"):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host.encode("latin-1"))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status < 500
        assert answer.status < 400 or json.loads(answer.read())["error"]["code"]
        connection.close()


ODD = (
    5,
    -1,
    1e308,
    float("nan"),
    10**400,
    "",
    "\ud800",
    "nan",
    True,
    [],
    [1],
    [None],
    {},
    {"a": 5},
    {"a": {"b": []}},
)
FIELDS = (
    "aliases",
    "voice",
    "model",
    "gain",
    "emotion_vector",
    "glossary",
    "speed",
    "options",
    "seed",
    "loudness",
)


SOME = (10**400,)


@pytest.mark.parametrize("odd", [SOME, pytest.param(ODD, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_cast_of_anything_is_taken_or_refused(start, caplog, odd):
    server = start()
    book = send(server).json()["id"]
    headers = {"Content-Type": "application/json"}
    for value in odd:
        casts = [{"roles": {"narrator": {name: value}}} for name in FIELDS]
        casts += [{name: value} for name in ("roles", "emotions", "quotes")]
        casts += [{"roles": {"narrator": value}}, {"emotions": {"calm": value}}, value]
        asked = [{"cast": cast} for cast in casts] + [
            {name: value} for name in (*FIELDS, "chapters", "format")
        ]
        for fields in asked:
            data = json.dumps(fields).encode()
            known(httpx.post(f"{server.url}/v1/audio/books/{book}/lines", content=data, headers=headers))
            data = json.dumps({"book": book, **fields}).encode()
            answer = httpx.post(f"{server.url}/v1/audio/readings", content=data, headers=headers)
            if known(answer) == 202:
                url = f"{server.url}/v1/audio/readings/{answer.json()['id']}"
                wait_until(lambda url=url: httpx.get(url).json()["status"] not in ("queued", "running"), 30)
                assert (httpx.get(url).json()["error"] or {}).get("code") != "internal_error", fields
                assert httpx.get(f"{server.url}/v1/audio/readings").status_code == 200
                httpx.delete(url)
    assert not [record for record in caplog.records if record.exc_info]
