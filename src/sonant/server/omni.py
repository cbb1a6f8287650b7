"""vLLM-Omni's WebSocket messages, for programs that were written for its server.

client: session.config (input.text* input.done)* session.close
server: (audio.start sound* audio.done)* session.done, for each input.done
Source: vllm_omni/entrypoints/openai/serving_speech_stream.py of July 2026.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

from pydantic import Field, ValidationError

from sonant.audio.encode import open_encoder
from sonant.errors import RequestError, SonantError
from sonant.server.delivery import collect, encode
from sonant.server.live import SentenceCutter
from sonant.server.problems import HttpProblem, describe_error, from_validation
from sonant.server.schemas import Manner, ResponseFormat
from sonant.server.service import SpeechService
from sonant.server.wire import Wire

log = logging.getLogger(__name__)


class Config(Manner):
    """`session.config`: everything about the speech but its text."""

    type: Literal["session.config"]
    response_format: ResponseFormat = "wav"
    stream_audio: bool = False
    split_granularity: Literal["none", "sentence", "clause"] = Field(
        default="none", description="none: one request for each input.done. clause is read as sentence."
    )


class OmniSession:
    """A session in vLLM-Omni's protocol: one utterance after another, each with its own outcome."""

    def __init__(self, service: SpeechService, wire: Wire) -> None:
        self._service = service
        self._wire = wire
        self._config: Config
        self._cutter = SentenceCutter()
        self._text = ""
        self._utterance = 0
        self._sentence = 0

    async def run(self) -> None:
        """Serve until session.close, or until the client is gone."""
        while True:
            message = await self._wire.receive()
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
            self._config = Config.model_validate(message)
            self._service.pool.resolve(self._config.model)
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
        start = {
            "type": "audio.start",
            **place,
            "sentence_text": text.strip(),
            "format": config.response_format,
        }
        sent = 0
        is_started = failed = False
        self._wire.is_speaking = True
        try:
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
                if config.response_format == "pcm":
                    start |= {"sample_rate": encoder.sample_rate, "channels": 1}
                if not config.stream_audio:
                    data = await collect(speaking, encoder)
                    await self._wire.tell(start)
                    is_started = True
                    await self._wire.sound(data)
                    sent = len(data)
                is_final = not config.stream_audio
                while not is_final:
                    chunk = await speaking.next()
                    is_final = chunk.is_final
                    data = await encode(encoder, chunk.samples, is_final=is_final)
                    if data and not is_started:
                        await self._wire.tell(start)
                        is_started = True
                    await self._wire.sound(data)
                    sent += len(data)
                    if data:
                        speaking.sent()
        except (SonantError, HttpProblem) as error:
            failed = True
            log.info("utterance %s failed: %s", self._wire.id, describe_error(error)[1]["code"])
            await self._tell_error(error)
        finally:
            self._wire.is_speaking = False
        if not is_started:
            await self._wire.tell(start)
        await self._wire.tell({"type": "audio.done", **place, "total_bytes": sent, "error": failed})
