"""Attacks that need no whole request, against the real process: headers without end, floods, idle sockets."""

import asyncio
import contextlib
import json
import socket
import time

import httpx
import psutil
import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from sonant.server.doors import guarded
from sonant.server.settings import DoorLimits
from tests.server.conftest import PATIENCE, ProcessServer, wait_ready, wait_until

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
    made = socket.create_connection((host, int(port)), timeout=PATIENCE)
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


@pytest.mark.parametrize("line", [b"a" * 60_000, b"X-Many: b\r\n" * 6_000])
def test_a_flood_of_trailers_is_one_of_headers(server, line):
    """What follows the last chunk of a body is kept like headers, by the parser and by uvicorn."""
    head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    before = psutil.Process(server.process.pid).memory_info().rss
    with opened(server, head + b"2\r\n{}\r\n0\r\nX-Large: ") as made:
        assert sent_until_closed(made, (line for _ in range(5_000))) < 64 * 2**20
    assert psutil.Process(server.process.pid).memory_info().rss - before < 64 * 2**20


def test_the_rest_of_a_body_that_is_answered_already_has_a_heads_time(server):
    """It trickled for ever: every byte put off the end of an idle connection."""
    with opened(server, b"POST /none HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n") as made:
        assert made.recv(65_536).startswith(b"HTTP/1.1 404")
        assert sent_until_closed(made, (b"a" for _ in range(400)), pause=0.05) < 400


class Taken:
    """A transport that keeps what is written to it."""

    def __init__(self):
        self.data, self.is_cut, self.left = bytearray(), asyncio.Event(), 100

    def write(self, data):
        self.data += data

    def abort(self):
        self.is_cut.set()

    def get_write_buffer_size(self):
        return self.left

    def get_extra_info(self, name):
        return ("127.0.0.1", 5) if name in ("peername", "sockname") else None

    def is_closing(self):
        return False

    def pause_reading(self):
        pass

    resume_reading = close = pause_reading


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@contextlib.asynccontextmanager
async def connected(head, stall_seconds=60.0):
    """A guarded connection after its head, without a socket: its protocol and what was written to it."""

    async def app(scope, receive, send):
        await receive()
        is_socket = scope["type"] == "websocket"
        await send(
            {"type": "websocket.accept"} if is_socket else {"type": "http.response.start", "status": 200}
        )
        await receive()

    config = uvicorn.Config(app, ws_ping_interval=None)
    config.load()
    http, socket_, keeper = guarded(DoorLimits(), stall_seconds)
    make, taken = socket_ if head is UPGRADE else http, Taken()
    if head is UPGRADE:
        keeper.enter("127.0.0.1")
    wire = make(config=config, server_state=ServerState(), app_state={})
    wire.connection_made(taken)
    wire.data_received(head)
    while head is UPGRADE and b"101" not in taken.data:
        await asyncio.sleep(0)
    yield wire, taken
    wire.connection_lost(None)
    await asyncio.gather(*wire.tasks)


def test_a_websocket_that_reads_nothing_is_kept_no_answers_to_its_pings():
    async def talk():
        sizes = []
        async with connected(UPGRADE) as (wire, taken):
            for step in (lambda: None, wire.pause_writing, wire.resume_writing):
                before = len(taken.data)
                step()
                wire.data_received((b"\x89\xfd" + bytes(4) + b"x" * 125) * 100)
                sizes.append(len(taken.data) - before)
        return sizes

    assert asyncio.run(talk()) == [12_700, 0, 127 + 12_700], "the last of those that waited is answered"


def test_a_close_behind_a_ping_is_answered_to_a_client_that_is_behind():
    async def talk():
        async with connected(UPGRADE) as (wire, taken):
            wire.pause_writing()
            before = len(taken.data)
            wire.data_received(b"\x89\x80" + bytes(4) + b"\x88\x82" + bytes(4) + b"\x03\xe8")
            return bytes(taken.data[before:])

    assert asyncio.run(talk()) == b"\x88\x02\x03\xe8"


@pytest.mark.parametrize("head", [UPGRADE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_connection_that_takes_nothing_is_cut_and_one_that_takes_it_is_not(head):
    """Closing alone waited for the client to take the rest, for as long as it held its end open."""

    async def talk():
        async with connected(head, stall_seconds=3_600.0) as (wire, taken):
            wire.pause_writing()
            for taken.left in range(99, 50, -1):  # slowly, but it does
                wire._stall._run()
                assert not taken.is_cut.is_set()
            wire.resume_writing()
            assert wire._stall is None
            wire.pause_writing()
            wire._stall._run()
            assert taken.is_cut.is_set()

    asyncio.run(talk())


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
    # They wait for their bodies; heads that do not end would be dropped while the last are being opened.
    head = b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{"
    kept = [opened(server, head) for _ in range(EACH)]
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
            assert json.loads(one.recv(timeout=PATIENCE))["error"]["code"] == "too_many_sockets"
            with pytest.raises(ConnectionClosed):
                one.recv(timeout=PATIENCE)
        assert httpx.get(f"{server.url}/health").status_code == 200
    with connect(address) as again:
        again.send(json.dumps({"type": "text", "text": "Hi."}))
        again.send(json.dumps({"type": "done"}))
        assert json.loads(again.recv(timeout=PATIENCE))["type"] == "started"


def test_ordinary_requests_on_kept_connections_are_none_the_wiser(server):
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200
            time.sleep(SECONDS * 1.2)
            body = {"input": "Hello there.", "response_format": "wav"}
            assert client.post("/v1/audio/speech", json=body).status_code == 200
