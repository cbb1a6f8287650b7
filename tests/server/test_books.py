"""Books over HTTP: sent, looked at, read by a cast, resumed after a restart, kept apart and bounded."""

import io
import json
import threading

import httpx
import pytest

from sonant.books.subtitles import read_subtitles
from sonant.errors import DependencyError
from sonant.readings.pieces import PieceStore
from sonant.server.auth import hash_key
from sonant.server.settings import ApiKey, ReadingLimits, ServerSettings
from sonant.voices.recogniser import Heard, Recogniser

from .conftest import toy_source, wait_until

pytest.importorskip("bs4")

SCENE = """# Tea

## One

It was tea time. “Have some wine,” said the Hatter. “I see none,” said Alice.

Alice: There is none. Hatter: No.

## Two

“So be it,” said Alice. “Well then,” said the Hatter.
"""


def send(server, text=SCENE, name="tea.md", **options):
    answer = httpx.post(f"{server.url}/v1/audio/books", files={"file": (name, text.encode())}, **options)
    assert answer.status_code == 201, answer.text
    return answer.json()


def state(server, reading, **options):
    return httpx.get(f"{server.url}/v1/audio/readings/{reading}", **options).json()


def read(server, book, **body):
    answer = httpx.post(f"{server.url}/v1/audio/readings", json={"book": book, **body})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def is_ending(server):
    """Whether what is being read was told to stop."""
    return any(running.ends for running in list(server.app.state.desk._running.values()))


def finished(server, reading):
    wait_until(lambda: state(server, reading)["status"] not in ("queued", "running"))
    return state(server, reading)


def test_a_book_is_sent_looked_at_read_and_fetched(start):
    server = start()
    book = send(server)
    assert [c["title"] for c in book["chapters"]] == ["One", "Two"]
    assert [role["name"] for role in book["roles"]] == ["narrator", "The Hatter", "Alice"] or {
        role["name"] for role in book["roles"]
    } == {"narrator", "The Hatter", "Alice"}
    assert book["seconds"] > 5
    listed = httpx.get(f"{server.url}/v1/audio/books").json()["data"]
    assert [one["id"] for one in listed] == [book["id"]]
    assert "chapters" not in listed[0]
    starter = httpx.get(f"{server.url}/v1/audio/books/{book['id']}/cast").json()
    assert set(starter["cast"]["roles"]) == {"narrator", "The Hatter", "Alice"}
    cast = {"roles": {"Alice": {"voice": "ann", "gain": -3}, "The Hatter": {"speed": 1.2}}}
    lines = httpx.post(
        f"{server.url}/v1/audio/books/{book['id']}/lines", json={"cast": cast, "chapters": "2", "limit": 2}
    ).json()
    assert (lines["total"], len(lines["data"])) == (5, 2)
    assert lines["data"][1]["role"] == "Alice"
    reading = read(server, book["id"], cast=cast, format="wav", temperature=0.9, seed=3)
    done = finished(server, reading)
    assert (done["status"], done["error"], done["failed"]) == ("completed", None, 0)
    assert done["progress"]["share"] == 1.0
    assert done["progress"]["done"] == done["progress"]["lines"]
    files = {file["name"]: httpx.get(server.url + file["url"]) for file in done["files"]}
    assert set(files) == {"book.wav", "book.srt", "report.json"}
    assert files["book.wav"].content[:4] == b"RIFF"
    assert 'filename="Tea.wav"' in files["book.wav"].headers["content-disposition"]
    report = files["report.json"].json()
    assert {line["role"] for line in report["lines"]} == {"narrator", "Alice", "The Hatter"}
    part = httpx.get(
        f"{server.url}/v1/audio/readings/{reading}/files/book.wav", headers={"Range": "bytes=0-3"}
    )
    assert (part.status_code, part.content) == (206, b"RIFF")
    used = httpx.delete(f"{server.url}/v1/audio/readings/{reading}")
    assert used.json()["deleted"] is True
    assert httpx.get(f"{server.url}/v1/audio/readings/{reading}").status_code == 404
    assert httpx.delete(f"{server.url}/v1/audio/books/{book['id']}").status_code == 200
    assert httpx.get(f"{server.url}/v1/audio/books").json()["data"] == []


def test_a_reading_is_listened_to_where_the_server_has_a_recogniser(start, monkeypatch):
    class Ears:
        def understands(self, language):
            return True

        def hear(self, audio, *, language=None):
            return Heard("quite another thing than that", None)

    monkeypatch.setattr(Recogniser, "of_language", lambda language: Ears())
    server = start()
    book = send(server, "It was tea time, and there was none.", "tea.txt")
    done = finished(server, read(server, book["id"], verify=True, verify_tries=1, format="wav"))
    assert (done["status"], done["guards"]) == ("completed", 1)
    (told,) = httpx.get(server.url + done["files"][-1]["url"]).json()["guards"]
    assert (told["kind"], "spoken again 1 time" in told["message"]) == ("misheard", True)
    plain = httpx.post(f"{server.url}/v1/audio/speech", json={"input": "It was tea time.", "verify": True})
    assert (plain.status_code, "verify" in plain.headers["x-sonant-warning"]) == (200, True)

    def absent(language):
        raise DependencyError("listening needs sonant[judge]")

    monkeypatch.setattr(Recogniser, "of_language", absent)
    failed = finished(server, read(server, book["id"], verify=True, seed=5))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "dependency_missing")


def test_subtitles_are_dubbed(start, tmp_path):
    server = start()
    srt = "1\n00:00:00,500 --> 00:00:02,000\nGood morning.\n\n2\n00:00:03,000 --> 00:00:05,000\nIt left.\n"
    book = send(server, srt, "film.srt")
    assert (book["kind"], book["lines"]) == ("subtitles", 2)
    done = finished(server, read(server, book["id"]))
    assert done["status"] == "completed", done
    (tmp_path / "b.srt").write_bytes(httpx.get(server.url + done["files"][1]["url"]).content)
    assert [cue.start for cue in read_subtitles(tmp_path / "b.srt")] == [0.5, 3.0]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"format": "aiff"}, 400, "unsupported_response_format", "format"),
        ({"model": "none"}, 404, "model_not_found", "model"),
        ({"voice": "zed"}, 404, "voice_error", "voice"),
        ({"speeed": 1}, 400, "invalid_request", "speeed"),
        ({"speed": "x"}, 400, "invalid_request", "speed"),
        ({"chapters": "9"}, 400, "invalid_request", "chapters"),
        ({"cast": {"roles": {"Alice": {"voice": "zed"}}}}, 404, "voice_error", "voice"),
        ({"cast": {"roles": {"Alice": {"emotion_audio": "/etc/passwd"}}}}, 400, "invalid_request", None),
        ({"cast": {"roles": {"Alice": {"glossary": "/etc/passwd"}}}}, 400, "invalid_request", "glossary"),
        ({"emotion_audio": "/etc/hostname"}, 400, "invalid_request", None),
        ({"voice": "/etc/hostname"}, 404, "voice_error", "voice"),
        ({"cast": {"roles": {"A": {"voice": "ann"}}}, "top_k": 3}, 400, "unsupported", "top_k"),
        ({"book": "book-0000000000000000"}, 404, "book_not_found", None),
        ({"book": "../../x"}, 404, "book_not_found", None),
        ({"cast": {"roles": {"x" * 300_000: {}}}}, 400, "invalid_request", "cast"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_first_word(start, body, status, code, param):
    server = start()
    book = send(server)["id"]
    answer = httpx.post(f"{server.url}/v1/audio/readings", json={"book": book, **body})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert httpx.get(f"{server.url}/v1/audio/readings").json()["data"] == []


def test_files_that_are_no_books_are_refused_and_leave_nothing(start, library):
    server = start()
    for name, data, words in (
        ("a.epub", b"no zip", "is named .epub and is none"), ("a.exe", b"x", "ends in"),
        ("a.txt", b" ", "no text"),
        ("../../../etc/x.pdf", b"%PDF-1.4 broken", "cannot be read"), ("noname", b"x", "ends in"),
    ):  # fmt: skip
        answer = httpx.post(f"{server.url}/v1/audio/books", files={"file": (name, io.BytesIO(data))})
        assert answer.status_code == 400, answer.text
        assert words in answer.json()["error"]["message"]
        assert str(library.folder.parent) not in answer.text
    assert httpx.post(f"{server.url}/v1/audio/books", data={"name": "x"}).status_code == 400
    assert httpx.get(f"{server.url}/v1/audio/books").json()["data"] == []
    assert [path.name for path in (library.folder.parent / "readings").rglob("*.*")] == [".lock"]
    script = httpx.post(
        f"{server.url}/v1/audio/books", data={"text": "Ann: Hi there.\nAnn: Bye.", "name": "a"}
    )
    assert script.json()["roles"][-1]["name"] == "Ann"


def test_one_keys_books_and_readings_are_not_anothers(start):
    settings = ServerSettings(keys=tuple(ApiKey(hash=hash_key(key)) for key in ("one", "two")))
    server = start(settings=settings)
    mine, other = ({"headers": {"Authorization": f"Bearer {key}"}} for key in ("one", "two"))
    book = send(server, **mine)["id"]
    answer = httpx.post(f"{server.url}/v1/audio/readings", json={"book": book}, **mine)
    reading = answer.json()["id"]
    for method, path in (
        ("GET", f"books/{book}"), ("DELETE", f"books/{book}"), ("GET", f"readings/{reading}"),
        ("POST", f"readings/{reading}/cancel"), ("DELETE", f"readings/{reading}"),
        ("GET", f"readings/{reading}/files/report.json"), ("GET", f"books/{book}/cover"),
    ):  # fmt: skip
        assert httpx.request(method, f"{server.url}/v1/audio/{path}", **other).status_code == 404, path
        assert httpx.request(method, f"{server.url}/v1/audio/{path}").status_code == 401
    assert httpx.post(f"{server.url}/v1/audio/readings", json={"book": book}, **other).status_code == 404
    assert httpx.get(f"{server.url}/v1/audio/readings", **other).json()["data"] == []
    wait_until(lambda: state(server, reading, **mine)["status"] == "completed")


def test_numbers_and_disk_are_bounded(start, monkeypatch):
    limits = ReadingLimits(books=2, readings=1)
    server = start(settings=ServerSettings(readings=limits))
    book = send(server)["id"]
    send(server)
    third = httpx.post(f"{server.url}/v1/audio/books", files={"file": ("a.txt", b"x")})
    assert (third.status_code, third.json()["error"]["code"]) == (429, "too_many_books")
    reading = read(server, book)
    more = httpx.post(f"{server.url}/v1/audio/readings", json={"book": book})
    assert (more.status_code, more.json()["error"]["code"]) == (429, "too_many_readings")
    finished(server, reading)
    httpx.delete(f"{server.url}/v1/audio/readings/{reading}")
    monkeypatch.setattr("sonant.server.bookshelf.Bookshelf.free", lambda shelf: 10)
    full = httpx.post(f"{server.url}/v1/audio/readings", json={"book": book})
    assert (full.status_code, full.json()["error"]["code"]) == (507, "storage_unavailable")
    server.stop()
    small = start(settings=ServerSettings(readings=ReadingLimits(owner_bytes=100)))
    kept = httpx.post(f"{small.url}/v1/audio/books", files={"file": ("a.txt", SCENE.encode())})
    assert (kept.status_code, kept.json()["error"]["code"]) == (413, "too_much_kept")


class Held:
    """Lines are said one at a time, each when it is let go."""

    def __init__(self, monkeypatch):
        self.turn = threading.Semaphore(0)
        self.said = []
        tell = PieceStore.tell

        def held(store, text, **pace):
            assert self.turn.acquire(timeout=30)
            self.said.append(text)
            return tell(store, text, **pace)

        monkeypatch.setattr(PieceStore, "tell", held)

    def let(self, count):
        for _ in range(count):
            self.turn.release()


def test_a_cancelled_reading_is_resumed_with_what_was_spoken(start, monkeypatch):
    server = start()
    book = send(server)["id"]
    held = Held(monkeypatch)
    reading = read(server, book, format="wav")
    held.let(3)
    wait_until(lambda: state(server, reading)["progress"]["done"] == 3)
    running = state(server, reading)
    assert running["status"] == "running"
    assert running["progress"]["seconds_left"] > 0
    assert httpx.delete(f"{server.url}/v1/audio/books/{book}").status_code == 409
    assert httpx.post(f"{server.url}/v1/audio/readings/{reading}/resume").status_code == 409
    answers = []
    stopper = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{server.url}/v1/audio/readings/{reading}/cancel", timeout=30)
        )
    )
    stopper.start()
    wait_until(lambda: is_ending(server))
    held.let(1)
    stopper.join(30)
    assert answers[0].json()["status"] == "cancelled"
    assert httpx.get(f"{server.url}/v1/audio/readings/{reading}/files/book.wav").status_code == 404
    held.let(100)
    assert httpx.post(f"{server.url}/v1/audio/readings/{reading}/resume").json()["status"] in (
        "queued",
        "running",
    )
    done = finished(server, reading)
    assert done["status"] == "completed"
    report = httpx.get(f"{server.url}/v1/audio/readings/{reading}/files/report.json").json()
    assert report["kept_lines"] >= 3
    assert httpx.post(f"{server.url}/v1/audio/readings/{reading}/resume").status_code == 409


def test_a_reading_goes_on_after_a_restart_with_the_same_bytes(start, library, monkeypatch):
    server = start()
    book = send(server)["id"]
    whole = finished(server, read(server, book, format="wav"))
    expected = httpx.get(server.url + whole["files"][0]["url"]).content
    with monkeypatch.context() as patch:
        held = Held(patch)
        reading = read(server, book, format="wav")
        held.let(4)
        wait_until(lambda: state(server, reading)["progress"]["done"] == 4)
        ending = threading.Thread(target=server.stop)
        ending.start()
        wait_until(lambda: server.app.state.desk._is_open is False)
        held.let(1)
        ending.join(30)
    kept = json.loads(
        (library.folder.parent / "readings" / "everybody" / "readings" / reading / "reading.json").read_text()
    )
    assert kept["status"] == "queued"
    again = start()
    done = finished(again, reading)
    assert done["status"] == "completed"
    assert httpx.get(again.url + done["files"][0]["url"]).content == expected


def test_a_full_disk_fails_a_reading_that_can_be_resumed(start, monkeypatch):
    server = start()
    book = send(server)["id"]

    def full(path, data, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sonant.readings.pieces.write_atomically", full)
        reading = read(server, book, format="wav")
        done = finished(server, reading)
    assert (done["status"], done["error"]["code"]) == ("failed", "storage_unavailable")
    httpx.post(f"{server.url}/v1/audio/readings/{reading}/resume")
    assert finished(server, reading)["status"] == "completed"


def test_a_short_request_is_answered_beside_a_book(start, monkeypatch):
    server = start(toy_source(slots=1))
    book = send(
        server, "\n\n".join(f"This is sentence number {n} of a long book." for n in range(300)), "a.txt"
    )
    reading = read(server, book["id"])
    for _ in range(3):
        answer = httpx.post(
            f"{server.url}/v1/audio/speech", json={"input": "Hello.", "response_format": "wav"}
        )
        assert answer.status_code == 200
    assert state(server, reading)["status"] == "running"
    httpx.delete(f"{server.url}/v1/audio/readings/{reading}", timeout=30)


def test_a_reading_that_takes_too_long_is_stopped_and_told(start, monkeypatch):
    server = start(settings=ServerSettings(readings=ReadingLimits(seconds=0.05)))
    book = send(server)["id"]
    held = Held(monkeypatch)
    reading = read(server, book)
    # Where its time was over before the first line, it ends by itself.
    wait_until(lambda: is_ending(server) or state(server, reading)["status"] == "failed")
    held.let(1)
    done = finished(server, reading)
    assert (done["status"], done["error"]["code"]) == ("failed", "deadline_exceeded")


def test_a_file_that_takes_for_ever_to_read_is_given_up(start):
    server = start(settings=ServerSettings(readings=ReadingLimits(parse_seconds=0.01)))
    answer = httpx.post(f"{server.url}/v1/audio/books", files={"file": ("a.txt", SCENE.encode())})
    assert answer.status_code == 400
    assert "within 0.01 s" in answer.json()["error"]["message"]


def test_two_servers_do_not_read_the_same_books(start):
    first, second = start(), start()
    book = send(first)["id"]
    for method, path in (("GET", "books"), ("GET", f"books/{book}"), ("POST", "readings")):
        answer = httpx.request(method, f"{second.url}/v1/audio/{path}", json={"book": book})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "books_elsewhere")
    first.stop()
    assert httpx.get(f"{second.url}/v1/audio/books/{book}").status_code == 200  # it takes over


def test_a_reading_of_another_version_is_left_alone(start, library):
    place = library.folder.parent / "readings" / "everybody" / "readings" / "reading-0123456789abcdef"
    place.mkdir(parents=True)
    (place / "reading.json").write_text('{"id": "reading-0123456789abcdef", "new": 1}')
    server = start()
    assert httpx.get(f"{server.url}/v1/audio/readings").json()["data"] == []
    assert httpx.get(f"{server.url}/v1/audio/readings/{place.name}").status_code == 404
    assert (place / "reading.json").exists()


def test_a_server_whose_folder_cannot_be_written_serves_the_rest(start, library):
    (library.folder.parent / "readings").write_text("a file in its place")
    server = start()
    assert httpx.get(f"{server.url}/v1/audio/books").status_code >= 500
    body = {"input": "Hello.", "response_format": "wav"}
    assert httpx.post(f"{server.url}/v1/audio/speech", json=body).status_code == 200
