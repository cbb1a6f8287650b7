"""Carries spoken chunks to a file, a pipe or a player, mends what must be mended, and tells how it went.

A file grows chunk by chunk, levelled by what has passed, so whatever ends the run, what is on disk plays. A
recording that is whole is written once more at the end, beside the first, which it then replaces: with one
gain, and with an automatic high-pass where it needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from sonant.audio.encode import AudioWriter, find_format, format_of_path
from sonant.audio.loudness import Leveller, at_loudness
from sonant.audio.rumble import CUTOFF_HZ, HighPass, Rumble, RumbleMeter
from sonant.errors import CancelledError, RequestError, SonantError, StorageError
from sonant.files import FULL, written_over
from sonant.readings.job import Job
from sonant.readings.verifying import Verdict
from sonant.request.audio import Samples
from sonant.request.speech import AudioChunk, GuardEvent


class ChunkSource(Protocol):
    """What is delivered: a SpeechStream, or a Narration."""

    sample_rate: int
    seed: int

    @property
    def guards(self) -> list[GuardEvent]:
        """What was stopped or mended so far."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage."""

    @property
    def segments(self) -> tuple[str, ...]:
        """Texts of the segments known so far; all of them at the end."""

    def get(self) -> AudioChunk:
        """The next chunk; the last one is final."""

    def cancel(self) -> None:
        """Stop."""


class Listener(Protocol):
    """Somebody who hears the samples as they come."""

    def write(self, samples: Samples) -> None:
        """Take the next samples [S]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How a job went."""

    seconds: float
    sample_rate: int
    seed: int
    guards: tuple[GuardEvent, ...]
    timings: Mapping[str, float]
    segments: tuple[str, ...]
    rumble: Rumble
    """Of the model's own samples, before any filter."""
    is_filtered: bool
    chunks: int = 0
    clipped: int = 0
    verdicts: tuple[Verdict, ...] = ()
    """What a recogniser made of each segment, where it was asked."""


def check_target(target: Path, format: str | None) -> str:
    """The format to write at `target`. Raises RequestError for what could not be written later."""
    name = find_format(format).name if format is not None else format_of_path(target).name
    if target.is_dir():
        raise RequestError(f"{target} is a folder; expected a file to write to. Add a file name.")
    if not target.absolute().parent.is_dir():
        raise RequestError(
            f"{target} cannot be written: there is no folder {target.absolute().parent}; expected one. Make "
            "it first."
        )
    return name


def deliver(
    spoken: ChunkSource,
    job: Job,
    *,
    target: Path | BinaryIO | None,
    listeners: tuple[Listener, ...] = (),
    on_chunk: Callable[[AudioChunk], None] = lambda chunk: None,
    waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Outcome:
    """Read `spoken` to its end and write it to `target`; listeners hear the same samples.

    A KeyboardInterrupt inside `waiting()` stops the speech, closes the file so that it plays, and becomes
    CancelledError. Errors of the speech come through after the file was closed.
    """
    rate = spoken.sample_rate
    meter = RumbleMeter(rate)
    cutoff = None if job.de_rumble in {"off", "auto"} else float(job.de_rumble)
    high_pass = HighPass(cutoff, rate) if cutoff is not None else None
    leveller = Leveller(job.loudness, rate) if job.loudness is not None else None
    is_whole = not (job.is_streamed or job.in_pieces)
    may_rewrite = is_whole and (job.loudness is not None or job.de_rumble == "auto")
    is_pipe = target is not None and not isinstance(target, Path)
    kept: list[Samples] = []
    writer: AudioWriter | None = None
    seconds = 0.0
    chunks = 0
    try:
        while True:
            with waiting():
                chunk = spoken.get()
            meter.push(chunk.samples)
            samples = high_pass.push(chunk.samples) if high_pass is not None else chunk.samples
            if may_rewrite:
                kept.append(samples)
            # What comes as one chunk is written once, when it is whole.
            is_written = not (may_rewrite and (is_pipe or (chunk.is_final and not chunks)))
            if leveller is not None and (is_written or listeners):
                samples = leveller.push(samples)
            if target is not None and is_written:
                writer = writer or AudioWriter(target, rate, format=job.format)
                writer.write(samples)
            for listener in listeners:
                listener.write(samples)
            seconds += len(samples) / rate
            chunks += 1
            on_chunk(chunk)
            if chunk.is_final:
                break
    except KeyboardInterrupt:
        where = f" and are kept in {target}" if isinstance(target, Path) and writer is not None else ""
        again = "Run it again to go on." if job.in_pieces else "Run it again for the whole text."
        raise CancelledError(f"stopped by Ctrl-C; {seconds:.1f} s were spoken{where}. {again}") from None
    except SonantError as error:
        if writer is not None and isinstance(target, Path):
            error.add_note(f"{seconds:.1f} s that were spoken before are kept in {target}")
        raise
    finally:
        spoken.cancel()
        if writer is not None:
            writer.close()
    rumble = meter.result()
    guards = list(spoken.guards)
    is_filtered = high_pass is not None
    if rumble.is_excessive and not is_filtered and job.de_rumble == "auto":
        found = (
            f"the speech has a DC offset of {rumble.offset:+.3f}; {rumble.share:.0%} of its energy is rumble"
        )
        if is_whole:
            kept = [HighPass(CUTOFF_HZ, rate).push(np.concatenate(kept))]
            is_filtered = True
            done = f"a high-pass at {CUTOFF_HZ:g} Hz was applied (--de-rumble off keeps it as it was)"
        else:
            done = f"speak it again with --de-rumble {CUTOFF_HZ:g}"
        guards.append(GuardEvent("rumble", f"{found}; {done}"))
    clipped = writer.encoder.clipped if writer is not None else 0
    if may_rewrite and target is not None and (writer is None or is_filtered or job.loudness is not None):
        whole = np.concatenate(kept) if kept else np.zeros(0, np.float32)
        if job.loudness is not None:
            whole = at_loudness(whole, rate, job.loudness)
        clipped = _write_whole(whole, rate, job.format, target, is_kept=writer is not None)
    return Outcome(
        seconds=seconds,
        sample_rate=rate,
        seed=spoken.seed,
        guards=tuple(guards),
        timings=dict(spoken.timings),
        segments=tuple(spoken.segments),
        rumble=rumble,
        is_filtered=is_filtered,
        chunks=chunks,
        clipped=clipped,
        verdicts=tuple(getattr(spoken, "verdicts", ())),
    )


def _write_whole(
    samples: Samples, sample_rate: int, format: str, target: Path | BinaryIO, *, is_kept: bool
) -> int:
    """Write the whole; what was there of a file stays until this is done. Gives how many samples were held at
    full scale. Raises StorageError where there is no room; with `is_kept` it was written as it was spoken.
    """
    place: AbstractContextManager[Path | BinaryIO]
    place = written_over(target) if isinstance(target, Path) else nullcontext(target)
    try:
        with place as file, AudioWriter(file, sample_rate, format=format) as writer:
            writer.write(samples)
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = f"It is kept in {target}, levelled as it was spoken" if is_kept else "Nothing of it is kept"
        raise StorageError(
            f"the recording is whole and cannot be written ({error.strerror}); expected room on the disk. "
            f"{kept}. Make room, and run it again."
        ) from error
    return writer.encoder.clipped
