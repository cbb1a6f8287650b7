"""Who sends much work beside the speaking waits for it, and nobody else does."""

import asyncio
import gc
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sonant.errors import RequestError
from sonant.server import voices
from sonant.server.auth import keys_of
from sonant.server.one_each import OneEach
from sonant.server.settings import ServerSettings
from tests.server.conftest import PATIENCE, wait_until
from tests.server.test_uploads import clip

GREEDY, OTHER = ({"Authorization": f"Bearer sk-{who}"} for who in ("greedy", "other"))


def test_one_of_each_client_and_so_many_in_all():
    async def talk():
        turns, order, ends = OneEach(2), [], {}

        async def work(client, number):
            async with turns.turn(client):
                order.append(f"{client}{number}")
                await ends.setdefault(f"{client}{number}", asyncio.Event()).wait()

        async def settle():
            for _ in range(20):
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work(client, number)) for client in "abc" for number in range(3)]
        await settle()
        assert order == ["a0", "b0"]
        ends["a0"].set()
        await settle()
        assert order == ["a0", "b0", "c0"], "the one who waited, not the one who was just served"
        tasks[1].cancel()  # a1 leaves while it waits
        for name in ("b0", "c0"):
            ends[name].set()
        await settle()
        assert order[3:5] == ["a2", "b1"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return turns

    assert asyncio.run(talk())._rows == {}


def test_an_error_of_the_thread_is_its_callers_and_nobody_elses(caplog):
    async def talk():
        def fail():
            raise RequestError("no")

        with ThreadPoolExecutor(1) as threads, pytest.raises(RequestError):
            await OneEach().in_thread("a", threads, fail)
        gc.collect()

    gc.collect()  # what earlier tests left is theirs
    caplog.clear()
    asyncio.run(talk())
    gc.collect()
    assert not caplog.records, "nothing was lost"


@pytest.fixture
def server(start):
    return start(settings=ServerSettings(keys=keys_of(["sk-greedy", "sk-other"]), max_per_client=20))


@pytest.fixture
def crowd():
    with ThreadPoolExecutor(12) as pool:
        yield pool


def test_texts_that_take_long_to_show_keep_their_sender_waiting_alone(server, crowd, monkeypatch):
    engine, go, begun = server.engine(), threading.Event(), []
    explain = engine.explain

    def held(request):
        if request.text.startswith("hard"):
            begun.append(request.text)
            assert go.wait(PATIENCE)
        return explain(request)

    monkeypatch.setattr(engine, "explain", held)

    def ask(text, headers):
        return httpx.post(f"{server.url}/v1/audio/text", json={"input": text}, headers=headers)

    waiting = [crowd.submit(ask, f"hard {number}", GREEDY) for number in range(8)]
    try:
        wait_until(lambda: server.service.clients.total() == 8)
        assert ask("hi", OTHER).status_code == 200
        assert len(begun) == 1
    finally:
        go.set()
    assert [one.result().status_code for one in waiting] == [200] * 8


def sent_and_left(server, path, text):
    """A request that has come as far as to be counted, and whose sender then leaves."""
    data = json.dumps({"input": text}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {GREEDY['Authorization']}\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + data)
        wait_until(lambda: server.service.clients.total() == 1)
        yield
    wait_until(lambda: not server.service.clients)


@pytest.mark.parametrize(
    ("path", "name"), [("/v1/audio/speech/segments", "segments"), ("/v1/audio/speech", "submit")]
)
def test_who_sends_hard_texts_and_leaves_again_and_again_has_one_thread(server, monkeypatch, path, name):
    """Each departure gave the turn to the next one while its thread went on, until all threads were taken."""
    engine, go, begun, made = server.engine(), threading.Event(), [], []
    work = getattr(engine, name)

    def held(request, **options):
        begun.append(request.text)
        assert not request.text.startswith("hard") or go.wait(PATIENCE)
        made.append(work(request, **options))
        return made[-1]

    monkeypatch.setattr(engine, name, held)
    for number in range(9):
        for _ in sent_and_left(server, path, f"hard {number}"):
            wait_until(lambda: begun == ["hard 0"])
    answer = httpx.post(server.url + path, json={"input": "hi"}, headers=OTHER)
    assert answer.status_code == 200
    assert begun == ["hard 0", "hi"]
    go.set()
    wait_until(lambda: len(made) == 2 and engine.load == (0, 0))
    if name == "submit":
        assert not made[1]._is_wanted(), "what was made for nobody is cancelled"


def test_clips_that_take_long_keep_their_sender_waiting_alone(server, crowd, monkeypatch):
    go, begun = threading.Event(), []
    examine = voices.examine

    def held(audio, **more):
        begun.append(more["transcript"])
        if more["transcript"] == "greedy":
            assert go.wait(PATIENCE)
        return examine(audio, **more)

    monkeypatch.setattr(voices, "examine", held)

    def check(who, headers):
        return httpx.post(
            f"{server.url}/v1/audio/voices/check", data={"ref_text": who},
            files={"audio_sample": ("a.wav", clip())}, headers=headers,
        )  # fmt: skip

    waiting = [crowd.submit(check, "greedy", GREEDY) for _ in range(8)]
    try:
        wait_until(lambda: server.service.clients.total() == 8)
        assert check("other", OTHER).status_code == 200
        assert begun.count("greedy") == 1
    finally:
        go.set()
    assert [one.result().status_code for one in waiting] == [200] * 8


def test_a_client_has_no_more_of_them_under_way_than_requests(start, monkeypatch):
    server = start(settings=ServerSettings(max_per_client=1))
    go = threading.Event()
    monkeypatch.setattr(server.engine(), "explain", lambda request: {"is": go.wait(PATIENCE)})
    url = f"{server.url}/v1/audio/text"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, url, json={"input": "hi"})
        wait_until(lambda: server.service.clients.total() == 1)
        second = httpx.post(url, json={"input": "hi"})
        assert (second.status_code, second.json()["error"]["code"]) == (429, "too_many_requests")
        go.set()
        assert first.result().status_code == 200
