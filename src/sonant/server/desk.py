"""Where asyncio meets the engine's threads, and the only place: submit, read chunks, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from sonant.engine.engine import Engine
from sonant.engine.stream import SpeechStream
from sonant.request.audio import Audio
from sonant.request.speech import AudioChunk, SpeechRequest
from sonant.request.voice import Voice


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


class _Turns:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class EngineDesk:
    """The asyncio side of one engine, and its helper threads: a few to submit, of which a client has one at a
    time, one to encode voices, and one to show what would be spoken of a text, however long that takes."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._submitting = ThreadPoolExecutor(SUBMITTING, thread_name_prefix="sonant-submit")
        self._turns: dict[str | None, _Turns] = {}
        """Of the clients who are submitting."""
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="sonant-encode")
        self._showing = ThreadPoolExecutor(1, thread_name_prefix="sonant-show")

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
        async with self._turn(client):
            future: Future[SpeechStream] = self._submitting.submit(work)
            try:
                return AsyncStream(await asyncio.wrap_future(future), ready)
            except asyncio.CancelledError:
                future.add_done_callback(_cancel_result)
                raise

    @contextlib.asynccontextmanager
    async def _turn(self, client: str | None) -> AsyncIterator[None]:
        """One text of a client at a time: a hard one keeps its sender waiting, and nobody else."""
        turns = self._turns.setdefault(client, _Turns())
        turns.users += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[client]

    async def segments(self, request: SpeechRequest) -> tuple[str, ...]:
        """How the model would cut the text."""
        return await asyncio.wrap_future(self._showing.submit(self.engine.segments, request))

    async def explain(self, request: SpeechRequest) -> dict[str, Any]:
        """What will be spoken of the text, and by which rules."""
        return await asyncio.wrap_future(self._showing.submit(self.engine.explain, request))

    async def voice_of_clip(self, audio: Audio, transcript: str | None) -> Voice:
        """The clip encoded for this model, off the event loop; the engine remembers the last few."""
        work = partial(self.engine.clone, audio, transcript=transcript)
        return await asyncio.wrap_future(self._encoding.submit(work))

    async def fitting_voice(self, voice: Voice) -> Voice | str | None:
        """A voice as this model takes it: encoded again when it was made for another and keeps its clip."""
        return await asyncio.wrap_future(self._encoding.submit(self.engine.fit, voice))

    def close(self) -> None:
        """End the engine and the helper threads; waits for them."""
        for helper in (self._submitting, self._encoding, self._showing):
            helper.shutdown(wait=True, cancel_futures=True)
        self.engine.close()


def _set_from_thread(loop: asyncio.AbstractEventLoop, ready: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(ready.set)


def _cancel_result(future: Future[SpeechStream]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().cancel()
