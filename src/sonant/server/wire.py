"""One WebSocket's wire: JSON messages in, JSON and sound out, with its clocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Coroutine
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from sonant.errors import RequestError
from sonant.server.auth import WEBSOCKET_KEY, caller_of
from sonant.server.service import SpeechService

FIRST_SECONDS = 60.0
"""A socket that says nothing at all is closed after this."""
IDLE_SECONDS = 300.0
"""One that said something: agents keep a socket open between two turns."""


class Wire:
    """The messages of one socket."""

    def __init__(self, service: SpeechService, socket: WebSocket) -> None:
        self._socket = socket
        self._stall = service.settings.stall_seconds
        self._turn = asyncio.Lock()
        self._first: dict[str, Any] | None = None
        self.caller = caller_of(socket.scope)
        self.id: str = socket.state.request_id
        self._is_speaking = False
        self._quiet_since = 0.0

    @property
    def is_speaking(self) -> bool:
        """Set by the session: silence is no idleness while it speaks."""
        return self._is_speaking

    @is_speaking.setter
    def is_speaking(self, value: bool) -> None:
        if self._is_speaking and not value:
            self._quiet_since = asyncio.get_running_loop().time()
        self._is_speaking = value

    async def open(self) -> None:
        """Accept; the key that a browser sent as a subprotocol is not sent back."""
        offered = self._socket.scope.get("subprotocols", [])
        chosen = next((name for name in offered if not name.startswith(WEBSOCKET_KEY)), None)
        await self._socket.accept(subprotocol=chosen)

    async def first_kind(self) -> str:
        """The type of the first message, which `receive` then gives."""
        self._first = await self._next(FIRST_SECONDS)
        return str(self._first.get("type"))

    async def receive(self) -> dict[str, Any]:
        """The next message. Raises RequestError for what is none, TimeoutError, WebSocketDisconnect."""
        first, self._first = self._first, None
        return first if first is not None else await self._next(IDLE_SECONDS)

    async def _next(self, seconds: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(since + seconds):
                    raw = await self._socket.receive_text()
                break
            except TimeoutError:
                now = loop.time()
                last = now if self.is_speaking else self._quiet_since
                if last + seconds <= now:
                    raise
                since = last
            except KeyError as error:
                raise RequestError("a binary message came; messages are JSON text. See /docs.") from error
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"a message is not JSON ({type(error).__name__}).") from error
        if not isinstance(message, dict):
            raise RequestError(
                'a message is no JSON object; expected one such as {"type": "text", "text": "Hi."}'
            )
        return message

    async def tell(self, content: dict[str, Any]) -> None:
        """Send a message."""
        async with self._turn, asyncio.timeout(self._stall):
            await self._socket.send_text(json.dumps(content))

    async def sound(self, data: bytes | bytearray) -> None:
        """Send bytes of sound, if there are any."""
        if data:
            async with self._turn, asyncio.timeout(self._stall):
                await self._socket.send_bytes(bytes(data))

    async def close(self, code: int) -> None:
        """Close, unless it is closed."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.close(code)


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run these side by side until the first of them ends, and raise its error; the others are stopped."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:  # what the others end with is read, or asyncio reports it as lost
            _ = task.cancelled() or task.exception()
