"""Tokens to samples: each piece of a segment decoded, checked and delivered, in order.

Either in the engine's thread, or in one of its own that goes on while the next tokens are made.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sonant.audio.rumble import HighPass
from sonant.audio.trimming import Trimmer
from sonant.engine.guards import QUIET_SECONDS, quiet_after, watches_for
from sonant.engine.model import Array, AudioDecoder, as_samples, inference, is_out_of_memory, joined
from sonant.engine.stream import NO_SAMPLES, SpeechStream
from sonant.errors import GenerationError, SonantError
from sonant.request.audio import Samples

log = logging.getLogger(__name__)

DC_HZ = 10.0
"""Below this a constant offset is taken out where it is asked for; the lowest voices start near 70 Hz."""


@dataclass(eq=False)
class Sound:
    """The sound of one segment under way; but for `is_dropped`, only who decodes it touches it."""

    stream: SpeechStream
    decoder: AudioDecoder
    number: int
    text: str | None
    """What the segment says, until a chunk has told it."""
    lead: float = 0.0
    """Seconds of silence before it, until they were delivered."""
    is_held: bool = False
    """True where nothing is delivered or told before the last piece: until then it may be dropped."""
    held: list[Samples] = field(default_factory=list)
    """What the decoder has made of a held one."""
    failure: BaseException | None = None
    """What stopped its decoding; of a held one it is raised with the last piece."""
    is_dropped: bool = False
    """Set by the stepping thread: the segment is spoken or decoded again, and this is no longer wanted."""
    is_stopped: bool = False
    """True after QUIET_SECONDS of near-silence: nothing that came later is decoded, however much it is."""
    quiet: float = 0.0
    """Seconds of near-silence at the end of what was decoded."""
    trimmer: Trimmer | None = None
    high_pass: HighPass | None = None

    def __post_init__(self) -> None:
        if self.stream.request.trim:
            self.trimmer = Trimmer(self.stream.sample_rate)
        if self.stream.request.remove_dc:
            self.high_pass = HighPass(DC_HZ, self.stream.sample_rate)

    def mended(self, samples: Samples, *, is_final: bool) -> Samples:
        """The model's samples [S] without offset and silent ends, as far as that was asked for."""
        if self.high_pass is not None:
            samples = self.high_pass.push(samples)
        if self.trimmer is not None:
            samples = self.trimmer.push(samples)
            if is_final:
                samples = np.concatenate((samples, self.trimmer.finish()))
        return samples


@dataclass(frozen=True, eq=False, kw_only=True)
class Piece:
    """Tokens of one segment that become samples together."""

    sound: Sound
    tokens: tuple[Array, ...]
    frames: int
    is_final: bool = False
    """True for the last tokens of the segment."""
    pause: float = 0.0
    """Seconds of silence after the last."""
    is_last: bool = False
    """True when no other segment follows."""
    done: Callable[[Piece], None]
    """Called by the decoding thread when this is done, well or not."""


def decode(piece: Piece) -> None:
    """Deliver a piece to its stream. Whatever fails is the stream's error, and nobody else's."""
    sound = piece.sound
    if sound.is_dropped or not sound.stream._is_wanted():
        return
    if sound.failure is None:
        try:
            _decode(piece, sound)
        except BaseException as error:
            sound.failure = error
            log.exception("decoding failed")
    if sound.failure is not None and (piece.is_final or not sound.is_held):
        sound.stream._fail(as_sonant(sound.failure))


def _decode(piece: Piece, sound: Sound) -> None:
    stream, rate = sound.stream, sound.stream.sample_rate
    began = time.monotonic()
    parts, sound.held = sound.held, []
    if piece.tokens and not sound.is_stopped:
        pushed = as_samples(sound.decoder.push(joined(piece.tokens)))
        parts.append(pushed.copy() if sound.is_held else pushed)  # a decoder may use its memory again
    if piece.is_final:
        parts.append(as_samples(sound.decoder.finish()))
    stream._spend("decode", time.monotonic() - began)
    if sound.is_held and not piece.is_final:
        sound.held = parts
        return
    made = np.concatenate(parts) if parts else NO_SAMPLES
    samples = sound.mended(made, is_final=piece.is_final)
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    if not np.isfinite(peak):
        raise GenerationError(
            f"segment {sound.number + 1} decoded to non-finite samples. The weights or the "
            "precision are at fault; try --dtype float32 without --precision, and sonant parity."
        )
    if peak > 1.0:
        samples = np.clip(samples, -1.0, 1.0)
        message = f"segment {sound.number + 1} reached {peak:.2f} times full scale and was limited"
        stream._note("peak_limited", message, sound.number)
    sound.quiet = quiet_after(made, rate, sound.quiet)
    if sound.quiet >= QUIET_SECONDS and not sound.is_stopped and watches_for(stream.request, "near_silence"):
        message = f"segment {sound.number + 1} ends in {sound.quiet:.1f} s of silence"
        if not piece.is_final:
            sound.is_stopped = True
            message += "; it was stopped there, and its end may be missing. Try another seed."
        stream._note("near_silence", message, sound.number)
    if piece.is_final:
        for name, seconds in getattr(sound.decoder, "timings", {}).items():
            stream._spend(name, seconds)
        samples = np.concatenate([samples, np.zeros(round(piece.pause * rate), dtype=np.float32)])
    if sound.lead:
        samples = np.concatenate([np.zeros(round(sound.lead * rate), dtype=np.float32), samples])
        sound.lead = 0.0
    if len(samples) or piece.is_last:
        stream._deliver(samples, is_final=piece.is_last, text=sound.text)
        sound.text = None


class DecodingThread:
    """Decodes what a model made in the order of `put`. `before` is called before each, in this thread, and
    `fell` with what ends the thread, where that is not `close`."""

    def __init__(
        self, model: object, before: Callable[[], None], fell: Callable[[BaseException], None]
    ) -> None:
        self._model = model
        self._queue: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._before = before
        self._fell = fell
        self.thread = threading.Thread(target=self._run, name="sonant-decode", daemon=True)
        self.thread.start()

    def put(self, piece: Piece) -> None:
        """Decode this next."""
        self._queue.put(piece)

    def close(self) -> None:
        """End after what was put; does not wait."""
        self._queue.put(None)

    def _run(self) -> None:
        try:
            with inference(self._model):
                while (piece := self._queue.get()) is not None:
                    try:
                        self._before()
                        decode(piece)
                    except BaseException as error:
                        piece.sound.stream._fail(as_sonant(error))
                        log.exception("the decoding thread stumbled")
                    piece.done(piece)
        except BaseException as error:
            self._fell(error)


def as_sonant(error: BaseException) -> SonantError:
    """The error as one that a caller expects; others than Sonant's own are named in it."""
    if isinstance(error, SonantError):
        return error
    if is_out_of_memory(error):
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
