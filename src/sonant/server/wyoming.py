"""The Wyoming protocol, which Home Assistant speaks: describe, synthesize, and text that is still coming.

One event: a line of JSON {"type", "data"?, "data_length"?, "payload_length"?}, data (JSON), payload.
client: describe | synthesize | synthesize-start synthesize-chunk* synthesize-stop | ping
server: info | audio-start audio-chunk* audio-stop | synthesize-stopped | pong | error audio-stop?
Source: the package wyoming 1.10.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from secrets import token_hex
from typing import Any

from pydantic import ValidationError

import sonant
from sonant.audio.encode import to_int16
from sonant.errors import RequestError, SonantError
from sonant.request.speech import LANGUAGE_CODES, AudioChunk
from sonant.server.auth import Caller
from sonant.server.live import SentenceCutter
from sonant.server.problems import HttpProblem, describe_error, from_validation
from sonant.server.schemas import Manner
from sonant.server.service import Speaking, SpeechService
from sonant.server.voices import list_entries

log = logging.getLogger(__name__)

VERSION = "1.10.0"
"""Of the protocol that events are written in."""
MOST_LINE = 65_536
MOST_DATA = 2**20
EVENT_SECONDS = 20.0
"""From the first byte of an event to its last."""
IDLE_SECONDS = 300.0
WATCH_SECONDS = 0.5
"""How often a client is looked for while nothing is sent to it."""
_CODES = {name: code for code, name in LANGUAGE_CODES.items()}


class _Ended(ConnectionError):
    """The client is gone, or sends what is none of the protocol."""


class WyomingServer:
    """What every connection shares."""

    def __init__(self, service: SpeechService) -> None:
        self._service = service
        self._open: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """End every connection."""
        for task in self._open:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its opening to its end."""
        peer = writer.get_extra_info("peername")
        caller = Caller(id=str(peer[0]) if peer else "local", rights=frozenset({"speak"}))
        session = _Session(self._service, caller, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with self._service.socket_of(caller.id):
                await session.run()
        except HttpProblem as problem:  # too many connections
            with contextlib.suppress(OSError, TimeoutError):
                await session.tell("error", {"text": str(problem), "code": problem.code})
        except (OSError, TimeoutError, asyncio.IncompleteReadError):  # _Ended among them
            pass
        except asyncio.CancelledError:  # the server stops; asyncio's streams would report it as a fault
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Session:
    def __init__(
        self,
        service: SpeechService,
        caller: Caller,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._service = service
        self._caller = caller
        self._reader = reader
        self._writer = writer
        self._id = f"wyoming_{token_hex(8)}"
        self._spoken = 0
        self._cutter: SentenceCutter | None = None
        """Of the text that is coming; None outside synthesize-start and -stop."""
        self._voice: dict[str, Any] = {}

    async def run(self) -> None:
        """Answer events until the client leaves."""
        while True:
            kind, data = await self._event()
            try:
                await self._answer(kind, data)
            except (SonantError, HttpProblem, ValidationError) as error:
                if isinstance(error, ValidationError):
                    error = from_validation(error.errors())
                body = describe_error(error)[1]
                log.info("wyoming %s refused: %s", self._id, body["code"])
                await self.tell("error", {"text": body["message"], "code": body["code"]})
                if kind == "synthesize":  # Home Assistant passes over errors, and waits for this
                    await self.tell("audio-stop", {})
                if kind == "synthesize-stop":
                    await self.tell("synthesize-stopped", {})

    async def _answer(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "describe":
            await self.tell("info", self._info())
        elif kind == "ping":
            await self.tell("pong", {"text": data.get("text")})
        elif kind == "synthesize" and self._cutter is None:
            # While text is coming in pieces, Home Assistant also sends the whole for servers of old.
            await self._say(_text(data), _voice(data))
        elif kind == "synthesize-start":
            self._cutter, self._voice = SentenceCutter(), _voice(data)
        elif kind == "synthesize-chunk" and self._cutter is not None:
            text = _text(data)
            self._service.check_text(text)
            for sentence in self._cutter.push(text):
                await self._say(sentence, self._voice)
        elif kind == "synthesize-stop" and self._cutter is not None:
            cutter, self._cutter = self._cutter, None
            for sentence in cutter.flush():
                await self._say(sentence, self._voice)
            await self.tell("synthesize-stopped", {})
        # Other events are of other services; the protocol asks to pass over them.

    async def _say(self, text: str, voice: dict[str, Any]) -> None:
        manner = Manner.model_validate(voice)
        self._spoken += 1
        async with self._service.speaking(
            manner,
            text,
            caller=self._caller,
            request_id=f"{self._id}-{self._spoken}",
            arrived=time.monotonic(),
            response_format="pcm",
        ) as speaking:
            form = {"rate": speaking.sample_rate, "width": 2, "channels": 1}
            await self.tell("audio-start", {**form, "timestamp": 0})
            made = 0
            is_final = False
            while not is_final:
                chunk = await self._next(speaking)
                is_final = chunk.is_final
                if len(chunk.samples):
                    stamp = made * 1000 // speaking.sample_rate
                    sound = to_int16(chunk.samples).tobytes()
                    await self.tell("audio-chunk", {**form, "timestamp": stamp}, sound)
                    made += len(chunk.samples)
                    speaking.sent()
            await self.tell("audio-stop", {"timestamp": made * 1000 // speaking.sample_rate})

    async def _next(self, speaking: Speaking) -> AudioChunk:
        """The next chunk; a client that leaves meanwhile ends the work."""
        task = asyncio.ensure_future(speaking.next())
        try:
            while not (await asyncio.wait({task}, timeout=WATCH_SECONDS))[0]:
                if self._reader.at_eof() or self._writer.is_closing():
                    raise _Ended
            return task.result()
        finally:
            task.cancel()

    def _info(self) -> dict[str, Any]:
        attribution = {"name": "Sonant", "url": ""}
        about = {"attribution": attribution, "installed": True, "version": sonant.__version__}
        voices = []
        for entry in list_entries(self._service, None, self._caller):
            spec = self._service.pool.spec(entry["models"][0])
            names = spec.languages if spec is not None else ()
            languages = [_CODES.get(name.lower(), name) for name in names] or ["en"]
            voices.append({"name": entry["id"], "description": entry["id"], "languages": languages, **about})
        program = {
            "name": "sonant",
            "description": "Sonant's voices",
            "voices": voices,
            "supports_synthesize_streaming": True,
            **about,
        }
        others: dict[str, list[Any]] = {
            kind: [] for kind in ("asr", "handle", "intent", "wake", "mic", "snd")
        }
        return {"tts": [program], **others}

    async def tell(self, kind: str, data: dict[str, Any], payload: bytes = b"") -> None:
        """Send an event; a client that takes nothing for too long is dropped."""
        body = json.dumps(data).encode()
        head = {"type": kind, "version": VERSION, "data_length": len(body)}
        if payload:
            head["payload_length"] = len(payload)
        self._writer.write(json.dumps(head).encode() + b"\n" + body + payload)
        async with asyncio.timeout(self._service.settings.stall_seconds):
            await self._writer.drain()

    async def _event(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(IDLE_SECONDS):
            first = await self._reader.readexactly(1)
        if first == b"\n":  # a line without an event: another would be waited for
            raise _Ended
        async with asyncio.timeout(EVENT_SECONDS):
            try:
                line = first + await self._reader.readuntil(b"\n")
                head = json.loads(line)
                if not isinstance(head, dict) or not isinstance(head.get("type"), str):
                    raise _Ended
                data = head.get("data") or {}
                if not isinstance(data, dict):
                    raise _Ended
                length, payload = int(head.get("data_length") or 0), int(head.get("payload_length") or 0)
                if len(line) > MOST_LINE or not (0 <= length <= MOST_DATA and 0 <= payload <= MOST_DATA):
                    raise _Ended
                if length:
                    data = {**data, **json.loads(await self._reader.readexactly(length))}
                await self._reader.readexactly(payload)
            except (
                ValueError, TypeError, OverflowError, RecursionError, asyncio.LimitOverrunError
            ) as error:  # fmt: skip
                raise _Ended from error
        return head["type"], data


def _text(data: dict[str, Any]) -> str:
    text = data.get("text")
    if not isinstance(text, str):
        raise RequestError("an event has no text to say; expected a string as `text`.", field="text")
    if data.get("text_format") not in (None, "text"):
        raise RequestError(f"the text format is {data['text_format']!r}; expected text.", field="text_format")
    return text


def _voice(data: dict[str, Any]) -> dict[str, Any]:
    voice = data.get("voice")
    if not isinstance(voice, dict):
        return {}
    wanted = {"voice": voice.get("name"), "language": voice.get("language")}
    return {name: value for name, value in wanted.items() if isinstance(value, str)}
