"""vLLM-Omni's WebSocket messages, for programs that were written for its server.

client: session.config (input.text* input.done)* session.close
server: (audio.start sound* audio.done)* session.done, for each input.done
with word_timestamps sound comes in messages, audio.chunk, the last of which has the times
Source: vllm_omni/entrypoints/openai/serving_speech_stream.py of July 2026.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from typing import Any, Literal

from pydantic import Field, ValidationError

from sonant.audio.encode import open_encoder
from sonant.errors import RequestError, SonantError
from sonant.server.captions import TimedWord, WordClock
from sonant.server.delivery import collect, encode
from sonant.server.live import SentenceCutter
from sonant.server.problems import HttpProblem, describe_error, from_validation
from sonant.server.schemas import Manner, ResponseFormat
from sonant.server.service import SpeechService
from sonant.server.wire import Wire, until_one_ends

log = logging.getLogger(__name__)

AHEAD = 16
"""Messages read while one utterance is spoken, so that a client's departure is seen."""


class Config(Manner):
    """`session.config`: everything about the speech but its text."""

    type: Literal["session.config"]
    response_format: ResponseFormat = "wav"
    stream_audio: bool = False
    split_granularity: Literal["none", "sentence", "clause"] = Field(
        default="none", description="none: one request for each input.done. clause is read as sentence."
    )

    word_timestamps: bool = Field(
        default=False, description="When each word is said; needs stream_audio and response_format pcm."
    )


class OmniSession:
    """A session in vLLM-Omni's protocol: one utterance after another, each with its own outcome."""

    def __init__(self, service: SpeechService, wire: Wire) -> None:
        self._service = service
        self._wire = wire
        self._config = Config(type="session.config")
        """As if nothing had been said, where the first one was refused."""
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue(AHEAD)
        self._cutter = SentenceCutter()
        self._text = ""
        self._utterance = 0
        self._sentence = 0

    async def run(self) -> None:
        """Serve until session.close, or until the client is gone."""
        await until_one_ends(self._read(), self._serve())

    async def _read(self) -> None:
        """Take messages until the client leaves (WebSocketDisconnect)."""
        while True:
            await self._messages.put(await self._wire.receive())

    async def _serve(self) -> None:
        while True:
            self._wire.is_speaking = not self._messages.empty()
            message = await self._messages.get()
            self._wire.is_speaking = True
            kind = message.get("type")
            if kind == "session.close":
                return
            try:
                await self._take(str(kind), message)
            except ValidationError as error:
                await self._tell_error(from_validation(error.errors()))
            except (SonantError, HttpProblem) as error:
                await self._tell_error(error)

    async def _take(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "session.config":
            if self._text or self._cutter.pending or self._sentence:
                raise RequestError("session.config came within an utterance; send input.done first.")
            config = Config.model_validate(message)
            self._service.pool.resolve(config.model)
            self._config = config
        elif kind == "input.text":
            text = message.get("text", "")
            if not isinstance(text, str):
                raise RequestError("input.text has no string as its text.", field="text")
            self._check_length(text)
            if self._config.split_granularity == "none":
                self._text += text
            else:
                for sentence in self._cutter.push(text):
                    await self._say(sentence)
        elif kind == "input.done":
            rest, self._text = [self._text] if self._text.strip() else [], ""
            for sentence in rest or self._cutter.flush():
                await self._say(sentence)
            count, self._sentence = self._sentence, 0
            await self._wire.tell(
                {"type": "session.done", "utterance_index": self._utterance, "total_sentences": count}
            )
            self._utterance += 1
        else:
            raise RequestError(
                f"there is no message {kind[:60]!r}; expected input.text, input.done, session.config or "
                "session.close.",
                field="type",
            )

    def _check_length(self, text: str) -> None:
        most = self._service.settings.max_input
        if len(self._text) + self._cutter.pending + len(text) > most:
            self._text = ""
            self._cutter.flush()
            raise HttpProblem(400, "input_too_long", f"an utterance has at most {most:,} characters.")

    async def _tell_error(self, error: SonantError | HttpProblem) -> None:
        body = describe_error(error)[1]
        await self._wire.tell({"type": "error", "message": body["message"], "error": body})

    async def _say(self, text: str) -> None:
        config = self._config
        place = {"utterance_index": self._utterance, "sentence_index": self._sentence}
        self._sentence += 1
        out = _Outcome(self._wire, place, text, config)
        failed = False
        try:
            if config.word_timestamps and not (config.stream_audio and config.response_format == "pcm"):
                raise RequestError(
                    "word_timestamps came without stream_audio true and response_format pcm; it needs both.",
                    field="word_timestamps",
                )
            async with self._service.speaking(
                config,
                text,
                caller=self._wire.caller,
                request_id=f"{self._wire.id}-{self._utterance}-{place['sentence_index']}",
                arrived=time.monotonic(),
                streaming=config.stream_audio,
                response_format=config.response_format,
            ) as speaking:
                encoder = open_encoder(config.response_format, speaking.sample_rate)
                out.sample_rate = encoder.sample_rate
                if not config.stream_audio:
                    await out.sound(await collect(speaking, encoder))
                is_final = not config.stream_audio
                while not is_final:
                    chunk = await speaking.next()
                    is_final = chunk.is_final
                    data = await encode(encoder, chunk.samples, is_final=is_final)
                    await out.sound(data)
                    if data:
                        speaking.sent()
                    if out.clock is not None:
                        out.words += await out.clock.take(chunk)
                await out.tell_words()
        except (SonantError, HttpProblem) as error:
            failed = True
            log.info("utterance %s failed: %s", self._wire.id, describe_error(error)[1]["code"])
            await self._tell_error(error)
        await out.start()
        await self._wire.tell({"type": "audio.done", **place, "total_bytes": out.sent, "error": failed})


class _Outcome:
    """What is told of one sentence: its start once, its sound as bytes or in messages, its words."""

    def __init__(self, wire: Wire, place: dict[str, int], text: str, config: Config) -> None:
        self._wire = wire
        self._place = place
        self._start = {
            "type": "audio.start",
            **place,
            "sentence_text": text.strip(),
            "format": config.response_format,
        }
        if config.word_timestamps:
            self._start["word_timestamps"] = True
        self._is_pcm = config.response_format == "pcm"
        self._is_started = False
        self._chunks = 0
        self.clock = WordClock() if config.word_timestamps else None
        self.words: list[TimedWord] = []
        self.sample_rate = 0
        self.sent = 0

    async def start(self) -> None:
        """Tell that sound begins, unless that was told."""
        if not self._is_started:
            self._is_started = True
            rate = (
                {"sample_rate": self.sample_rate, "channels": 1} if self._is_pcm and self.sample_rate else {}
            )
            await self._wire.tell({**self._start, **rate})

    async def sound(self, data: bytes | bytearray) -> None:
        """Send sound, if there is any."""
        if not data:
            return
        await self.start()
        if self.clock is None:
            await self._wire.sound(data)
        else:
            await self._chunk(data, None)
        self.sent += len(data)

    async def tell_words(self) -> None:
        """Send the words' times, in milliseconds of the sentence, with a chunk that has no sound."""
        if self.clock is not None:
            await self.start()
            times = [
                {"word": w.word, "start_ms": round(1000 * w.start), "end_ms": round(1000 * w.end)}
                for w in self.words
            ]
            await self._chunk(b"", times)

    async def _chunk(self, data: bytes | bytearray, times: list[dict[str, Any]] | None) -> None:
        start, end = (
            round(1000 * count / 2 / self.sample_rate) for count in (self.sent, self.sent + len(data))
        )
        await self._wire.tell(
            {
                "type": "audio.chunk",
                **self._place,
                "chunk_id": self._chunks,
                "chunk_start_ms": start if data else 0,
                "chunk_end_ms": end,
                "sample_rate": self.sample_rate,
                "channels": 1,
                "audio_b64": base64.b64encode(data).decode(),
                "timestamps": times,
            }
        )
        self._chunks += 1
