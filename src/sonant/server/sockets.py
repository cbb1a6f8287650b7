"""Which protocol a WebSocket speaks: `session.config` comes from vLLM-Omni's clients, all else is ours."""

from __future__ import annotations

import contextlib
import logging

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from sonant.errors import SonantError
from sonant.server.live import LiveSession
from sonant.server.omni import OmniSession
from sonant.server.problems import HttpProblem, describe_error
from sonant.server.service import SpeechService
from sonant.server.wire import Wire

log = logging.getLogger(__name__)


async def serve_socket(service: SpeechService, socket: WebSocket) -> None:
    """One WebSocket from its opening to its end."""
    wire = Wire(service, socket)
    try:
        with service.socket_of(wire.caller.id):
            await wire.open()
            kind = await wire.first_kind()
            session = OmniSession if kind == "session.config" else LiveSession
            await session(service, wire).run()
            await wire.close(1000)
    except (SonantError, HttpProblem) as error:
        status, body, _ = describe_error(error)
        log.info("stream %s refused: %s %s", wire.id, status, body["code"])
        if socket.application_state is WebSocketState.CONNECTING:
            await wire.open()  # a browser is told reasons only after it was let in
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            await wire.tell({"type": "error", "error": body, "message": body["message"]})
        await wire.close(1013 if status in (429, 503) else 1011 if status >= 500 else 1008)
    except (WebSocketDisconnect, TimeoutError):
        await wire.close(1001)
