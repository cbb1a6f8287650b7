"""Text in and sound out at the same time, over one WebSocket.

client: start? (text | flush | cancel)* done        server: started (segment sound* error?)* done | error

What goes wrong with one utterance is told as an error with its `segment`, and the session goes on; a message
that is none of the protocol's ends it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from sonant.audio.encode import Encoder, open_encoder
from sonant.audio.loudness import Leveller
from sonant.engine.stream import NO_SAMPLES
from sonant.errors import CancelledError, RequestError, SonantError
from sonant.request.seeds import segment_seed
from sonant.request.speech import TextFeed
from sonant.server.captions import WordClock
from sonant.server.delivery import encode, warning
from sonant.server.problems import HttpProblem, describe_error, from_validation
from sonant.server.schemas import Body, Manner, ResponseFormat
from sonant.server.service import SpeechService
from sonant.server.wire import Wire, until_one_ends
from sonant.text.segment import segment, sentences

log = logging.getLogger(__name__)

USUAL_PACE = 15.0
"""Characters a second at which English is read, about."""
FEED_CHARACTERS = 600
"""Of one utterance that the model itself takes word by word; the next sentence then opens another."""
LONGEST_FED = 2_400
"""Of one whose text has no end: what comes after the next blank opens another, or each word would cost all
before it."""
LONGEST_FED_WORD = 600
"""Characters that are waited for a blank; there are languages without."""
_SENTENCE_END = re.compile(r"[.!?…。！？]\s*$")
_HAS_WORD = re.compile(r"\w")
_BLANK = re.compile(r"\s")
LONGEST_SENTENCE = 600
"""Characters after which a sentence without an end is cut at the best place."""


class Start(Manner):
    """The first message, if defaults do not do: everything about the speech but its text."""

    type: Literal["start"]
    response_format: ResponseFormat = "pcm"
    timestamps: Literal["none", "word"] = Field(
        default="none", description="word: a message `words` after each segment, in seconds of the session."
    )
    text_mode: Literal["sentence", "model"] = Field(
        default="sentence", description="model: the model itself takes the text word by word (text_stream)."
    )


class Text(Body):
    """More text; it may end anywhere, also within a word."""

    type: Literal["text"]
    text: str


class Bare(Body):
    """flush: speak what is there. done: no more text will come."""

    type: Literal["flush", "done"]


class Cancel(Body):
    """Be silent now and forget the rest; the answer tells how much of the text was heard."""

    type: Literal["cancel"]
    played_ms: float | None = Field(
        default=None, ge=0, description="Sound played since the start or the last cancel; all that was sent."
    )


@dataclass
class Heard:
    """One utterance as a listener gets it."""

    text: str
    seconds: float = 0.0
    is_whole: bool = False


def characters_heard(utterances: Sequence[Heard], played: float | None) -> int:
    """Characters of the utterances' texts that were heard in `played` seconds, up to the end of a word.

    Within an utterance time is shared out by characters; one that was still being made is taken to go on at
    the pace of those before it.
    """
    done = [one for one in utterances if one.is_whole and one.seconds]
    pace = sum(len(one.text) for one in done) / sum(one.seconds for one in done) if done else USUAL_PACE
    left = sum(one.seconds for one in utterances) if played is None else played
    count = 0
    for one in utterances:
        expected = one.seconds if one.is_whole else max(one.seconds, len(one.text) / pace)
        if one.is_whole and left >= expected - 0.001:
            count += len(one.text)
            left -= expected
            continue
        part = int(len(one.text) * min(1.0, left / expected)) if expected > 0 else 0
        ends = [match.end() for match in re.finditer(r"\w+\W*", one.text) if match.end() <= part]
        return count + (ends[-1] if ends else 0)
    return count


class SentenceCutter:
    """Cuts arriving text into sentences; gives each as soon as the text after it shows that it is over."""

    def __init__(self) -> None:
        self._pending = ""

    @property
    def pending(self) -> int:
        """Characters held back."""
        return len(self._pending)

    def push(self, text: str) -> list[str]:
        """Sentences complete with this text."""
        self._pending += text
        *ready, self._pending = sentences(self._pending) or [""]
        if len(self._pending) > LONGEST_SENTENCE:
            *parts, last = [part.text for part in segment(self._pending, limit=LONGEST_SENTENCE)]
            ready += parts
            self._pending = last
        return [sentence for sentence in ready if sentence.strip()]

    def flush(self) -> list[str]:
        """The rest, whether complete or not."""
        rest, self._pending = self._pending, ""
        return [rest] if rest.strip() else []


class LiveSession:
    """A session in Sonant's own protocol."""

    def __init__(self, service: SpeechService, wire: Wire) -> None:
        self._service = service
        self._wire = wire
        self._manner = Manner.model_validate({})
        self._format: ResponseFormat = "pcm"
        self._by_model = False
        self._clock: WordClock | None = None
        self._feed: TextFeed | None = None
        self._fed = 0
        """Characters of the open feed."""
        self._fed_texts: dict[TextFeed, str] = {}
        """Of every feed that is spoken or waits."""
        self._fed_in_all = 0
        self._encoder: Encoder | None = None
        self._leveller: Leveller | None = None
        """Of the whole session: what was heard of one sentence levels the next."""
        self._cutter = SentenceCutter()
        self._sentences: asyncio.Queue[str | TextFeed | None] = asyncio.Queue()
        self._queued = 0
        self._spoken = 0
        self._current: asyncio.Task[None] | None = None
        self._heard: list[Heard] = []
        """Utterances since the start or the last cancel."""
        self._usage = [0, 0]
        self._guards: list[dict[str, Any]] = []
        self._has_text = False
        self._is_done = False

    async def run(self) -> None:
        """Serve the socket until the client is done or gone."""
        await until_one_ends(self._read(), self._speak())

    # -- from the client ----------------------------------------------------------------------

    async def _read(self) -> None:
        """Take messages until the client leaves (WebSocketDisconnect) or errs."""
        while True:
            message = await self._wire.receive()
            kind = message.get("type")
            try:
                if kind == "start":
                    await self._start(Start.model_validate(message))
                elif kind == "text":
                    self._take(Text.model_validate(message).text)
                elif kind == "cancel":
                    await self._cancel(Cancel.model_validate(message).played_ms)
                else:
                    kind = Bare.model_validate(message).type
                    self._flush()
                    if kind == "done" and not self._is_done:
                        self._is_done = True
                        self._sentences.put_nowait(None)
            except ValidationError as error:
                raise from_validation(error.errors()) from error

    async def _start(self, start: Start) -> None:
        if self._has_text:
            raise RequestError("start came after text; it must be the first message.", field="type")
        self._format = start.response_format
        self._by_model = start.text_mode == "model"
        self._clock = WordClock() if start.timestamps == "word" else None
        values = start.model_dump(
            exclude={"type", "response_format", "text_mode", "timestamps"}, exclude_unset=True
        )
        self._manner = Manner.model_validate(values)
        self._leveller = None
        self._service.pool.resolve(self._manner.model)

    def _take(self, text: str) -> None:
        if self._is_done:
            raise RequestError("text came after done. Open another stream.", field="type")
        self._has_text = True
        if (
            self._queued + self._fed_in_all + self._cutter.pending + len(text)
            > self._service.settings.max_input
        ):
            raise HttpProblem(
                400,
                "input_too_long",
                f"more than {self._service.settings.max_input:,} characters wait to be spoken. Send less.",
                param="text",
            )
        if not self._by_model:
            self._put(self._cutter.push(text))
            return
        while text:
            piece, text = self._cut_for_feed(text)
            if piece and not self._feed_on(piece):
                return
            if text:
                self._close_feed()

    def _cut_for_feed(self, text: str) -> tuple[str, str]:
        """What of the text still belongs to the open utterance, and what opens another."""
        room = LONGEST_FED - self._fed
        if len(text) <= room:
            return text, ""
        blank = _BLANK.search(text, max(0, room))
        end = len(text) if blank is None else blank.start()
        end = min(end, max(0, room + LONGEST_FED_WORD))
        return text[:end], text[end:]

    def _feed_on(self, text: str) -> bool:
        """Feed the utterance that is open, or a new one. False where the text is refused."""
        if self._feed is None:
            self._feed, self._fed = TextFeed(), 0
            self._sentences.put_nowait(self._feed)
        self._fed += len(text)
        self._fed_in_all += len(text)
        self._fed_texts[self._feed] = self._fed_texts.get(self._feed, "") + text
        try:
            self._feed.put(text)
        except RequestError as error:  # it concerns this utterance: what comes next opens another
            self._feed.fail(error)
            self._feed, self._fed = None, 0
            return False
        if self._fed > FEED_CHARACTERS and _SENTENCE_END.search(text):
            self._close_feed()
        return True

    def _flush(self) -> None:
        self._put(self._cutter.flush())
        self._close_feed()

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
        self._feed, self._fed = None, 0

    def _forget(self, feed: TextFeed) -> str:
        """The feed's text, which counts no more."""
        text = self._fed_texts.pop(feed, "")
        self._fed_in_all -= len(text)
        return text

    def _put(self, made: list[str]) -> None:
        for sentence in made:
            self._queued += len(sentence)
            self._sentences.put_nowait(sentence)

    async def _cancel(self, played_ms: float | None) -> None:
        self._cutter.flush()
        self._close_feed()
        while not self._sentences.empty():
            dropped = self._sentences.get_nowait()
            if isinstance(dropped, TextFeed):
                self._forget(dropped)
        self._queued = 0
        if self._current is not None:
            self._current.cancel()
            await asyncio.wait({self._current})
        played = None if played_ms is None else played_ms / 1000
        count = characters_heard(self._heard, played)
        self._heard.clear()
        await self._wire.tell({"type": "cancelled", "characters": count})
        if self._is_done:
            self._sentences.put_nowait(None)

    # -- to the client ------------------------------------------------------------------------

    async def _speak(self) -> None:
        """Say the sentences in order until None."""
        while (sentence := await self._sentences.get()) is not None:
            if isinstance(sentence, str):
                self._queued -= len(sentence)
                if not _HAS_WORD.search(sentence):
                    continue  # "---" is passed over; the session goes on
            self._current = asyncio.create_task(self._say(sentence))
            self._wire.is_speaking = True
            try:
                await asyncio.wait({self._current})
            finally:
                self._current.cancel()
                self._wire.is_speaking = False
                task, self._current = self._current, None
            if not task.cancelled():
                task.result()
        if self._encoder is not None:
            await self._wire.sound(await encode(self._encoder, NO_SAMPLES, is_final=True))
        taken, made = self._usage
        counts = {"input_tokens": taken, "output_tokens": made, "total_tokens": taken + made}
        await self._wire.tell({"type": "speech.audio.done", "usage": counts, "guards": self._guards})

    async def _say(self, sentence: str | TextFeed) -> None:
        text = sentence if isinstance(sentence, str) else ""
        number = self._spoken
        self._spoken += 1
        manner = self._manner
        if manner.seed is not None:
            manner = manner.model_copy(update={"seed": segment_seed(manner.seed, number)})
        arrived = time.monotonic()
        heard = Heard(text)
        self._heard.append(heard)
        try:
            async with self._service.speaking(
                manner,
                text,
                caller=self._wire.caller,
                request_id=f"{self._wire.id}-{number}",
                arrived=arrived,
                response_format=self._format,
                text_feed=None if isinstance(sentence, str) else sentence,
            ) as speaking:
                self._leveller = speaking.leveller = self._leveller or speaking.leveller
                if self._encoder is None:
                    self._encoder = open_encoder(self._format, speaking.sample_rate)
                    await self._wire.tell(
                        {
                            "type": "started",
                            "id": self._wire.id,
                            "model": speaking.record.model,
                            "voice": speaking.record.voice,
                            "response_format": self._format,
                            "media_type": self._encoder.format.media_type,
                            "sample_rate": self._encoder.sample_rate,
                            **({"warnings": [warning(speaking.unused)]} if speaking.unused else {}),
                        }
                    )
                await self._wire.tell({"type": "segment", "index": number, "text": text})
                self._usage[0] += len(text)
                is_final = False
                while not is_final:
                    chunk = await speaking.next()
                    is_final = chunk.is_final
                    data = await encode(self._encoder, chunk.samples, is_final=False)
                    words = [] if self._clock is None else await self._clock.take(chunk)
                    if data:
                        await self._wire.sound(data)
                        speaking.sent()
                        heard.seconds = chunk.start + len(chunk.samples) / chunk.sample_rate
                        if not isinstance(sentence, str):
                            heard.text = self._fed_texts.get(sentence, "")
                    if words:
                        told = [word.public() for word in words]
                        await self._wire.tell({"type": "words", "segment": number, "words": told})
                heard.is_whole = True
                self._usage[1] += int(speaking.chunks.stream.timings.get("frames", 0))
                self._guards += [{**guard, "segment": number} for guard in speaking.guards()]
        except CancelledError:
            return
        except (SonantError, HttpProblem) as error:
            status, content, _ = describe_error(error)
            log.info("utterance %s-%s failed: %s %s", self._wire.id, number, status, content["code"])
            await self._wire.tell({"type": "error", "segment": number, "error": content})
        finally:
            if isinstance(sentence, TextFeed):
                sentence.close()
                heard.text = self._forget(sentence)
                if self._feed is sentence:  # it ended before its text: what comes next opens another
                    self._feed, self._fed = None, 0
