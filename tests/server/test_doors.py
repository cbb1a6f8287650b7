"""Attacks that need no whole request, against the real process: headers without end, floods, idle sockets."""

import contextlib
import json
import socket
import time

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.server.conftest import ProcessServer, wait_ready, wait_until

MANY, EACH, SOCKETS, SECONDS = 60, 40, 5, 1


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = ProcessServer(
        *("--voices", str(tmp_path_factory.mktemp("voices")), "--model", "builtin"),
        *("--max-connections", str(MANY), "--max-connections-per-address", str(EACH)),
        *("--max-sockets-per-client", str(SOCKETS), "--header-timeout", str(SECONDS)),
    )
    wait_ready(made.url)
    yield made
    made.stop()


def opened(server, head=b""):
    host, port = server.url.removeprefix("http://").split(":")
    made = socket.create_connection((host, int(port)), timeout=20)
    made.sendall(head)
    return made


def sent_until_closed(made, pieces, pause=0.0):
    """Bytes sent before the server closed the connection."""
    sent = 0
    for piece in pieces:
        try:
            made.sendall(piece)
        except ConnectionError:
            return sent
        sent += len(piece)
        time.sleep(pause)
    raise AssertionError("the server took everything")


def answer(made):
    """Everything until the other side closes, as status and code."""
    data = b""
    try:
        while piece := made.recv(65_536):
            data += piece
    except ConnectionError:
        pass  # it closed while there was still something to read for it
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, json.loads(body)["error"]["code"] if body else ""


@pytest.mark.parametrize(
    "head", [b"", b"\r\n", b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ", b"POST /v1/audio/speech HT"]
)
def test_a_head_that_does_not_end_is_dropped_in_time(server, head):
    with opened(server, head) as made:
        assert answer(made) == (408, "request_timeout")


def test_a_head_that_trickles_is_dropped_in_time(server):
    with opened(server, b"GET /health HTTP/1.1\r\n") as made:
        lines = (f"X-{number}: a\r\n".encode() for number in range(200))
        assert sent_until_closed(made, lines, pause=0.05) < 2_000
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_second_head_on_the_same_connection_is_held_to_the_same_time(server):
    with opened(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") as made:
        heard = b""
        while b"alive" not in heard:  # head and body may come in two pieces
            piece = made.recv(65_536)
            assert piece
            heard += piece
        made.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert answer(made) == (408, "request_timeout")


@pytest.mark.parametrize("line", [b"a" * 60_000, b"X-Many: b\r\n" * 6_000])
def test_a_flood_of_headers_is_refused_and_not_kept(server, line):
    before = psutil.Process(server.process.pid).memory_info().rss
    for _ in range(5):
        with opened(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Large: ") as made:
            assert sent_until_closed(made, (line for _ in range(5_000))) < 64 * 2**20
    assert psutil.Process(server.process.pid).memory_info().rss - before < 64 * 2**20


def test_a_large_head_in_one_piece_is_refused_before_the_app_sees_it(server):
    reply = httpx.get(f"{server.url}/health", headers={"X-Large": "a" * 100_000})
    assert reply.status_code == 431
    assert reply.json()["error"]["code"] == "headers_too_large"
    assert httpx.get(f"{server.url}/health", headers={"X-Large": "a" * 20_000}).status_code == 200


def test_a_body_is_no_header_however_its_bytes_arrive(server):
    body = json.dumps({"input": "Hi.", "user": "u" * 300_000}).encode()
    head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    for cut in (len(head), len(head) - 5, len(head) + 5, len(head) + 200_000):
        with opened(server) as made:
            made.sendall((head + body)[:cut])
            time.sleep(0.05)
            made.sendall((head + body)[cut:])
            assert made.recv(65_536).startswith(b"HTTP/1.1 200")


def test_connections_of_one_address_are_bounded_and_come_free_again(server):
    kept = [opened(server, b"GET /health HTTP/1.1\r\nX-Slow: ") for _ in range(EACH)]
    try:
        with opened(server) as made:
            assert answer(made) == (503, "too_many_connections")
    finally:
        for made in kept:
            made.close()
    wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200)


def test_idle_sockets_of_one_client_are_bounded(server):
    address = server.url.replace("http", "ws") + "/v1/audio/speech/stream"
    with contextlib.ExitStack() as kept:
        for _ in range(SOCKETS):
            kept.enter_context(connect(address))
        with connect(address) as one:
            assert json.loads(one.recv(timeout=10))["error"]["code"] == "too_many_sockets"
            with pytest.raises(ConnectionClosed):
                one.recv(timeout=10)
        assert httpx.get(f"{server.url}/health").status_code == 200
    with connect(address) as again:
        again.send(json.dumps({"type": "text", "text": "Hi."}))
        again.send(json.dumps({"type": "done"}))
        assert json.loads(again.recv(timeout=30))["type"] == "started"


def test_ordinary_requests_on_kept_connections_are_none_the_wiser(server):
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200
            time.sleep(SECONDS * 1.2)
            body = {"input": "Hello there.", "response_format": "wav"}
            assert client.post("/v1/audio/speech", json=body).status_code == 200
