"""Answers that leave while they are made: bytes of a sound file, or server-sent events.

A task of its own listens for the client's departure, so work stops also while nothing is being sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import soxr
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sonant.audio.encode import Encoder, open_encoder
from sonant.errors import SonantError
from sonant.request.audio import Samples
from sonant.server.auth import caller_of
from sonant.server.captions import TimedWord, WordClock, captions
from sonant.server.problems import HttpProblem, describe_error
from sonant.server.schemas import CaptionedBody, SpeechBody
from sonant.server.service import Speaking, SpeechService

log = logging.getLogger(__name__)

KNOWN_AT_THE_END = ("flac",)
"""Formats whose readers want the length at the start of the file: libsndfile opens no FLAC without it."""
MOST_NAMES = 20
PIECE = 65_536
"""Bytes handed to the connection at once, so that a slow client is seen to move."""
SOUND_PIECE = 3 * 16_384
"""Bytes of sound that become one piece of base64 without an end mark."""
LONGEST_HEADER = 1500


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How sound is packed beyond its format: Hz and bits a second of the file, None as the format has it."""

    rate: int | None = None
    bit_rate: int | None = None


class SpeechAnswer(Response):
    """The answer to a request that speaks: one body, or the turns of a dialogue one after another."""

    def __init__(
        self,
        service: SpeechService,
        turns: SpeechBody | Sequence[SpeechBody],
        request: Request,
        packing: Packing | None = None,
    ) -> None:
        super().__init__()
        self._service = service
        self._turns = (turns,) if isinstance(turns, SpeechBody) else tuple(turns)
        self._body = self._turns[0]
        self._packing = packing if packing is not None else Packing()
        self._caller = caller_of(request.scope)
        self._id: str = request.state.request_id
        self._arrived: float = request.state.arrived
        self._send: Send
        self._encoder: Encoder | None = None
        self._clock = WordClock() if self._body.timestamps == "word" else None
        self._words: list[TimedWord] = []
        """Those that are known and not told yet."""
        self._is_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak until the end, an error, or the client's departure."""
        self._send = send
        gone = asyncio.create_task(_until_gone(receive))
        speak = asyncio.create_task(self._speak())
        try:
            await asyncio.wait({gone, speak}, return_when=asyncio.FIRST_COMPLETED)
            if speak.done():
                speak.result()
        finally:
            for task in (gone, speak):
                task.cancel()
            await asyncio.wait({gone, speak})

    async def _speak(self) -> None:
        body = self._body
        is_whole = not body.stream or body.response_format in KNOWN_AT_THE_END
        try:
            if body.stream_format == "sse":
                await self._events()
            elif self._clock is not None:
                await self._timed()
            elif is_whole:
                await self._whole()
            else:
                await self._bytes()
        except (SonantError, HttpProblem) as error:
            if not self._is_started:
                raise
            if body.stream_format == "sse":
                await self._event({"type": "speech.audio.error", "error": describe_error(error)[1]})
                await self._write(b"data: [DONE]\n\n", last=True)
            else:
                # The status has left already: an answer without its end mark is an error to clients.
                log.warning("request %s broke off: %s", self._id, describe_error(error)[1]["code"])
        except TimeoutError:
            log.warning("request %s broke off: its client took nothing for too long", self._id)

    async def _pieces(self) -> AsyncGenerator[tuple[Speaking, bytes, bool]]:
        """Who speaks, bytes of the file, and whether they are the last; turn by turn, through one encoder."""
        if len(self._turns) > 1:  # a wrong name in the middle is told before the first word
            await self._service.check_voices(self._turns, self._caller)
        for number, body in enumerate(self._turns):
            async with self._service.speaking(
                body,
                body.input,
                caller=self._caller,
                request_id=self._id if len(self._turns) == 1 else f"{self._id}-{number}",
                arrived=self._arrived,
                streaming=body.stream,
                response_format=body.response_format,
            ) as speaking:
                if self._encoder is None:
                    rates = {"rate": self._packing.rate, "bit_rate": self._packing.bit_rate}
                    self._encoder = open_encoder(body.response_format, speaking.sample_rate, **rates)
                    first_rate = speaking.sample_rate
                voice = Resampler(speaking.sample_rate, first_rate)
                is_final = False
                while not is_final:
                    chunk = await speaking.next()
                    is_final = chunk.is_final
                    is_last = is_final and number == len(self._turns) - 1
                    if self._clock is not None:
                        self._words += await self._clock.take(chunk)
                    samples = voice.take(chunk.samples, is_final=is_final)
                    yield speaking, await encode(self._encoder, samples, is_final=is_last), is_last

    async def _bytes(self) -> None:
        async with aclosing(self._pieces()) as all_pieces:
            async for speaking, data, is_last in all_pieces:
                await self._start(speaking)
                await self._write(data, last=is_last)
                if data:
                    speaking.sent()

    async def _file(self) -> tuple[Speaking, bytearray, list[dict[str, Any]]]:
        """The finished file with true lengths in its header, and what the engine did on its own."""
        file = bytearray()
        guards: list[dict[str, Any]] = []
        async with aclosing(self._pieces()) as all_pieces:
            async for speaking, data, _ in all_pieces:
                file += data
                guards = speaking.guards()
        assert self._encoder is not None
        return speaking, _with_final_header(file, self._encoder), guards

    async def _whole(self) -> None:
        speaking, data, guards = await self._file()
        await self._start(speaking, length=len(data), guards=guards)
        await self._write(data, last=True)
        speaking.sent()

    async def _timed(self) -> None:
        """Sound and words in one JSON document."""
        speaking, sound, guards = await self._file()
        assert self._encoder is not None
        document = self._document(self._encoder, self._words)
        length = sum(map(len, json_pieces(document, sound)))
        await self._start(speaking, media_type="application/json", length=length, guards=guards)
        for piece in json_pieces(document, sound):
            await self._write(piece, last=False)
        await self._write(b"", last=True)
        speaking.sent()

    def _document(self, encoder: Encoder, words: Sequence[TimedWord]) -> dict[str, Any]:
        """What is told beside the sound."""
        body = self._body
        if not isinstance(body, CaptionedBody):
            rate = {"format": body.response_format, "sample_rate": encoder.sample_rate}
            return {**rate, "words": [word.public() for word in words]}
        stamps = [{"word": w.word, "start_time": w.start, "end_time": w.end} for w in words]
        document: dict[str, Any] = {"audio_format": encoder.format.media_type, "timestamps": stamps}
        if body.caption_format != "json":
            document["captions"] = captions(words, body.caption_format)
        return document

    async def _events(self) -> None:
        async with aclosing(self._pieces()) as all_pieces:
            async for speaking, data, is_last in all_pieces:
                await self._start(speaking, media_type="text/event-stream; charset=utf-8")
                if data:
                    audio = base64.b64encode(data).decode()
                    await self._event({"type": "speech.audio.delta", "audio": audio})
                    speaking.sent()
                if self._words:
                    words, self._words = [word.public() for word in self._words], []
                    await self._event({"type": "speech.audio.words", "words": words})
                if is_last:
                    done = {
                        "type": "speech.audio.done",
                        "usage": usage(speaking),
                        "guards": speaking.guards(),
                    }
                    await self._event(done)
        await self._write(b"data: [DONE]\n\n", last=True)

    async def _event(self, content: dict[str, Any]) -> None:
        await self._write(f"data: {json.dumps(content)}\n\n".encode(), last=False)

    async def _start(
        self,
        speaking: Speaking,
        *,
        media_type: str | None = None,
        length: int | None = None,
        guards: Sequence[dict[str, Any]] = (),
    ) -> None:
        if self._is_started:
            return
        self._is_started = True
        encoder = self._encoder
        assert encoder is not None
        form = encoder.format
        headers = {
            "Content-Type": media_type or form.media_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Sample-Rate": str(encoder.sample_rate),
            "X-Sonant-Model": quote(speaking.record.model),
            "X-Sonant-Voice": quote(speaking.record.voice),
            "X-Sonant-Seed": str(speaking.record.seed),
        }
        if speaking.unused:
            headers["X-Sonant-Warning"] = warning(speaking.unused)
        if media_type is None:
            headers["Content-Disposition"] = f'inline; filename="speech{form.suffixes[0]}"'
        if (
            length is not None
        ):  # all is made: what the engine did on its own is known before the headers leave
            headers["Content-Length"] = str(length)
            headers["X-Sonant-Guards"] = ", ".join(sorted({guard["kind"] for guard in guards})) or "none"
            unspoken = [guard["message"] for guard in guards if guard["kind"] == "unspeakable"]
            if unspoken:
                headers["X-Sonant-Unspoken"] = quote("; ".join(unspoken)[:LONGEST_HEADER], safe=" ,;:.")
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _write(self, data: bytes | bytearray, *, last: bool) -> None:
        stall = self._service.settings.stall_seconds
        for begin in range(0, len(data), PIECE):
            async with asyncio.timeout(stall):
                piece = bytes(data[begin : begin + PIECE])
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if last:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def json_pieces(document: Mapping[str, Any], sound: bytes | bytearray) -> Iterator[bytes]:
    """A document and `audio`, the sound in base64, as JSON piece by piece: an hour of sound in one string
    would hold the interpreter for a second."""
    rest = json.dumps(document)
    yield b'{"audio": "'
    for begin in range(0, len(sound), SOUND_PIECE):
        yield base64.b64encode(sound[begin : begin + SOUND_PIECE])
    yield b'"' + (f", {rest[1:]}" if document else "}").encode()


def _with_final_header(file: bytearray, encoder: Encoder) -> bytearray:
    header = encoder.final_header()
    file[: len(header)] = header
    return file


def warning(unused: tuple[str, ...]) -> str:
    """The header that names fields without effect; senders choose the names, so it is bounded and ASCII."""
    shown = [quote(name[:80], safe=" ()?._-") for name in unused[:MOST_NAMES]]
    more = len(unused) - len(shown)
    return "ignored fields: " + ", ".join(shown) + (f", and {more} more" if more else "")


class Resampler:
    """A turn's samples at the rate of the first turn; nothing happens to those that have it."""

    def __init__(self, own: int, wanted: int) -> None:
        self._stream = soxr.ResampleStream(own, wanted, 1, dtype="float32") if own != wanted else None

    def take(self, samples: Samples, *, is_final: bool) -> Samples:
        """Samples that are ready after these."""
        return samples if self._stream is None else self._stream.resample_chunk(samples, last=is_final)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def encode(encoder: Encoder, samples: Samples, *, is_final: bool) -> bytes:
    """Bytes of these samples and, at the end, of what the encoder still holds; off the event loop."""

    def work() -> bytes:
        data = encoder.encode(samples) if len(samples) else encoder.encode(np.zeros(0, np.float32))
        return data + encoder.finish() if is_final else data

    return await asyncio.to_thread(work)


def usage(speaking: Speaking) -> dict[str, int]:
    """OpenAI's token counts: characters taken, and frames of speech made."""
    stream = speaking.chunks.stream
    made = int(stream.timings.get("frames", 0))
    taken = speaking.record.characters
    return {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made}


async def collect(speaking: Speaking, encoder: Encoder) -> bytearray:
    """The whole finished file, with true lengths in its header."""
    file = bytearray()
    is_final = False
    while not is_final:
        chunk = await speaking.next()
        is_final = chunk.is_final
        file += await encode(encoder, chunk.samples, is_final=is_final)
    speaking.sent()
    return _with_final_header(file, encoder)
