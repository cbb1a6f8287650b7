"""The engine's loop: one thread owns the model and all that is known of the requests.

It is woken by what others post, and repeats: read that; end what was cancelled or is late; begin waiting
segments in free rows; one step of everything that runs; hand new tokens over to be decoded.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from sonant import native
from sonant.engine import lifetime
from sonant.engine.decoding import DecodingThread, Piece, Sound, as_sonant, decode
from sonant.engine.guards import TRIES, SegmentWatch, Stuck, may_run_away, watches_for
from sonant.engine.model import Prompt, SpeechModel, Step, inference
from sonant.engine.preparing import Prepared, PreparingThread
from sonant.engine.progress import Progress, Segment
from sonant.engine.rows import Rows
from sonant.engine.stream import SpeechStream
from sonant.engine.stretching import open_decoder
from sonant.engine.turns import Turns
from sonant.errors import BusyError, CancelledError, GenerationError, NotFiniteError, SonantError
from sonant.request.seeds import segment_seed
from sonant.request.settings import guards_of
from sonant.request.speech import ChunkPolicy, ModelSpec, SpeechRequest

log = logging.getLogger(__name__)

AHEAD = 2
"""Segments of a request that are prepared before they are spoken."""
MOST_UNDECODED = 64
"""Frames of a segment that the decoding thread may lag behind before its utterance pauses."""
AGAIN = 1 << 40
"""Seeds of a segment that is spoken again are derived with numbers from here on, which no segment has."""
MOST_STUMBLES = 3
"""Failures of the loop itself, one after the other, after which the engine takes no more requests."""

_WHOLE = ChunkPolicy(first=1 << 30, growth=1.0, largest=1 << 30)
_MEANWHILE = ChunkPolicy(first=4, growth=1.0, largest=4)
"""Pieces that are decoded while the next are made, for a caller who wants the whole. They are delivered with
the last: what the guards do must not depend on how far the decoding is."""


class Loop:
    """Steps, decodes and ends what was entered, in threads of its own that begin with the first request.

    The arguments are those of `Engine`. `wake` may be called by any thread, `enter`, `close` and `load` by
    callers; everything else belongs to the stepping thread.
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        slots: int,
        queue_limit: int,
        cache_positions: int | None,
        pipelined: bool | None,
        records_ahead: bool,
    ) -> None:
        self.model = model
        self.spec: ModelSpec = model.spec
        self.slots = slots
        self.queue_limit = queue_limit
        self._rows = Rows(
            model,
            slots=slots * int(self.spec.sampling.get("beams") or 1),
            cache_positions=cache_positions,
            records_ahead=records_ahead,
        )
        threads = _threads() if getattr(model, "ignores_threads", False) else 1
        self._pipelined = threads > 1 if pipelined is None else pipelined
        self._threads = threads if threads > 1 and self._pipelined else 0
        """Threads that stepping and decoding share; 0 leaves both with torch's number."""
        self._whole = _MEANWHILE if self._pipelined and self.spec.streams_by == "frame" else _WHOLE
        # Shared between threads, under the condition's lock:
        self._condition = threading.Condition()
        self._open: list[Progress] = []
        self._is_awake = False
        self.is_stopping = False
        self._broken: SonantError | None = None
        self._fallen: BaseException | None = None
        """What a helper thread died of: the stepping thread raises it when it comes by."""
        self._thread: threading.Thread | None = None
        self._preparing: PreparingThread | None = None
        self._decoding: DecodingThread | None = None
        # Posted by the other threads:
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # The stepping thread's own:
        self._turns = Turns()
        self._is_crowded = False
        """True while a segment waits that would begin if there were room: a paused utterance then speaks on
        to its segment's end, so that nobody waits for its listener."""
        self._is_generating = False
        self.steps = 0
        """Model steps taken so far."""

    # -- what callers use ---------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise when no request can be taken now."""
        with self._condition:
            self._check_open()

    def enter(self, progress: Progress) -> None:
        """Speak this. Raises what `check_open` raises."""
        with self._condition:
            self._check_open()
            self._start_threads()
            self._open.append(progress)
            assert self._preparing is not None
            self._preparing.ask(progress, progress.source, progress.stream._is_wanted)
            self._is_awake = True
            self._condition.notify_all()

    def wake(self) -> None:
        """There may be something to do."""
        with self._condition:
            self._is_awake = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Cancel everything and take nothing more. The threads end by themselves."""
        with self._condition:
            self.is_stopping = True
            self._is_awake = True
            self._condition.notify_all()

    def close(self) -> None:
        """`stop`, and wait for the threads; they do not wait for themselves (a `notify` may close)."""
        self.stop()
        if self._thread is not None and threading.current_thread() not in self._own_threads():
            self._thread.join()

    def lose_threads(self) -> None:
        """The threads that had begun are not in this process: what they spoke ends, and nothing is taken."""
        self._condition = threading.Condition()
        self._broken = GenerationError("the engine's threads stayed in the process that was forked")
        lost, self._open = self._open, []
        for progress in lost:
            progress.stream._lose(GenerationError(f"{self._broken}; load the model and submit this again"))

    @property
    def load(self) -> tuple[int, int]:
        """Requests running and requests waiting."""
        with self._condition:
            alive = [progress for progress in self._open if not progress.stream._is_closed]
        running = sum(1 for progress in alive if progress.running)
        return running, len(alive) - running

    def _check_open(self) -> None:
        """Raise when no request can be taken now; the lock is held."""
        if self.is_stopping:
            raise GenerationError("this engine was closed; load the model again")
        lifetime.check()
        if self._broken is None and self._thread is not None:
            gone = [thread.name for thread in self._own_threads() if not thread.is_alive()]
            if gone:
                self._fell(GenerationError(f"the thread {gone[0]} ended by itself"))
        if self._broken is not None:
            raise GenerationError(f"this engine is broken ({self._broken}); load the model again")
        alive = sum(not progress.stream._is_closed for progress in self._open)
        if alive >= self.queue_limit:
            raise BusyError(
                f"{alive} requests are waiting or running; the limit is {self.queue_limit}. "
                "Try again shortly.",
                retry_after=2.0,
            )

    # -- the loop -----------------------------------------------------------------------------

    def _start_threads(self) -> None:
        if self._thread is not None:
            return
        lifetime.begin(self)
        try:
            self._preparing = PreparingThread(self._post_prepared, self._fell)
            if self._pipelined:
                self._decoding = DecodingThread(self.model, self._share_with_steps, self._fell)
            self._thread = threading.Thread(target=self._run, name="sonant-engine", daemon=True)
            self._thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._end_helpers(patience=1.0)
            self._thread = self._preparing = self._decoding = None
            raise GenerationError(f"the engine could not begin ({error}); end other threads first") from error

    def _helpers(self) -> list[PreparingThread | DecodingThread]:
        return [helper for helper in (self._preparing, self._decoding) if helper is not None]

    def _own_threads(self) -> list[threading.Thread]:
        threads = (self._thread, *(helper.thread for helper in self._helpers()))
        return [thread for thread in threads if thread is not None]

    def _end_helpers(self, patience: float | None = None) -> None:
        """End them after what they were given; nothing of this loop runs any more but who calls. With the
        lock held that takes `patience`: one that falls at that moment waits for the lock."""
        for helper in self._helpers():
            helper.close()
        for helper in self._helpers():
            helper.thread.join(patience)
        lifetime.end(self)

    def _fell(self, error: BaseException) -> None:
        """A helper thread died of this, and says so with its last words: whom it owed something would wait
        for ever. Nothing is taken any more from now on, and the stepping thread ends what is open."""
        with self._condition:
            self._fallen = error
            self._broken = as_sonant(error)
            self._is_awake = True
            self._condition.notify_all()

    def _post_prepared(self, prepared: Prepared) -> None:
        self._inbox.put(partial(self._prepared, prepared))
        self.wake()

    def _post_decoded(self, progress: Progress, segment: Segment, piece: Piece) -> None:
        self._inbox.put(partial(self._decoded, progress, segment, piece))
        self.wake()

    def _run(self) -> None:
        try:
            with inference(self.model):
                self._turn()
        except BaseException as error:
            self._end_all(error, is_broken=True)
            log.error("the engine's threads end by themselves; every open request ends", exc_info=error)
        finally:
            self._end_helpers()

    def _turn(self) -> None:
        """Until it is closed and nothing is open."""
        stumbles = 0
        while True:
            with self._condition:
                self._is_awake = False
                if self.is_stopping and not self._open:
                    return
                if self._fallen is not None:
                    raise self._fallen
            try:
                worked = self._tick()
                stumbles = 0
            except BaseException as error:
                stumbles += 1
                self._start_anew(error, is_broken=stumbles >= MOST_STUMBLES)
                log.error("the engine stumbled; every open request ends", exc_info=error)
                worked = False
            if not worked:
                with self._condition:
                    if not self._is_awake:
                        self._condition.wait(timeout=self._next_deadline())

    def _start_anew(self, error: BaseException, *, is_broken: bool) -> None:
        """The last guard: no request stays without an end, and nothing of the old state is left."""
        self._end_all(error, is_broken=is_broken)
        self._rows.forget()
        self._turns = Turns()

    def _end_all(self, error: BaseException, *, is_broken: bool) -> None:
        with self._condition:
            lost, self._open = self._open, []
            if is_broken:
                self._broken = as_sonant(error)
        told = error if isinstance(error, GenerationError) else _wrapped(error)
        with contextlib.ExitStack() as ends:  # all of them, whatever the end of one raises
            for progress in lost:
                for segment in progress.running:
                    segment.utterance = (
                        None  # its rows are gone: what is still posted must not give them back
                    )
                progress.running.clear()
                progress.waiting.clear()
                ends.callback(progress.stream._fail, told)

    def _next_deadline(self) -> float | None:
        """Seconds until the first deadline of a request, None without one."""
        ends = [progress.deadline.at for progress in self._open if progress.deadline.at is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _tick(self) -> bool:
        """One turn of the loop; True when something moved."""
        worked = self._read_inbox()
        worked = self._drop_closed() or worked
        worked = self._finish_settled() or worked
        worked = self._admit() or worked
        return self._step() or worked

    def _read_inbox(self) -> bool:
        worked = False
        while True:
            try:
                posted = self._inbox.get_nowait()
            except queue.Empty:
                return worked
            posted()
            worked = True

    def _drop_closed(self) -> bool:
        """End what was cancelled, is out of time, or has nothing more to come."""
        worked = False
        for progress in list(self._open):
            stream, feed = progress.stream, progress.stream.request.text_feed
            error: SonantError | None = None
            if not stream._is_closed:
                if stream._is_cancelled or self.is_stopping:
                    error = CancelledError("the request was cancelled")
                elif progress.deadline.has_passed():
                    error = progress.deadline.error(stream.produced_seconds)
                elif feed is not None and feed.failure is not None:
                    error = feed.failure
                elif progress.failure is not None and not progress.waiting and not progress.running:
                    error = progress.failure
            if error is not None or stream._is_closed:
                self._end(progress, error)
                worked = True
        return worked

    def _end(self, progress: Progress, error: SonantError | None) -> None:
        """Free everything a request holds; deliver `error` if its reader still waits."""
        for segment in progress.running:
            self._release(segment)
        progress.running.clear()
        progress.waiting.clear()
        with self._condition:
            if progress in self._open:
                self._open.remove(progress)
        self._turns.forget(progress.client, self._open)
        if error is not None:
            progress.stream._fail(error)

    def _release(self, segment: Segment) -> None:
        if segment.utterance is not None:
            self._rows.give_back(segment.utterance.slots)
            segment.utterance = None

    # -- preparing ----------------------------------------------------------------------------

    def _prepared(self, prepared: Prepared) -> None:
        progress: Progress = prepared.asker
        progress.is_asked = False
        progress.take(prepared.items)
        newest = progress.newest
        assert newest is not None, "a request has a first segment before the thread is asked for more"
        if prepared.error is not None:
            newest.is_settled = True
            progress.failure = as_sonant(prepared.error)
        elif prepared.is_over:
            newest.is_settled = newest.is_last = True
        progress.is_whole = prepared.is_over
        self._ask(progress)

    def _ask(self, progress: Progress) -> None:
        """Have more prepared, if there is more and it will be needed soon."""
        if progress.is_whole or progress.is_asked or len(progress.waiting) >= AHEAD:
            return
        assert self._preparing is not None
        progress.is_asked = True
        self._preparing.ask(progress, progress.source, progress.stream._is_wanted)

    # -- generating ---------------------------------------------------------------------------

    def _admit(self) -> bool:
        """Begin waiting segments while rows are free: whose turn it is first, then whatever fits."""
        worked = False
        self._is_crowded = False
        candidates = [progress for progress in self._open if self._may_begin(progress)]
        kept_out: Segment | None = None
        while candidates:
            if self._rows.are_full:
                self._is_crowded = True
                break
            progress = self._turns.first(candidates, self._open)
            segment = progress.waiting[0]
            try:
                has_room = self._make_room(segment.prompt)
            except Exception as error:
                log.exception("making room failed")
                self._end(progress, as_sonant(error))
                return True
            if not has_room:
                self._is_crowded = True
                kept_out = kept_out or segment
                if kept_out is segment and segment.overtaken >= self.slots:
                    break  # rows are let go until there is room for this one
                candidates.remove(progress)
                continue
            if kept_out is not None:
                kept_out.overtaken += 1
            self._turns.serve(progress, candidates)
            candidates.remove(progress)
            self._begin(progress)
            worked = True
        return worked

    def _may_begin(self, progress: Progress) -> bool:
        stream, feed = progress.stream, progress.stream.request.text_feed
        return (
            bool(progress.waiting)
            and not progress.is_generating  # segments of one request are spoken in order
            and stream._is_wanted()
            and (stream._has_room() or progress.waiting[0].taken > 0)
            and (feed is None or feed.is_ready)
        )

    def _make_room(self, prompt: Prompt) -> bool:
        """Whether there are rows for the prompt, after the cache has grown if it can."""
        if self._rows.fit(prompt):
            return True
        if any(progress.is_generating for progress in self._open):
            return self._rows.grow(prompt)
        self._rows.allocate(prompt)
        return True

    def _begin(self, progress: Progress) -> None:
        """Prefill the first segment that waits."""
        stream = progress.stream
        segment = progress.waiting.popleft()
        rows = self._rows.take(segment.prompt)
        began = time.monotonic()
        self._share_cores(segment for other in self._open for segment in other.running)
        try:
            if segment.sound is None:
                segment.sound = self._sound_of(stream, segment)
            segment.utterance = self.model.start(segment.prompt, rows)
            segment.again = 0
        except Exception as error:
            log.exception("a prefill failed")
            self._rows.give_back(rows)
            self._end(progress, as_sonant(error))
            return
        stream._spend("prefill", time.monotonic() - began)
        progress.running.append(segment)
        self._ask(progress)

    def _sound_of(self, stream: SpeechStream, segment: Segment) -> Sound:
        """Its sound from the beginning. What is wanted whole is held while a guard may have its say."""
        request = stream.request
        is_held = not stream._streaming and request.stuck_speech != "off" and bool(guards_of(request.guards))
        decoder = open_decoder(self.model, segment.prompt, streaming=stream._streaming)
        return Sound(stream, decoder, segment.index, segment.prompt.text, lead=segment.lead, is_held=is_held)

    def _step(self) -> bool:
        """One step of everything that can go on; True when there was something."""
        ready = [
            (progress, segment)
            for progress in self._open
            for segment in progress.running
            if segment.utterance is not None and self._may_step(progress, segment)
        ]
        self._is_generating = any(progress.is_generating for progress in self._open)
        if not ready:
            return False
        self._share_cores(segment for _, segment in ready)
        together = [pair for pair in ready if not pair[1].is_alone]
        for group in [together, *([pair] for pair in ready if pair[1].is_alone)]:
            if group:
                self._step_group(group)
        return True

    def _may_step(self, progress: Progress, segment: Segment) -> bool:
        return (
            progress.stream._is_wanted()
            and (progress.stream._has_room() or self._is_crowded)
            and segment.handed_over - segment.decoded <= MOST_UNDECODED
        )

    def _step_group(self, group: Sequence[tuple[Progress, Segment]]) -> None:
        began = time.monotonic()
        try:
            steps = self.model.step([s.utterance for _, s in group if s.utterance is not None])
            if len(steps) != len(group):
                raise RuntimeError(f"a step of {len(group)} utterances gave {len(steps)} results")
        except Exception as error:
            self._step_failed(group, error)
            return
        self.steps += 1
        spent = (time.monotonic() - began) / len(group)
        for (progress, segment), step in zip(group, steps, strict=True):
            progress.stream._spend("generate", spent)
            self._take_step(progress, segment, step)

    def _step_failed(self, group: Sequence[tuple[Progress, Segment]], error: Exception) -> None:
        """Of one alone: its error. Of several: nobody knows whose it is, and what the step has done to the
        others. Each is begun again, by itself; up to where it was it takes its steps in silence, and the one
        at fault meets its error once more. The same seed gives the same tokens, so nobody hears of it."""
        if len(group) == 1:
            progress, segment = group[0]
            request = progress.stream.request
            if (
                isinstance(error, NotFiniteError)
                and watches_for(request, "not_finite")
                and _may_try(request, segment)
            ):
                self._unstick(progress, segment, Stuck("not_finite", 0, "the model's scores were no numbers"))
                return
            log.error("a step failed", exc_info=error)
            self._end(progress, as_sonant(error))
            return
        log.warning("a step of %d utterances failed; each goes on by itself", len(group), exc_info=error)
        for progress, segment in reversed(group):
            self._release(segment)
            segment.is_alone = True
            feed = progress.stream.request.text_feed
            if feed is not None:
                feed.rewind()
            progress.running.remove(segment)
            progress.waiting.appendleft(segment)

    def _take_step(self, progress: Progress, segment: Segment, step: Step) -> None:
        stream, utterance = progress.stream, segment.utterance
        assert utterance is not None
        utterance.steps += 1
        count = step.tokens.shape[0]
        segment.again += count
        fresh = (
            segment.again - segment.frames
        )  # counted in frames: a feed's steps may also wait, and not as before
        if fresh > 0:
            tokens = step.tokens[count - fresh :]
            segment.pending.append(tokens)
            segment.frames += fresh
            stream._spend("frames", fresh)
            watch = self._watch_of(stream.request, segment)
            stuck = watch.push(tokens) if watch is not None else None
            if stuck is not None and self._unstick(progress, segment, stuck):
                return
        if utterance.steps > segment.taken:
            segment.taken += 1
            for note in step.notes:
                stream._note("note", note, segment.index)
            if not step.is_final and self._missed_its_end(progress, segment):
                return
        if step.at_ceiling and watches_for(stream.request, "runaway") and may_run_away(segment.prompt):
            stuck = Stuck("runaway", segment.frames, f"no end within {segment.prompt.ceiling} steps")
            if _may_try(stream.request, segment) and self._unstick(progress, segment, stuck):
                return
        if step.at_ceiling:
            message = (
                f"segment {segment.index + 1} was stopped after {segment.frames} frames: the model "
                f"gave no end token within {segment.prompt.ceiling} steps (what its text allows, or "
                "max_frames). Its end may be missing or garbled; try another seed."
            )
            stream._note("length_ceiling", message, segment.index)
        if step.is_final:
            self._complete(progress, segment)
            return
        policy = stream.request.chunk_policy if stream._streaming else self._whole
        if sum(tokens.shape[0] for tokens in segment.pending) >= policy.size(segment.decodes):
            self._hand_over(progress, segment)

    def _complete(self, progress: Progress, segment: Segment) -> None:
        """It takes no more steps. What is pending is decoded once it is known what follows."""
        assert segment.utterance is not None
        segment.utterance.is_finished = True
        self._release(segment)
        segment.is_complete = True
        if segment.is_settled:
            self._hand_over(progress, segment)

    # -- guards -------------------------------------------------------------------------------

    def _watch_of(self, request: SpeechRequest, segment: Segment) -> SegmentWatch | None:
        """What watches a segment; None where that is not asked for."""
        if request.stuck_speech == "off":
            return None
        if segment.watch is None:
            segment.watch = SegmentWatch(
                segment.prompt,
                self.spec.frame_rate,
                guards_of(request.guards),
                is_speech=getattr(self.model, "tokens_are_speech", True),
                is_fed=request.text_feed is not None,
            )
        return segment.watch

    def _missed_its_end(self, progress: Progress, segment: Segment) -> bool:
        """Look at the end token after a step; True where the segment was begun again or ended."""
        watch, ending = self._watch_of(progress.stream.request, segment), getattr(self.model, "ending", None)
        utterance = segment.utterance
        if watch is None or ending is None or utterance is None:
            return False
        stuck = watch.look(utterance.steps, segment.frames, partial(ending, utterance))
        return stuck is not None and self._unstick(progress, segment, stuck)

    def _unstick(self, progress: Progress, segment: Segment, stuck: Stuck) -> bool:
        """Speak a segment that went wrong again with a derived seed where nobody has heard it, else end it
        where it was good. False where it goes on as it is: what was wrong lies behind it, or it has given
        nothing yet that could be kept."""
        request, utterance = progress.stream.request, segment.utterance
        assert utterance is not None
        place = f"segment {segment.index + 1}: {stuck.message}"
        if _may_try(request, segment):
            segment.tries += 1
            message = f"{place}; it is spoken again with another seed ({segment.tries} of {TRIES})"
            progress.stream._note(stuck.kind, message, segment.index)
            seed = segment_seed(segment.first_seed, AGAIN + segment.tries)
            segment.begin_again(replace(segment.prompt, seed=seed))
            self._release(segment)
            progress.running.remove(segment)
            progress.waiting.appendleft(segment)
            return True
        if segment.handed_over and not segment.was_heard():  # cut below, as if nothing was decoded yet
            try:
                segment.drop_sound()
                segment.sound = self._sound_of(progress.stream, segment)
            except Exception as error:
                log.exception("a decoder could not begin again")
                self._end(progress, as_sonant(error))
                return True
        if stuck.skip:
            done = "that was cut" if segment.skip(stuck.skip) else "that was heard already"
            progress.stream._note(stuck.kind, f"{place}; {done}, and the rest goes on.", segment.index)
            return False
        if not segment.frames:
            message = f"{place}; it goes on to the most steps that its text allows. Try another seed."
            progress.stream._note(stuck.kind, message, segment.index)
            return False
        message = f"{place}; it was stopped there, and its end may be missing. Try another seed."
        progress.stream._note(stuck.kind, message, segment.index)
        segment.trim(stuck.good)
        self._complete(progress, segment)
        return True

    def _share_cores(self, segments: Iterable[Segment]) -> None:
        """Leave the decoding thread its cores while it has tokens of one of these; else take them all."""
        if self._threads:
            is_decoding = any(segment.handed_over > segment.decoded for segment in segments)
            native.limit_threads(self._threads - self._threads // 2 if is_decoding else self._threads)

    # -- decoding -----------------------------------------------------------------------------

    def _finish_settled(self) -> bool:
        """Hand over the last tokens of segments of which it was not known what follows."""
        worked = False
        for progress in list(self._open):
            for segment in list(progress.running):
                if segment.is_complete and segment.is_settled and not segment.is_handed_over:
                    self._hand_over(progress, segment)
                    worked = True
        return worked

    def _hand_over(self, progress: Progress, segment: Segment) -> None:
        """Have the pending tokens decoded; with the last of a segment, its end."""
        tokens, segment.pending = tuple(segment.pending), []
        frames = sum(one.shape[0] for one in tokens)
        assert segment.sound is not None
        piece = Piece(
            sound=segment.sound,
            tokens=tokens,
            frames=frames,
            is_final=segment.is_complete,
            pause=segment.pause,
            is_last=segment.is_last and segment.is_complete,
            done=partial(self._post_decoded, progress, segment),
        )
        if segment.sound.is_held:
            segment.given += tokens
        segment.decodes += 1
        segment.is_handed_over = segment.is_complete
        segment.handed_over += frames
        if self._decoding is not None:
            self._decoding.put(piece)
        else:
            decode(piece)
            self._decoded(progress, segment, piece)

    def _decoded(self, progress: Progress, segment: Segment, piece: Piece) -> None:
        if piece.sound is not segment.sound:
            return  # it was dropped
        segment.decoded += piece.frames
        if piece.sound.is_stopped and segment.utterance is not None:
            segment.trim(0)  # what is pending would not be decoded
            self._complete(progress, segment)
        if piece.is_final:
            segment.sound = None
            if segment in progress.running:
                progress.running.remove(segment)

    def _share_with_steps(self) -> None:
        """Take half of the cores while utterances take steps, and all for what is left after the last."""
        if self._threads:
            native.limit_threads(self._threads // 2 if self._is_generating else self._threads)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _may_try(request: SpeechRequest, segment: Segment) -> bool:
    """Whether a segment may be spoken again: nothing of it was heard, and it has tries left."""
    is_fixed = request.stuck_speech != "again" or request.text_feed is not None
    return not is_fixed and segment.tries < TRIES and not segment.was_heard()


def _wrapped(error: BaseException) -> GenerationError:
    made = as_sonant(error)
    return made if isinstance(made, GenerationError) else GenerationError(str(made))
