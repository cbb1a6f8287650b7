"""Lines spoken by the voices of a cast: the models one after another, so that one at a time is in memory.

Every line is kept as a piece (`readings.pieces`); what decides its samples does not depend on the order in
which lines are spoken. Afterwards the samples of each line are read back at one rate, with its role's gain.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sonant.audio.resample import resample_soxr
from sonant.books.cast import NARRATOR, Cast
from sonant.books.narration import Failure, Line, Reading, Said, arrange, say_all
from sonant.engine.engine import Engine
from sonant.errors import CancelledError, GenerationError
from sonant.readings.job import Job
from sonant.readings.pieces import PieceStore, read_piece
from sonant.request.audio import Samples
from sonant.request.checks import check_request
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice

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
        client: Hashable = None,
        priority: int = 0,
    ) -> None:
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
        self._kept: dict[tuple[str, str, str], _Kept] = {}
        self._store: PieceStore | None = None
        self.stores: list[PieceStore] = []
        """All that were opened."""
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
        kept = self._kept[_key(line)]
        told = read_piece(kept.path)
        if told is None:
            raise GenerationError(
                f"the piece of {line.text[:40]!r} has gone from {self.folder} while the book was bound. "
                "Run it again: it alone is spoken anew."
            )
        samples = resample_soxr(told.samples, kept.rate, self.sample_rate)
        return samples if kept.gain == 1.0 else np.clip(samples * np.float32(kept.gain), -1.0, 1.0)

    @contextmanager
    def store(self) -> Iterator[tuple[PieceStore, ModelSpec]]:
        """The narrator's pieces and model alone, for speech that is laid out in another way."""
        job = self.job(NARRATOR)
        with self._open_engine(job) as engine:
            voice = self._voice_of(job, engine.spec)
            self._store = self.pieces(engine, job, voice)
            if self.is_cancelled:
                raise CancelledError("the reading was cancelled; what was spoken is kept.")
            try:
                yield self._store, engine.spec
            finally:
                self._store = None

    def pieces(self, engine: Engine, job: Job, voice: Voice | str | None) -> PieceStore:
        """A store in this stage's folder."""
        made = PieceStore(engine, job, voice, self.folder, client=self._client, priority=self._priority)
        self.stores.append(made)
        return made

    def cancel(self) -> None:
        """Stop at the next step; `speak` raises CancelledError."""
        self.is_cancelled = True
        if self._store is not None:
            self._store.cancel()

    def _at_one_rate(self, line: Line, said: Said | Failure) -> Said | Failure:
        if isinstance(said, Failure):
            return said
        rate = self._kept[_key(line)].rate
        if rate == self.sample_rate:
            return said
        return replace(said, frames=len(self.samples_of(line)))


class _Stores:
    """The pieces of one model's roles, a store for each job."""

    def __init__(self, stage: Stage, engine: Engine) -> None:
        self._stage = stage
        self._engine = engine
        self._stores: dict[tuple[str, str], tuple[PieceStore, tuple[tuple[str, str], ...]]] = {}

    def say(self, line: Line) -> Said:
        """Say the line or find it kept."""
        stage = self._stage
        store, notes = self._store(line.role, line.manner)
        stage._store = store
        if stage.is_cancelled:
            raise CancelledError("the reading was cancelled; what was spoken is kept.")
        told = store.tell(line.text)
        rate = self._engine.spec.sample_rate
        stage._kept[_key(line)] = _Kept(store.entry(line.text), rate, stage.cast.gain(line.role))
        return Said(len(told.samples), (*told.guards, *notes), told.is_kept)

    def _store(self, role: str, manner: str) -> tuple[PieceStore, tuple[tuple[str, str], ...]]:
        if (role, manner) not in self._stores:
            stage, spec = self._stage, self._engine.spec
            job = stage.job(role)
            voice = stage._voice_of(job, spec)
            spoken = stage.cast.in_manner(job, manner, spec) if manner else job
            notes: tuple[tuple[str, str], ...] = ()
            if spoken is None:
                spoken = job
                notes = (("manner_unused", f"{spec.name} takes no emotions: {manner!r} was not used"),)
            self._stores[role, manner] = (stage.pieces(self._engine, spoken, voice), notes)
        return self._stores[role, manner]


def _key(line: Line) -> tuple[str, str, str]:
    return line.role, line.manner, line.text
