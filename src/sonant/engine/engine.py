"""The engine: admits utterances to cache rows, steps them as a batch, decodes, delivers, cancels.

One thread owns the model. Callers hand in requests and read chunks from a bounded queue; a full queue
pauses that utterance only, a closed one frees its rows before the next step. `synthesize` is the same
loop with the chunks joined: there is no second code path.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from sonant import native
from sonant.engine.model import Prompt, SpeechModel
from sonant.engine.stream import NO_SAMPLES, Segment, SpeechStream, join
from sonant.errors import (
    BusyError,
    CancelledError,
    DeadlineError,
    GenerationError,
    RequestError,
    SonantError,
)
from sonant.native import teams
from sonant.nn.sampling import segment_seed
from sonant.request.audio import Audio, Samples
from sonant.request.checks import check_request, spoken_parts
from sonant.request.speech import ChunkPolicy, GuardEvent, ModelSpec, Speech, SpeechRequest
from sonant.request.voice import Voice
from sonant.voices.casting import Casting, designed_clip
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
        self.model = model
        self.spec: ModelSpec = model.spec
        self.voices = voices
        self.slots = slots
        self._rows_each = int(self.spec.sampling.get("beams") or 1)
        self.queue_limit = queue_limit
        self.chunk_limit = chunk_limit
        self._records_ahead = records_ahead
        self.cache_positions = cache_positions
        shares = getattr(model, "ignores_threads", False) and torch.get_num_threads() > 1
        self._pipelined = shares if pipelined is None else pipelined
        self._threads = torch.get_num_threads() if shares and self._pipelined else 0
        """Threads that stepping and decoding share; 0 leaves both with torch's number."""
        self._whole = _MEANWHILE if self._pipelined and self.spec.streams_by == "frame" else _WHOLE
        self._decode_queue: queue.SimpleQueue[_Decode | None] = queue.SimpleQueue()
        self._streams: list[SpeechStream] = []
        self._free: list[int] = []
        self._positions = 0
        self._condition = threading.Condition()
        self._is_awake = False
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._decode_thread: threading.Thread | None = None
        self._casting = Casting(model, voices)
        self.steps = 0
        """Model steps taken so far, for tests and metrics."""
        teams.release()

    # -- what callers use ---------------------------------------------------------------------

    def clone(self, audio: Audio, *, transcript: str | None = None, name: str = "") -> Voice:
        """A voice from a clip, encoded for this model; `transcript` is what the clip says."""
        try:
            return self._casting.encode(audio, transcript=transcript, name=name)
        finally:
            teams.release()

    def design(self, request: SpeechRequest, *, name: str = "") -> Voice:
        """A voice from a description: `request` is spoken by this voice-design model and becomes the
        clip and transcript of a Voice that any cloning model can use."""
        speech = self.synthesize(request)
        origin = {"designed_by": self.spec.name, "instruction": request.style.instruction or ""}
        clip = designed_clip(Audio(speech.samples, speech.sample_rate), speech.guards)
        return Voice(name=name, clip=clip, transcript=request.text, language=request.language, origin=origin)

    def submit(
        self,
        request: SpeechRequest,
        *,
        streaming: bool = True,
        chunk_limit: int | None = None,
        notify: Callable[[], None] | None = None,
    ) -> SpeechStream:
        """Start speaking; chunks are read from the returned stream.

        Everything wrong with the request is raised here, before any work. `notify` is called from the
        engine's thread whenever something can be read. Raises BusyError when the queue is full.
        """
        began = time.monotonic()
        if self._is_stopping:
            raise GenerationError("this engine was closed; load the model again")
        if sum(self.load) >= self.queue_limit:
            raise BusyError(
                f"{sum(self.load)} requests are waiting or running; the limit is {self.queue_limit}. "
                "Try again shortly.",
                retry_after=2.0,
            )
        request, prompts = self._prepare(request)
        limit = chunk_limit if chunk_limit is not None else self.chunk_limit
        stream = SpeechStream(
            self.spec,
            request,
            prompts,
            streaming=streaming,
            limit=limit if streaming else None,
            wake=self._wake,
            notify=notify,
        )
        stream._submitted = began
        stream.timings["prepare"] = time.monotonic() - began
        with self._condition:
            if sum(not other._is_closed for other in self._streams) >= self.queue_limit:
                raise BusyError("the queue filled up meanwhile. Try again shortly.", retry_after=2.0)
            self._streams.append(stream)
            self._start_threads()
            self._is_awake = True
            self._condition.notify_all()
        return stream

    def segments(self, request: SpeechRequest) -> tuple[str, ...]:
        """How the text would be cut, without speaking it. Raises what `submit` would."""
        return tuple(prompt.text for prompt in self._prepare(request)[1])

    def _prepare(self, request: SpeechRequest) -> tuple[SpeechRequest, list[Prompt]]:
        if request.seed is None:
            request = replace(request, seed=secrets.randbits(31))
        check_request(request, self.spec)
        request = replace(request, voice=self._casting.find(request.voice))
        prompts: list[Prompt] = []
        with torch.inference_mode():
            for number, part in enumerate(spoken_parts(request)):
                assert request.seed is not None
                seed = segment_seed(request.seed, number * 65_536)
                made = self.model.prepare(replace(request, text=part.text, seed=seed))
                if part.pause_after and made:
                    last = made[-1]
                    made[-1] = replace(last, pause_after=last.pause_after + part.pause_after)
                prompts.extend(made)
        teams.release()  # what follows runs in the engine's own threads
        for prompt in prompts:
            if self.cache_positions is not None and prompt.rows * prompt.positions > self.cache_positions:
                raise RequestError(
                    f"a part of the text, {prompt.text[:60]!r}, needs {prompt.rows * prompt.positions} cache "
                    f"positions; the memory limit leaves {self.cache_positions}. Give a shorter text, or a "
                    "higher memory limit.",
                    field="text",
                )
        if not prompts:
            raise RequestError(
                f"nothing in {request.text[:60]!r} can be spoken. Give a text with words in it.", field="text"
            )
        return request, prompts

    def stream(self, request: SpeechRequest) -> SpeechStream:
        """Speak and hand out chunks as they are made."""
        return self.submit(request, streaming=True)

    def synthesize(self, request: SpeechRequest) -> Speech:
        """Speak the whole request; samples of all chunks joined."""
        stream = self.submit(request, streaming=False)
        with stream:
            pieces = [chunk.samples for chunk in stream]
        return join(stream, pieces)

    def close(self) -> None:
        """Cancel everything and end the threads."""
        with self._condition:
            self._is_stopping = True
            for stream in self._streams:
                stream._is_cancelled = True
            self._is_awake = True
            self._condition.notify_all()
        for thread in (self._thread, self._decode_thread):
            if thread is not None:
                thread.join()
        self._thread = self._decode_thread = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def load(self) -> tuple[int, int]:
        """Requests running and requests waiting."""
        with self._condition:
            alive = [stream for stream in self._streams if not stream._is_closed]
        running = sum(1 for stream in alive if stream._running)
        return running, len(alive) - running

    # -- the loop -----------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sonant-engine", daemon=True)
            self._thread.start()
            if self._pipelined:
                self._decode_thread = threading.Thread(
                    target=self._run_decoding, name="sonant-decode", daemon=True
                )
                self._decode_thread.start()

    def _wake(self) -> None:
        with self._condition:
            self._is_awake = True
            self._condition.notify_all()

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                with self._condition:
                    self._is_awake = False
                    if self._is_stopping and not self._streams:
                        break
                worked = self._tick()
                if not worked:
                    with self._condition:
                        if not self._is_awake:
                            self._condition.wait(timeout=self._next_deadline())
        self._decode_queue.put(None)

    def _next_deadline(self) -> float | None:
        """Seconds until the first deadline of a request, None without one."""
        now = time.monotonic()
        left = [s._submitted + s.request.deadline - now for s in self._streams if s.request.deadline]
        return max(0.0, min(left)) if left else None

    def _tick(self) -> bool:
        """One turn of the loop; True when something moved."""
        worked = self._drop_closed()
        worked = self._admit() or worked
        ready = [
            (stream, segment)
            for stream in self._streams
            for segment in stream._running
            if segment.utterance is not None
            and not segment.utterance.is_finished
            and stream._has_room()
            and segment.handed_over - segment.decoded <= 64
        ]
        if not ready:
            return worked
        began = time.monotonic()
        self._share_cores(segment for _, segment in ready)
        try:
            steps = self.model.step([s.utterance for _, s in ready if s.utterance is not None])
        except Exception as error:
            log.exception("a step failed")
            for stream, _ in ready:
                self._end(stream, _as_sonant(error))
            return True
        self.steps += 1
        spent = time.monotonic() - began
        for (stream, segment), step in zip(ready, steps, strict=True):
            stream.timings["generate"] += spent / len(ready)
            assert segment.utterance is not None
            segment.utterance.steps += 1
            if step.tokens.shape[0]:
                segment.pending.append(step.tokens)
                segment.frames += step.tokens.shape[0]
                stream.timings["frames"] += step.tokens.shape[0]
            for note in step.notes:
                stream.guards.append(GuardEvent("note", note, segment.index))
            if step.at_ceiling:
                stream.guards.append(
                    GuardEvent(
                        "length_ceiling",
                        f"segment {segment.index + 1} was stopped after {segment.frames} frames: the model "
                        f"gave no end token within {segment.prompt.ceiling} steps (what its text allows, or "
                        "max_frames). Its end may be missing or garbled; try another seed.",
                        segment.index,
                    )
                )
            policy = stream.request.chunk_policy if stream._streaming else self._whole
            gathered = sum(tokens.shape[0] for tokens in segment.pending)
            if step.is_final or gathered >= policy.size(segment.decodes):
                self._hand_over(stream, segment, is_final=step.is_final)
            if step.is_final:
                segment.utterance.is_finished = True
                self._release(segment)
        return True

    def _share_cores(self, segments: Iterable[Segment]) -> None:
        """Leave the decoding thread its cores while it has tokens of one of these; else take them all."""
        if self._threads:
            is_decoding = any(segment.handed_over > segment.decoded for segment in segments)
            native.limit_threads(self._threads - self._threads // 2 if is_decoding else self._threads)

    def _drop_closed(self) -> bool:
        worked = False
        now = time.monotonic()
        for stream in list(self._streams):
            deadline = stream.request.deadline
            if stream._is_cancelled and not stream._is_closed:
                self._end(stream, CancelledError("the request was cancelled"))
                worked = True
            elif deadline is not None and not stream._is_closed and now > stream._submitted + deadline:
                self._end(
                    stream,
                    DeadlineError(
                        f"the request was not finished within its {deadline:g} s; "
                        f"{stream._samples / stream.sample_rate:.1f} s of speech were made. "
                        "Allow more time, or send less text."
                    ),
                )
                worked = True
            elif stream._is_closed:
                self._end(stream, None)
                worked = True
        return worked

    def _end(self, stream: SpeechStream, error: SonantError | None) -> None:
        """Free everything a request holds; deliver `error` if its reader still waits."""
        for segment in stream._running:
            self._release(segment)
        stream._running.clear()
        stream._waiting.clear()
        with self._condition:
            if stream in self._streams:
                self._streams.remove(stream)
        if error is not None:
            stream._fail(error)

    def _release(self, segment: Segment) -> None:
        if segment.utterance is not None:
            self._free.extend(segment.utterance.slots)
            self._free.sort()
            segment.utterance = None

    def _admit(self) -> bool:
        """Start waiting segments while rows are free, first come first served."""
        worked = False
        for stream in list(self._streams):
            if stream._is_closed or not stream._waiting or not stream._has_room():
                continue
            if any(segment.utterance is not None for segment in stream._running):
                continue  # segments of one request are spoken in order
            segment = stream._waiting[0]
            prompt = segment.prompt
            idle = not any(s.utterance is not None for other in self._streams for s in other._running)
            if prompt.positions > self._positions or prompt.rows > len(self._free):
                if not idle:
                    break  # rows free up soon; nobody overtakes the one who waits
                try:
                    self._allocate(prompt)
                except Exception as error:
                    log.exception("making room failed")
                    self._end(stream, _as_sonant(error))
                    return True
            stream._waiting.popleft()
            slots = [self._free.pop(0) for _ in range(prompt.rows)]
            began = time.monotonic()
            self._share_cores(segment for other in self._streams for segment in other._running)
            try:
                segment.decoder = self.model.decoder(prompt, streaming=stream._streaming)
                segment.utterance = self.model.start(prompt, slots)
            except Exception as error:
                log.exception("a prefill failed")
                self._free.extend(slots)
                self._free.sort()
                self._end(stream, _as_sonant(error))
                return True
            stream.timings["prefill"] += time.monotonic() - began
            stream._running.append(segment)
            worked = True
        return worked

    def _allocate(self, prompt: Prompt) -> None:
        slots = max(self.slots * self._rows_each, prompt.rows)
        positions = max(self._positions, getattr(self.model, "least_positions", 256))
        while positions < prompt.positions:
            positions *= 2
        if self.cache_positions is not None and slots * positions > self.cache_positions:
            positions = max(prompt.positions, self.cache_positions // slots)
            slots = min(slots, self.cache_positions // positions)
        self._free, self._positions = [], 0  # until there is room
        self.model.allocate(slots, positions)
        if self._records_ahead and hasattr(self.model, "warm_up"):
            self.model.warm_up()
        self._free = list(range(slots))
        self._positions = positions

    def _hand_over(self, stream: SpeechStream, segment: Segment, *, is_final: bool) -> None:
        tokens = torch.cat(segment.pending) if segment.pending else None
        segment.pending = []
        segment.decodes += 1
        item = _Decode(stream, segment, tokens, is_final)
        if self._pipelined:
            segment.handed_over += 0 if tokens is None else tokens.shape[0]
            self._decode_queue.put(item)
        else:
            self._decode(item)

    def _run_decoding(self) -> None:
        with torch.inference_mode():
            while (item := self._decode_queue.get()) is not None:
                if self._threads:
                    native.limit_threads(self._threads // 2 if self._is_generating() else self._threads)
                self._decode(item)
                if item.tokens is not None:
                    item.segment.decoded += item.tokens.shape[0]
                self._wake()

    def _is_generating(self) -> bool:
        """True while an utterance takes steps; decoding what is left after the last may take every core."""
        running = (segment for stream in list(self._streams) for segment in list(stream._running))
        return any(segment.utterance is not None for segment in running)

    def _decode(self, item: _Decode) -> None:
        stream, segment = item.stream, item.segment
        if stream._is_closed or stream._is_cancelled:
            return
        assert segment.decoder is not None
        began = time.monotonic()
        try:
            parts = []
            if item.tokens is not None:
                parts.append(_samples(segment.decoder.push(item.tokens)))
            if item.is_final:
                parts.append(_samples(segment.decoder.finish()))
        except Exception as error:
            log.exception("decoding failed")
            self._fail_later(stream, _as_sonant(error))
            return
        stream.timings["decode"] += time.monotonic() - began
        samples = np.concatenate(parts) if parts else NO_SAMPLES
        peak = float(np.abs(samples).max()) if len(samples) else 0.0
        if not np.isfinite(peak):
            self._fail_later(
                stream,
                GenerationError(
                    f"segment {segment.index + 1} decoded to non-finite samples. The weights or the "
                    "precision are at fault; try --dtype float32 and sonant parity."
                ),
            )
            return
        if peak > 1.0:
            samples = np.clip(samples, -1.0, 1.0)
            message = f"segment {segment.index + 1} reached {peak:.2f} times full scale and was limited"
            stream.guards.append(GuardEvent("peak_limited", message, segment.index))
        if item.is_final:
            for name, seconds in getattr(segment.decoder, "timings", {}).items():
                stream.timings[name] = stream.timings.get(name, 0.0) + seconds
            pause = round(segment.prompt.pause_after * stream.sample_rate)
            samples = np.concatenate([samples, np.zeros(pause, dtype=np.float32)])
            segment.decoder = None
            if segment in stream._running:
                stream._running.remove(segment)
        is_last = item.is_final and segment.is_last
        if len(samples) or is_last:
            text = None if segment.is_announced else segment.prompt.text
            segment.is_announced = True
            stream._deliver(samples, is_final=is_last, text=text)

    def _fail_later(self, stream: SpeechStream, error: SonantError) -> None:
        stream._fail(error)
        self._wake()


@dataclass(frozen=True, eq=False)
class _Decode:
    stream: SpeechStream
    segment: Segment
    tokens: Tensor | None
    is_final: bool


_WHOLE = ChunkPolicy(first=1 << 30, growth=1.0, largest=1 << 30)
_MEANWHILE = ChunkPolicy(first=4, growth=1.0, largest=4)
"""Pieces that are decoded while the next are made, for a caller who wants the whole."""


def _samples(tensor: Tensor) -> Samples:
    return tensor.detach().to(dtype=torch.float32, device="cpu").numpy()


def _as_sonant(error: Exception) -> SonantError:
    if isinstance(error, SonantError):
        return error
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        made = GenerationError(
            "memory ran out while speaking. Use fewer slots, a shorter text or a smaller --dtype."
        )
    else:
        made = GenerationError(
            f"an internal error stopped this request ({type(error).__name__}: {error}). "
            "Please report it with the text, the model and the seed."
        )
    made.__cause__ = error
    return made
