"""Where asyncio meets the engine's threads, and the only place: submit, read chunks, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from sonant.engine.engine import Engine
from sonant.engine.stream import SpeechStream
from sonant.request.audio import Audio
from sonant.request.speech import AudioChunk, SpeechRequest
from sonant.request.voice import Voice
from sonant.server.one_each import OneEach


class AsyncStream:
    """One request being spoken, readable from asyncio: `async for chunk in stream`.

    Leaving the `async with` block, for whatever reason, stops the work before the model's next step.
    """

    def __init__(self, stream: SpeechStream, ready: asyncio.Event) -> None:
        self.stream = stream
        self._ready = ready

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        while True:
            chunk = await self.next()
            yield chunk
            if chunk.is_final:
                return

    async def next(self) -> AudioChunk:
        """The next chunk; raises the request's error."""
        while True:
            self._ready.clear()
            try:
                return self.stream.get(timeout=0)
            except queue.Empty:
                await self._ready.wait()


SUBMITTING = 8
"""Threads in which first sentences are prepared: so many clients may send what is hard to read."""
SHOWING = 4
"""Threads that show what would be spoken of a text."""


class EngineDesk:
    """The asyncio side of one engine, and its helper threads: some that submit, some that show what would be
    spoken of a text, however long that takes, and one that encodes voices. A client has one of each."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._submitting = ThreadPoolExecutor(SUBMITTING, thread_name_prefix="sonant-submit")
        self._to_submit = OneEach()
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="sonant-encode")
        self._to_encode = OneEach()
        self._showing = ThreadPoolExecutor(SHOWING, thread_name_prefix="sonant-show")
        self._to_show = OneEach()

    async def submit(
        self, request: SpeechRequest, *, streaming: bool, client: str | None = None, priority: int = 0
    ) -> AsyncStream:
        """Start speaking. The text is prepared off the event loop; a caller who leaves meanwhile cancels.

        `client` and `priority` are the engine's: whose turn comes next.
        """
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        work = partial(
            self.engine.submit,
            request,
            streaming=streaming,
            notify=partial(_set_from_thread, loop, ready),
            client=client,
            priority=priority,
        )
        # A hard text keeps its sender waiting, and nobody else.
        stream = await self._to_submit.in_thread(client, self._submitting, work, SpeechStream.cancel)
        return AsyncStream(stream, ready)

    async def segments(self, request: SpeechRequest, client: str) -> tuple[str, ...]:
        """How the model would cut the text."""
        work = partial(self.engine.segments, request)
        return await self._to_show.in_thread(client, self._showing, work)

    async def explain(self, request: SpeechRequest, client: str) -> dict[str, Any]:
        """What will be spoken of the text, and by which rules."""
        work = partial(self.engine.explain, request)
        return await self._to_show.in_thread(client, self._showing, work)

    async def voice_of_clip(self, audio: Audio, transcript: str | None, client: str) -> Voice:
        """The clip encoded for this model, off the event loop; the engine remembers the last few."""
        work = partial(self.engine.clone, audio, transcript=transcript)
        return await self._to_encode.in_thread(client, self._encoding, work)

    async def fitting_voice(self, voice: Voice, client: str) -> Voice | str | None:
        """A voice as this model takes it: encoded again when it was made for another and keeps its clip."""
        work = partial(self.engine.fit, voice)
        return await self._to_encode.in_thread(client, self._encoding, work)

    def close(self) -> None:
        """End the engine and the helper threads; waits for them."""
        for helper in (self._submitting, self._encoding, self._showing):
            helper.shutdown(wait=True, cancel_futures=True)
        self.engine.close()


def _set_from_thread(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(ready.set)
