"""Lines spoken by the voices of a cast: the models one after another, so that one at a time is in memory.

Every line is kept as a piece (`readings.pieces`); what decides its samples does not depend on the order in
which lines are spoken. Afterwards the samples of each line are read back at one rate, with its role's gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sonant.audio.resample import resample_soxr
from sonant.books.cast import NARRATOR, Cast
from sonant.books.narration import Failure, Line, Reading, Said, arrange, say_all
from sonant.engine.engine import Engine
from sonant.errors import BusyError, CancelledError, GenerationError
from sonant.readings.job import Job
from sonant.readings.pieces import PieceStore, Told, read_piece
from sonant.readings.verifying import Recognisers, Verdict
from sonant.request.audio import Audio, Samples
from sonant.request.checks import check_request
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice

LONGEST_CONTEXT = 30.0
"""Seconds of clip and earlier speech together that a line may go on from."""
BUSY_SECONDS = 600.0
"""How long a line waits for a place in the engine's queue."""
OpenEngine = Callable[[Job], AbstractContextManager[Engine]]
"""The engine of a job's model, for as long as the block runs."""
VoiceOf = Callable[[Job, ModelSpec], "Voice | str | None"]
"""The voice of a job, as its model takes it. Raises VoiceError and others."""


@dataclass(frozen=True)
class _Kept:
    path: Path
    rate: int
    gain: float


class Stage:
    """Says lines into a folder of pieces and gives their samples back.

    `voice_of` finds a job's voice; `fitted` makes a model's job one that fits the machine; `client` and
    `priority` are the engine's. `cancel` may be called from another thread.

    With `carries`, a line goes on from the one before it in its paragraph, where the same role says both and
    the model clones in context: what was said is put behind the role's clip and transcript. A changed line
    then costs the rest of its paragraph.
    """

    def __init__(
        self,
        base: Job,
        cast: Cast,
        folder: Path,
        *,
        open_engine: OpenEngine,
        voice_of: VoiceOf,
        fitted: Callable[[Job], Job] = lambda job: job,
        carries: bool = False,
        client: Hashable = None,
        priority: int = 0,
    ) -> None:
        self.carries = carries
        self.base = base
        self.cast = cast
        self.folder = folder
        self.specs: dict[str, ModelSpec] = {}
        """The models that spoke, by the name they were asked for."""
        self.sample_rate = 0
        """Hz of the finished reading: the highest of its models."""
        self._open_engine = open_engine
        self._voice_of = voice_of
        self._fitted = fitted
        self._client, self._priority = client, priority
        self._kept: dict[Line, _Kept] = {}
        self._store: PieceStore | None = None
        self._recognisers = Recognisers()
        self.verdicts: list[Verdict] = []
        """Of what was listened to in this run (--verify)."""
        self.timings: dict[str, float] = {}
        """Seconds of work in this run, by stage of it."""
        self.is_cancelled = False

    def job(self, role: str) -> Job:
        """What says a role's lines."""
        return self._fitted(self.cast.job(role, self.base))

    def check(self, lines: Sequence[Line], spec_of: Callable[[str], ModelSpec | None]) -> None:
        """Raise what any role's voice or settings would, before the first word; a model whose spec is not
        known is left to its loading."""
        for role in dict.fromkeys(line.role for line in lines):
            job = self.job(role)
            spec = spec_of(job.model)
            if spec is None:
                continue
            manners = dict.fromkeys(line.manner for line in lines if line.role == role)
            voice = self._voice_of(job, spec)
            for manner in manners:
                spoken = self.cast.in_manner(job, manner, spec) if manner else job
                if spoken is not None:
                    check_request(replace(spoken, text="A word.").request(voice, spec=spec), spec)

    def speak(
        self, lines: Sequence[Line], *, on_line: Callable[[Line, bool], None] = lambda line, kept: None
    ) -> Reading:
        """Say every line. Raises as `narration.say_all` and `arrange`."""
        self._hear_in(lines, [line.text for line in lines])
        models: dict[str, list[int]] = {}
        for place, line in enumerate(lines):
            models.setdefault(self.job(line.role).model, []).append(place)
        said: dict[int, Said | Failure] = {}
        for places in models.values():
            mine = [lines[place] for place in places]
            with self._open_engine(self.job(mine[0].role)) as engine:
                stores = _Stores(self, engine)
                self.specs[engine.spec.name] = engine.spec
                self.sample_rate = max(self.sample_rate, engine.spec.sample_rate)
                said |= zip(places, say_all(mine, stores.say, on_line=on_line), strict=True)
                self._store = None
        return arrange(
            lines, [self._at_one_rate(lines[n], said[n]) for n in range(len(lines))], self.sample_rate
        )

    def samples_of(self, line: Line) -> Samples:
        """The samples of a line that was spoken, at `sample_rate`, with its role's gain."""
        if self.is_cancelled:
            raise CancelledError("the reading was cancelled; what was spoken is kept.")
        kept = self._kept[line]
        told = read_piece(kept.path)
        if told is None:
            raise GenerationError(
                f"the piece of {line.text[:40]!r} has gone from {self.folder} while the book was bound. "
                "Run it again: it alone is spoken anew."
            )
        samples = resample_soxr(told.samples, kept.rate, self.sample_rate)
        return samples * np.float32(kept.gain)  # peaks are rounded once the level of the whole is known

    def _hear_in(self, lines: Sequence[Line], texts: Sequence[str]) -> None:
        """Decide what is listened for (--verify). Raises, before the first word, what a recogniser that is
        not installed or does not know a role's language would."""
        jobs = [self.job(role) for role in dict.fromkeys(line.role for line in lines)]
        if any(job.verify for job in jobs):
            self._recognisers.expect("\n".join(texts))
        for job in jobs:
            if job.verify:
                self._recognisers.of(job.get("language"), "")

    @contextmanager
    def store(self, texts: Sequence[str]) -> Iterator[tuple[PieceStore, ModelSpec]]:
        """The narrator's pieces and model alone, for texts that are laid out in another way."""
        job = self.job(NARRATOR)
        self._hear_in([Line(0, 0, "", 0.0)], texts)
        with self._open_engine(job) as engine:
            voice = self._voice_of(job, engine.spec)
            self._store = self.pieces(engine, job, voice)
            if self.is_cancelled:
                raise CancelledError("the reading was cancelled; what was spoken is kept.")
            try:
                yield self._store, engine.spec
            finally:
                self.collect(self._store)
                self._store = None

    def collect(self, store: PieceStore) -> None:
        """Take what a store noted; none is kept, as it would keep its model in memory."""
        self.verdicts += store.verdicts
        store.verdicts.clear()
        for name, seconds in store.timings.items():
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        store.timings.clear()

    def pieces(self, engine: Engine, job: Job, voice: Voice | str | None) -> PieceStore:
        """A store in this stage's folder."""
        return PieceStore(
            engine, job, voice, self.folder, client=self._client, priority=self._priority,
            recognisers=self._recognisers,
        )  # fmt: skip

    def cancel(self) -> None:
        """Stop at the next step; `speak` raises CancelledError."""
        self.is_cancelled = True
        if self._store is not None:
            self._store.cancel()

    def _at_one_rate(self, line: Line, said: Said | Failure) -> Said | Failure:
        if isinstance(said, Failure):
            return said
        rate = self._kept[line].rate
        if rate == self.sample_rate:
            return said
        return replace(said, frames=len(self.samples_of(line)))


@dataclass(frozen=True)
class _Part:
    """A role in one manner, as the loaded model says it."""

    job: Job
    voice: Voice | str | None
    store: PieceStore
    notes: tuple[tuple[str, str], ...]


class _Stores:
    """The pieces of one model's roles, a store for each job."""

    def __init__(self, stage: Stage, engine: Engine) -> None:
        self._stage = stage
        self._engine = engine
        self._parts: dict[tuple[str, str], _Part] = {}
        self._last: tuple[Line, Samples] | None = None
        """What was said last, to go on from."""

    def say(self, line: Line) -> Said:
        """Say the line or find it kept."""
        stage, rate = self._stage, self._engine.spec.sample_rate
        part = self._part(line.role, line.manner)
        before, self._last = self._last, None
        store = part.store
        if stage.carries and before is not None:
            going_on = self._going_on(part, line, before)
            store = store if going_on is None else stage.pieces(self._engine, part.job, going_on)
        stage._store = store
        if stage.is_cancelled:
            raise CancelledError("the reading was cancelled; what was spoken is kept.")
        told = self._tell(store, line.text)
        stage.collect(store)
        stage._kept[line] = _Kept(store.entry(line.text), rate, stage.cast.gain(line.role))
        self._last = (line, told.samples)
        return Said(len(told.samples), (*told.guards, *part.notes), told.is_kept)

    def _tell(self, store: PieceStore, text: str) -> Told:
        """The piece; a full queue is no fault of the line, which waits for its turn."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return store.tell(text)
            except BusyError as error:
                if self._stage.is_cancelled or time.monotonic() > until:
                    raise
                time.sleep(min(error.retry_after, 2.0))

    def _part(self, role: str, manner: str) -> _Part:
        if (role, manner) not in self._parts:
            stage, spec = self._stage, self._engine.spec
            job = stage.job(role)
            voice = stage._voice_of(job, spec)
            spoken = stage.cast.in_manner(job, manner, spec) if manner else job
            notes: tuple[tuple[str, str], ...] = ()
            if spoken is None:
                spoken = job
                notes = (("manner_unused", f"{spec.name} takes no emotions: {manner!r} was not used"),)
            self._parts[role, manner] = _Part(spoken, voice, stage.pieces(self._engine, spoken, voice), notes)
        return self._parts[role, manner]

    def _going_on(self, part: _Part, line: Line, before: tuple[Line, Samples]) -> Voice | None:
        """The role's voice with what was said before behind its clip; None where it cannot go on."""
        spec, voice = self._engine.spec, part.voice
        last, samples = before
        places = [(one.chapter, one.paragraph, one.role, one.manner) for one in (last, line)]
        if places[0] != places[1] or "clone_in_context" not in spec.capabilities:
            return None
        if not isinstance(voice, Voice) or voice.clip is None or not voice.transcript:
            return None
        rate = voice.clip.sample_rate
        said = resample_soxr(samples, spec.sample_rate, rate)
        gap = np.zeros(round(last.pause_after * rate), np.float32)
        clip = Audio(np.concatenate([voice.clip.samples, gap, said]), rate)
        if clip.seconds > min(LONGEST_CONTEXT, spec.max_reference_seconds):
            return None
        transcript = f"{voice.transcript} {last.text}"
        return replace(voice, clip=clip, transcript=transcript, tensors={}, family="", fingerprint="")
