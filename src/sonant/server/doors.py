"""Limits that hold before a request is read: connections in all and by address, headers in time and in size.

uvicorn's own protocols wait for ever for the end of a header and keep whatever is sent until then. These are
the same protocols with a count, a clock and a measure; an idle connection costs its client the answer 408.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Opcode

from sonant.server.problems import error_body
from sonant.server.settings import DoorLimits

_REASONS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


class Doorkeeper:
    """Who is connected now."""

    def __init__(self, limits: DoorLimits, stall_seconds: float) -> None:
        self.limits = limits
        self.stall_seconds = stall_seconds
        self.total = 0
        self.by_address: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """Count a connection; why it may not stay, or None."""
        self.total += 1
        self.by_address[address] += 1
        each = self.limits.connections_per_address
        if self.total > self.limits.connections:
            return f"{self.limits.connections} connections are open, the most this server takes"
        if each and self.by_address[address] > each:
            return f"{each} connections of this address are open, the most one may have"
        return None

    def leave(self, address: str) -> None:
        """The connection is gone."""
        self.total -= 1
        self.by_address[address] -= 1
        if not self.by_address[address]:
            del self.by_address[address]


def guarded(
    limits: DoorLimits, stall_seconds: float
) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol], Doorkeeper]:
    """uvicorn's `http` and `ws` protocols behind these limits, and who counts for them."""
    doors = Doorkeeper(limits, stall_seconds)

    class Http(GuardedHttp):
        keeper = doors

    class Socket(GuardedSocket):
        keeper = doors

    return Http, Socket, doors


class TakenInTime(asyncio.Protocol):
    """A connection that is cut when its client takes nothing for too long. What else closes it, the end of an
    answer or of a WebSocket, first waits for what is still to be taken, for ever."""

    keeper: Doorkeeper
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _stall: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The client is behind by more than a connection holds."""
        super().pause_writing()
        self._watch()

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self.keeper.stall_seconds, self._look, left)

    def _look(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch()  # it is slow
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """It took what there was."""
        self._stop_stall()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_stall()
        super().connection_lost(exc)

    def _stop_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


class GuardedHttp(TakenInTime, HttpToolsProtocol):
    """HTTP/1.1 whose heads are bounded in time and size."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._address = ""
        self._clock: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        """Of the head that is coming; within a body, of what is none of it: sizes of chunks, trailers."""
        self._heads = 0
        """Whole ones so far."""
        self._pieces = 0
        """Of bodies, so far."""
        self._is_head = True
        """True from the end of one request to the end of the next one's headers."""
        self._is_refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it; refuse one too many at once."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._address = self.client[0] if self.client else "local"
        reason = self.keeper.enter(self._address)
        if reason is not None:
            self._refuse(503, "too_many_connections", f"{reason}. Close some, or try again later.")
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._stop_clock()
        self.keeper.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Measure what belongs to a head, and let the parser have it."""
        if self._is_refused:
            return
        if self._is_head:
            self._start_clock()
        begun = (self._is_head, self._heads, self._pieces)
        super().data_received(data)
        if begun == (self._is_head, self._heads, self._pieces) and not self._is_refused:
            # All of it was head, or no byte of it was body. What began within it counts from the next on.
            self._head_bytes += len(data)
            self._check_head(self._head_bytes)

    def on_headers_complete(self) -> None:
        """The head is there: in time, and not too large."""
        if self._is_refused:
            return
        self._stop_clock()
        self._is_head = False
        self._heads += 1
        self._head_bytes = 0
        self._check_head(len(self.url) + sum(len(name) + len(value) for name, value in self.headers))
        if not self._is_refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        self._pieces += 1
        self._head_bytes = 0
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """What follows is the next head."""
        if not self._is_refused:
            super().on_message_complete()
            self._is_head = True
            self._head_bytes = 0
            self._stop_clock()

    def on_response_complete(self) -> None:
        """The rest of a body that is answered already has a head's time to come: nobody reads it."""
        super().on_response_complete()
        if not self._is_head and self.cycle.response_complete and not self.transport.is_closing():
            self._start_clock()

    def handle_websocket_upgrade(self) -> None:
        """From here the WebSocket's protocol counts for this connection."""
        self._stop_clock()
        if not self._is_refused:
            super().handle_websocket_upgrade()

    def _check_head(self, size: int) -> None:
        most = self.keeper.limits.header_bytes
        if size > most:
            message = f"the request's headers have more than {most:,} bytes. Send fewer or shorter ones."
            self._refuse(431, "headers_too_large", message)

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.keeper.limits.header_seconds, self._is_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _is_late(self) -> None:
        self._clock = None
        seconds = self.keeper.limits.header_seconds
        if self.cycle is not None and not self.cycle.response_complete:
            return  # the next head came early, behind an answer that is still being sent
        if not self._is_head:
            self.transport.close()
            return
        message = f"no whole request head arrived within {seconds:g} s. Send it again, over a faster line."
        self._refuse(408, "request_timeout", message)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._is_refused = True
        self._stop_clock()
        self._unset_keepalive_if_required()
        body = json.dumps({"error": error_body(status, code, message)}).encode()
        retry = b"retry-after: 5\r\n" if status == 503 else b""
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n" % (status, _REASONS[status])
        head += b"content-length: %d\r\n%bconnection: close\r\n\r\n" % (len(body), retry)
        if not self.transport.is_closing():
            if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
                self.transport.write(head + body)  # else it would stand in the middle of an answer
            self.transport.close()


class GuardedSocket(TakenInTime, WebSocketsSansIOProtocol):
    """A WebSocket that is counted out where it was counted in as HTTP."""

    _pong = b""
    """The answer to the last ping of a client that is behind."""

    def handle_ping(self) -> None:
        """Answer; for a client that is behind the last answer alone is kept (RFC 6455, 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
            return
        for frame in self.conn.data_to_send():
            if frame[:1] and frame[0] & 0x0F == Opcode.PONG:
                self._pong = frame
            elif frame:
                self.transport.write(frame)

    def resume_writing(self) -> None:
        """It took what there was."""
        super().resume_writing()
        pong, self._pong = self._pong, b""
        if pong:
            self.transport.write(pong)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self.keeper.leave(self.client[0] if self.client else "local")
        super().connection_lost(exc)
