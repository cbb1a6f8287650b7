"""Clients that leave, read slowly, come in crowds or ask for too much time."""

import json
import socket
import threading
import time

import httpx
import pytest
import torch

from sonant.engine.stream import SpeechStream
from sonant.server.auth import keys_of
from sonant.server.settings import ServerSettings
from tests.server.conftest import PATIENCE, toy_source, wait_until

ENDLESS = {"end_bias": float("-inf"), "length": 8_000}


def body(text="long", **more):
    return {"input": text, "model": "toy", "voice": "ann", "response_format": "pcm", "seed": 1, **more}


def open_request(server, content, *headers):
    """A connection that has sent its request and read nothing."""
    data = json.dumps(content).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", server.port))
    head = (
        "POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n" + "".join(f"{line}\r\n" for line in headers) + "\r\n"
    )
    connection.sendall(head.encode() + data)
    return connection


def test_a_client_that_leaves_stops_the_work_at_the_next_step(start):
    server = start(toy_source(chunk_limit=100_000, **ENDLESS))
    engine = server.engine()
    connection = open_request(server, body())
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert engine.load == (1, 0)
    at_leaving = engine.steps
    connection.close()
    wait_until(lambda: engine.load == (0, 0))
    further = engine.steps - at_leaving
    assert further < 4_000  # of eight thousand; the next test says exactly when
    steps = engine.steps
    time.sleep(0.05)
    assert engine.steps == steps
    wait_until(lambda: server.service.metrics.records)
    assert server.service.metrics.records[-1].outcome == "client_gone"


def test_not_one_further_step_is_begun_once_the_departure_is_known(start, monkeypatch):
    server = start(toy_source(chunk_limit=100_000, **ENDLESS))
    engine = server.engine()
    step = engine.model.step
    known, after = threading.Event(), []

    def slow(utterances):  # as slow as a large model: 20 ms
        after.append(known.is_set())
        time.sleep(0.02)
        return step(utterances)

    monkeypatch.setattr(engine.model, "step", slow)
    cancel = SpeechStream.cancel
    monkeypatch.setattr(SpeechStream, "cancel", lambda stream: (cancel(stream), known.set()))
    connection = open_request(server, body())
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    connection.close()
    assert known.wait(PATIENCE)
    wait_until(lambda: engine.load == (0, 0))
    time.sleep(0.1)
    assert sum(after) <= 1  # the event is set just after the cancel: a step may lie between


def test_a_client_that_leaves_before_the_first_sound_stops_too(start):
    server = start(toy_source(slots=1, chunk_limit=1, **ENDLESS))
    engine = server.engine()
    first = open_request(server, body())
    first.recv(100)
    waiting = open_request(server, body())
    wait_until(lambda: engine.load[1] == 1)
    waiting.close()
    wait_until(lambda: engine.load[1] == 0)
    first.close()
    wait_until(lambda: engine.load == (0, 0))


def test_a_slow_reader_holds_up_nobody(start):
    server = start(toy_source(slots=2, chunk_limit=4, **ENDLESS))
    engine = server.engine()
    slow = open_request(server, body())
    slow.recv(10)
    steps = -1
    while engine.steps != steps:  # until its buffers are full and it is paused
        steps = engine.steps
        time.sleep(0.1)
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body("b" * 50), timeout=60)
    assert len(answer.content) == (2 * 50 + 8) * 40 * 3 * 2
    assert engine.load == (1, 0)
    slow.close()
    wait_until(lambda: engine.load == (0, 0))


def test_a_client_that_takes_nothing_is_dropped_in_the_end(start):
    server = start(toy_source(chunk_limit=4, **ENDLESS), settings=ServerSettings(stall_seconds=0.3))
    connection = open_request(server, body())
    wait_until(lambda: server.service.metrics.records)
    assert server.service.metrics.records[-1].outcome == "client_gone"
    wait_until(lambda: server.engine().load == (0, 0))
    connection.close()


def test_a_full_queue_is_answered_with_503_and_when_to_come_back(start):
    server = start(toy_source(slots=1, queue_limit=2, chunk_limit=1, **ENDLESS))
    crowd = [open_request(server, body()) for _ in range(2)]
    wait_until(lambda: sum(server.engine().load) == 2)
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body())
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1
    for connection in crowd:
        connection.close()
    wait_until(lambda: server.engine().load == (0, 0))
    assert httpx.post(f"{server.url}/v1/audio/speech", json=body("b")).status_code == 200


def test_one_client_cannot_take_all_turns(start):
    settings = ServerSettings(max_per_client=1, keys=keys_of(["sk-one", "sk-two"]))
    server = start(toy_source(**ENDLESS, chunk_limit=1), settings=settings)
    held = open_request(server, body(), "Authorization: Bearer sk-one")
    wait_until(lambda: sum(server.engine().load) == 1)

    def ask(key):
        return httpx.post(f"{server.url}/v1/audio/speech", json=body("b"), headers={"X-Api-Key": key})

    refused = ask("sk-one")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert ask("sk-two").status_code == 200
    held.close()


def test_a_key_nobody_asked_for_does_not_make_another_client(start):
    server = start(toy_source(**ENDLESS, chunk_limit=1), settings=ServerSettings(max_per_client=1))
    held = open_request(server, body())
    wait_until(lambda: sum(server.engine().load) == 1)
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body("b"), headers={"X-Api-Key": "made-up"})
    assert answer.status_code == 429
    held.close()


def test_a_body_that_does_not_arrive_is_a_408(start):
    server = start(settings=ServerSettings(body_seconds=0.2))
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        connection.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        answer = b""
        while piece := connection.recv(4096):  # until the server closes
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in answer
    # Head and body in one piece: a client that is held up between the two is late as well.
    with open_request(server, body("b")) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_deadline_before_the_first_sound_is_a_503(start):
    server = start(toy_source(slots=1, chunk_limit=1, **ENDLESS))
    held = open_request(server, body())
    wait_until(lambda: server.engine().load[0] == 1)
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body("b", deadline=0.1))
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert answer.headers["retry-after"]
    assert answer.headers["x-should-retry"] == "false"  # or a client's own retries would cost it all again
    held.close()


def test_an_error_in_the_middle_breaks_the_answer_off(start):
    server = start(toy_source(**ENDLESS))
    server.engine().model.fail_at = 200
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body()) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_an_error_in_the_middle_is_an_event_of_its_own(start):
    server = start(toy_source(**ENDLESS))
    server.engine().model.fail_at = 200
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body(stream_format="sse"))
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    assert events[0]["type"] == "speech.audio.delta"
    assert events[-1]["type"] == "speech.audio.error"
    assert events[-1]["error"]["code"] == "generation_failed"


def test_an_error_at_once_is_a_500_that_clients_do_not_retry(start):
    server = start(toy_source(**ENDLESS))
    server.engine().model.fail_at = 0
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body("abc"))
    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    server.engine().model.fail_at = None
    assert httpx.post(f"{server.url}/v1/audio/speech", json=body("abc")).status_code == 200


def test_many_at_once_get_what_each_gets_alone(start):
    server = start(toy_source(slots=3, end_bias=-2.0, dtype=torch.float64))
    texts = [f"text number {n} of several. And more" for n in range(10)]

    def speak(text, seed):
        answer = httpx.post(f"{server.url}/v1/audio/speech", json=body(text, seed=seed), timeout=60)
        assert answer.status_code == 200
        return answer.content

    alone = [speak(text, n) for n, text in enumerate(texts)]
    together = {}

    def work(number):
        together[number] = speak(texts[number], number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for number, content in enumerate(alone):
        assert together[number] == content
