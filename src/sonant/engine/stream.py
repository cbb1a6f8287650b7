"""One request being spoken, as its reader sees it: chunks in order, then the end or an error, once.

Names that begin with an underscore are for the engine. Each of these is one action under the stream's lock,
so it does not matter which of the engine's threads takes it; what the engine itself knows of a request is
in `progress.py`, and belongs to its stepping thread alone.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np

from sonant.errors import GenerationError, SonantError
from sonant.request.audio import Samples
from sonant.request.speech import AudioChunk, GuardEvent, ModelSpec, Speech, SpeechRequest

log = logging.getLogger(__name__)

NO_SAMPLES: Samples = np.zeros(0, dtype=np.float32)


class SpeechStream:
    """One request being spoken: iterate for AudioChunk, `cancel()` to stop; also a context manager.

    Leaving the `with` block or dropping the iterator early cancels. Errors of the request are raised by
    the iteration. After the last chunk `guards`, `timings`, `segments` and `seed` tell how it went.
    """

    def __init__(
        self,
        spec: ModelSpec,
        request: SpeechRequest,
        *,
        streaming: bool,
        limit: int | None,
        wake: Callable[[], None],
        notify: Callable[[], None] | None,
    ) -> None:
        self.request = request
        self.sample_rate = spec.sample_rate
        self.seed = request.seed or 0
        self.guards: list[GuardEvent] = []
        self.timings: dict[str, float] = {
            "prefill": 0.0, "generate": 0.0, "decode": 0.0, "frames": 0.0, "first_audio": 0.0, "total": 0.0,
        }  # fmt: skip
        self._texts: list[str] = []
        self._wake = wake
        self._streaming = streaming
        self._limit = limit
        self._notify = notify
        self._lock = threading.Lock()
        self._chunks: queue.SimpleQueue[AudioChunk | SonantError] = queue.SimpleQueue()
        self._submitted = time.monotonic()
        self._samples = 0
        self._index = 0
        self._is_cancelled = False
        self._is_closed = False
        self._is_read = False

    def __repr__(self) -> str:
        state = "finished" if self.is_finished else "speaking"
        return f"<SpeechStream: {self.request.text[:40]!r}, {self.produced_seconds:.2f} s made, {state}>"

    def __iter__(self) -> Iterator[AudioChunk]:
        try:
            while not self._is_read:
                yield self.get()
        finally:
            self.cancel()

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def get(self, timeout: float | None = None) -> AudioChunk:
        """The next chunk. Raises queue.Empty after `timeout` seconds, StopIteration never: after the
        final chunk a further call raises GenerationError."""
        if self._is_read:
            raise GenerationError("this stream was read to its end; submit the request again")
        item = self._chunks.get(timeout=timeout)
        if self._limit is not None and self._chunks.qsize() == self._limit - 1:
            self._wake()  # a paused utterance may go on
        if isinstance(item, SonantError):
            self._is_read = True
            raise item
        self._is_read = item.is_final
        return item

    def cancel(self) -> None:
        """Stop: the rows are free before the next step. Harmless when already finished."""
        if not self._is_closed:
            self._is_cancelled = True
            self._wake()

    @property
    def segments(self) -> tuple[str, ...]:
        """The texts of the segments prepared so far, in order; all of them once the speech has ended."""
        return tuple(self._texts)

    @property
    def produced_seconds(self) -> float:
        """Seconds of speech made so far."""
        return self._samples / self.sample_rate

    @property
    def is_finished(self) -> bool:
        """True once nothing more will be made for this request."""
        return self._is_closed

    def _has_room(self) -> bool:
        return self._limit is None or self._chunks.qsize() < self._limit

    def _is_wanted(self) -> bool:
        return not (self._is_closed or self._is_cancelled)

    def _spend(self, name: str, amount: float) -> None:
        with self._lock:
            self.timings[name] = self.timings.get(name, 0.0) + amount

    def _note(self, kind: str, message: str, segment: int) -> None:
        with self._lock:
            self.guards.append(GuardEvent(kind, message, segment))
        log.info(
            "guard %s, segment %d", kind, segment + 1
        )  # a message may quote the text, which is not logged

    def _deliver(self, samples: Samples, *, is_final: bool, text: str | None) -> None:
        with self._lock:
            if self._is_closed:
                return
            if not self.timings["first_audio"] and len(samples):
                self.timings["first_audio"] = time.monotonic() - self._submitted
            start = self._samples / self.sample_rate
            chunk = AudioChunk(samples, self.sample_rate, self._index, start, is_final, text)
            self._samples += len(samples)
            self._index += 1
            if is_final:
                self.timings["total"] = time.monotonic() - self._submitted
                self.timings["audio"] = self._samples / self.sample_rate
                self._is_closed = True
            self._chunks.put(chunk)
        self._tell()

    def _fail(self, error: SonantError) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._chunks.put(error)
        self._tell()

    def _lose(self, error: SonantError) -> None:
        """End it in a forked child: a thread of the parent may have held the lock, or have waited for the
        next chunk, and `notify` is the parent's."""
        self._lock, self._chunks = threading.Lock(), queue.SimpleQueue()
        self._is_closed = True
        self._chunks.put(error)

    def _tell(self) -> None:
        """Call `notify`. One that raises ends its own stream, and nothing else."""
        if self._notify is None:
            return
        try:
            self._notify()
        except BaseException as raised:
            self._notify = None
            error = GenerationError(
                f"what was to be told of new sound raised {type(raised).__name__}: {raised}; the request was "
                "stopped. Submit it again with a notify that raises nothing."
            )
            error.__cause__ = raised
            self._fail(error)
            self._wake()
            log.exception("the notify of a stream raised; the stream is ended")


def join(stream: SpeechStream, pieces: Sequence[Samples]) -> Speech:
    """The whole answer of a stream that was read to its end."""
    samples = np.concatenate(pieces) if pieces else NO_SAMPLES
    return Speech(
        samples,
        stream.sample_rate,
        seed=stream.seed,
        guards=tuple(stream.guards),
        timings=dict(stream.timings),
        segments=stream.segments,
    )
