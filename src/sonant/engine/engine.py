"""The engine as its callers use it: requests are checked and handed in, chunks read from a bounded queue.

A full queue pauses that utterance only, a closed one frees its rows before the next step. `synthesize` is the
same with the chunks joined: there is no second code path. What speaks is `loop.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, KeysView, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np

from sonant.engine.asking import request_of
from sonant.engine.loop import Loop
from sonant.engine.model import Prompt, SpeechModel, inference
from sonant.engine.preparing import (
    Deadline,
    Source,
    first_items,
)
from sonant.engine.progress import Progress
from sonant.engine.stream import SpeechStream, join
from sonant.errors import RequestError
from sonant.native import teams
from sonant.request.audio import Audio
from sonant.request.checks import check_fed_text, check_reading, check_request
from sonant.request.explained import explain
from sonant.request.speech import AudioChunk, ModelSpec, Speech, SpeechRequest
from sonant.request.voice import Voice
from sonant.voices.casting import Casting
from sonant.voices.design import designed_voice
from sonant.voices.finding import find_voice_or_file
from sonant.voices.library import VoiceLibrary

log = logging.getLogger(__name__)


class Engine:
    """Speaks requests with one loaded model.

    slots: how many utterances run as one batch; with the model's own number of beams, each takes that many
    rows of the cache.
    queue_limit: requests waiting or running before BusyError.
    chunk_limit: chunks a reader may lag behind before its utterance pauses.
    cache_positions: cache positions that all rows together may have; None is no limit. Where the rows of a
    long text would have more, fewer utterances run at a time.
    pipelined: decode tokens to samples on a second thread while the first goes on generating. On a CPU the
    two then share the cores; None does so for models whose steps give the same on any number of threads.
    records_ahead: where a device replays recorded steps (CUDA graphs), record those of every size of batch as
    soon as there is room for them, so that no later request waits for it; a server's choice.
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        slots: int = 4,
        voices: VoiceLibrary | None = None,
        queue_limit: int = 64,
        chunk_limit: int = 8,
        cache_positions: int | None = None,
        pipelined: bool | None = None,
        records_ahead: bool = False,
    ) -> None:
        if isinstance(model, (str, os.PathLike)):
            raise RequestError(
                f"an Engine takes a loaded model; sonant.load({str(model)!r}) makes one of a name."
            )
        for name, value in (("slots", slots), ("queue_limit", queue_limit), ("chunk_limit", chunk_limit)):
            _check_count(name, value)
        if cache_positions is not None:
            _check_count("cache_positions", cache_positions)
        self.model = model
        self.spec: ModelSpec = model.spec
        self.voices = voices
        self.slots = slots
        self.queue_limit = queue_limit
        self.chunk_limit = chunk_limit
        self.cache_positions = cache_positions
        self._casting = Casting(model, voices)
        self._loop = Loop(
            model,
            slots=slots,
            queue_limit=queue_limit,
            cache_positions=cache_positions,
            pipelined=pipelined,
            records_ahead=records_ahead,
        )
        teams.release()

    # -- what callers use ---------------------------------------------------------------------

    def clone(
        self, audio: Audio | str | os.PathLike[str], *, transcript: str | None = None, name: str = ""
    ) -> Voice:
        """A voice from a clip or its path, encoded for this model; `transcript` is what the clip says."""
        if isinstance(audio, (str, os.PathLike)):
            audio = Audio.read(audio)
        try:
            return self._casting.encode(audio, transcript=transcript, name=name)
        finally:
            teams.release()

    def fit(self, voice: Voice | str | None) -> Voice | str | None:
        """A voice, or its name, as `submit` would take it: found and encoded for this model."""
        try:
            return self._casting.find(voice)
        finally:
            teams.release()

    def design(self, request: SpeechRequest, *, name: str = "") -> Voice:
        """A voice from a description: `request` is spoken by this voice-design model and becomes the
        clip and transcript of a Voice that any cloning model can use."""
        speech = self.synthesize(request)
        return designed_voice(speech, speech.guards, request, self.spec, name=name)

    def submit(
        self,
        request: SpeechRequest,
        *,
        streaming: bool = True,
        chunk_limit: int | None = None,
        notify: Callable[[], None] | None = None,
        client: Hashable = None,
        priority: int = 0,
    ) -> SpeechStream:
        """Start speaking; chunks are read from the returned stream.

        What is wrong with the request, its settings, its voice or the first thing that it says, is raised
        here, before any work; the rest of the text is prepared while it is spoken. A sentence that cannot be
        spoken is left out and told by a guard event "unspeakable". `notify` is called from the engine's
        threads whenever something can be read.

        Rows are handed back at the end of every segment (`turns.py`). Requests of one `client`, any hashable
        thing, share what one client gets; None makes each request its own. Those of a higher `priority` go
        first. Raises BusyError when the queue is full.
        """
        began = time.monotonic()
        limit = self.chunk_limit if chunk_limit is None else chunk_limit
        _check_count("chunk_limit", limit)
        self._loop.check_open()
        request, source = self._source(request)
        deadline = Deadline(request, began)
        stream = SpeechStream(
            self.spec,
            request,
            streaming=streaming,
            limit=limit if streaming else None,
            wake=self._loop.wake,
            notify=notify,
        )
        stream._submitted = began
        if source.silence is not None:
            message = f"{request.text[:60]!r} has no letter or digit to say; {source.silence:g} s of silence"
            stream._note("silence", message, 0)
            samples = np.zeros(round(source.silence * stream.sample_rate), dtype=np.float32)
            stream._deliver(samples, is_final=True, text=None)
            return stream
        progress = Progress(stream, source, client=client, priority=priority, deadline=deadline)
        if client is None:
            progress.client = progress
        progress.take(first_items(source, deadline))
        if request.text_feed is not None:
            request.text_feed.watch(partial(check_fed_text, spec=self.spec), self._loop.wake)
        stream.timings["prepare"] = time.monotonic() - began
        self._loop.enter(progress)
        return stream

    def segments(self, request: SpeechRequest) -> tuple[str, ...]:
        """How the text would be cut, without speaking it; none where it is only silence. Raises what `submit`
        would, and DeadlineError when the request's time is over."""
        began = time.monotonic()
        request, source = self._source(request)
        if source.silence is not None:
            return ()
        deadline = Deadline(request, began)
        items = first_items(source, deadline)
        while not source.is_over:
            if deadline.has_passed():
                raise deadline.error(0.0)
            items.append(source.next())
        return tuple(item.text for item in items if isinstance(item, Prompt))

    def explain(self, request: SpeechRequest) -> dict[str, Any]:
        """What will be spoken of the text, and by which rules, as plain data; see `request.explained`."""
        check_reading(request, self.spec)
        units = getattr(self.model, "units", None)
        with inference(self.model):
            return explain(request, self.spec, units=units)

    def stream(self, request: str | SpeechRequest, **settings: Any) -> SpeechStream:
        """Speak and hand out chunks as they are made: `for chunk in engine.stream("Hello.", voice="ann")`.

        `settings` are those of `sonant.request.settings` by name, where the request is a text.
        """
        return self.submit(self._asked(request, settings), streaming=True)

    async def astream(self, request: str | SpeechRequest, **settings: Any) -> AsyncGenerator[AudioChunk]:
        """`stream` for asyncio: `async for chunk in engine.astream("Hello.")`. Leaving the loop cancels."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody reads any more
                loop.call_soon_threadsafe(ready.set)

        def begin() -> SpeechStream:
            return self.submit(self._asked(request, settings), notify=notify)

        with await asyncio.to_thread(begin) as stream:
            while True:
                ready.clear()
                try:
                    chunk = stream.get(timeout=0)
                except queue.Empty:
                    await ready.wait()
                    continue
                yield chunk
                if chunk.is_final:
                    return

    @overload
    def synthesize(
        self,
        request: str | SpeechRequest,
        *,
        on_chunk: Callable[[AudioChunk], None] | None = None,
        **settings: Any,
    ) -> Speech: ...
    @overload
    def synthesize(
        self,
        request: Sequence[str | SpeechRequest],
        *,
        on_chunk: Callable[[AudioChunk], None] | None = None,
        **settings: Any,
    ) -> list[Speech]: ...
    def synthesize(
        self,
        request: str | SpeechRequest | Sequence[str | SpeechRequest],
        *,
        on_chunk: Callable[[AudioChunk], None] | None = None,
        **settings: Any,
    ) -> Speech | list[Speech]:
        """Speak the whole: `engine.synthesize("Hello.", voice="ann", speed=1.1)`.

        A list, or whatever else has an order (a table's column, a generator, a dictionary's keys), is spoken
        as a batch, as many at a time as there are slots, and gives a list. `settings` are those of
        `sonant.request.settings` by name, for texts. `on_chunk` is called with each segment as it is made.
        """
        if isinstance(request, (str, SpeechRequest)):
            return self._whole_of(self.submit(self._asked(request, settings), streaming=False), on_chunk)
        # What is neither a text nor a row of them is told as such.
        several: Iterable[Any] = request if _is_row(request) else [request]
        asked = [self._asked(one, settings) for one in several]
        room = max(1, self.queue_limit - sum(self.load))
        waiting: deque[SpeechStream] = deque()
        speeches: list[Speech] = []
        try:
            for one in asked:
                if len(waiting) >= room:
                    speeches.append(self._whole_of(waiting.popleft(), on_chunk))
                waiting.append(self.submit(one, streaming=False))
            while waiting:
                speeches.append(self._whole_of(waiting.popleft(), on_chunk))
        finally:
            for stream in waiting:
                stream.cancel()
        return speeches

    def _asked(self, request: str | SpeechRequest, settings: Mapping[str, Any]) -> SpeechRequest:
        """The request that is meant; a voice that is a file on this machine is read."""
        made = request_of(request, settings)
        if isinstance(request, str) and isinstance(made.voice, str) and Path(made.voice).is_file():
            shelf = self.voices or VoiceLibrary()
            made = replace(made, voice=find_voice_or_file(made.voice, spec=self.spec, shelf=shelf))
        return made

    def _whole_of(self, stream: SpeechStream, on_chunk: Callable[[AudioChunk], None] | None = None) -> Speech:
        pieces = []
        with stream:
            for chunk in stream:
                pieces.append(chunk.samples)
                if on_chunk is not None:
                    on_chunk(chunk)
        return join(stream, pieces)

    def __repr__(self) -> str:
        state = "closed" if self._loop.is_stopping else f"{self.load[0]} running, {self.load[1]} waiting"
        return f"<Engine: {self.spec.name} ({self.spec.family}), {self.slots} slots, {state}>"

    def close(self) -> None:
        """Cancel everything and end the threads. Nothing is spoken afterwards. Called by a `notify`, it does
        not wait until they have ended."""
        self._loop.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def load(self) -> tuple[int, int]:
        """Requests running and requests waiting."""
        return self._loop.load

    @property
    def steps(self) -> int:
        """Model steps taken so far, for tests and metrics."""
        return self._loop.steps

    def _source(self, request: SpeechRequest) -> tuple[SpeechRequest, Source]:
        """The request with its seed and its voice, and its text as it will be prepared."""
        if request.seed is None:
            request = replace(request, seed=secrets.randbits(31))
        check_request(request, self.spec)
        request = replace(request, voice=self._casting.find(request.voice))
        return request, Source(self.model, request, most=self.cache_positions)


def _is_row(what: object) -> bool:
    """Whether these are things in an order: a list, a table's column, a dictionary's keys.

    A table's own items are its heads, and those of an open file are lines, which are not what it says.
    """
    is_other = isinstance(what, (bytes, bytearray, Mapping)) or hasattr(what, "read")
    has_order = not isinstance(what, Set) or isinstance(what, KeysView)
    return isinstance(what, Iterable) and not is_other and has_order and getattr(what, "ndim", 1) == 1


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{name} is {value!r}; expected a whole number from 1.", field=name)
