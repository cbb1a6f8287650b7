"""Runs one job for a command: loads the model, finds the voice, shows progress, writes and plays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

if TYPE_CHECKING:
    from sonant.checkpoints.memory import Plan
    from sonant.engine.engine import Engine
    from sonant.engine.stream import SpeechStream
    from sonant.errors import SonantError
    from sonant.readings.delivery import Outcome
    from sonant.readings.job import Job
    from sonant.readings.verifying import Verdict
    from sonant.request.speech import AudioChunk, ModelSpec
    from sonant.request.voice import Voice


@dataclass(frozen=True, eq=False)
class Spoken:
    """An outcome, and with what it was spoken."""

    job: Job
    """As it was spoken: it says what "auto" was."""
    outcome: Outcome
    spec: ModelSpec
    voice: Voice | str | None
    load_seconds: float
    reused: int = 0
    """Pieces that an earlier run had spoken."""


def warn(message: str) -> None:
    """One line on stderr."""
    typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW if sys.stderr.isatty() else None)


@contextmanager
def status(words: str) -> Iterator[None]:
    """A spinner with `words` on a terminal; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(words):
        yield


class Fitting:
    """Makes jobs ones that say what "auto" stands for here: the precision, and below a memory limit what
    gave way, which a warning tells. Each model is looked at once.

    `device` is where "auto" is when the jobs are spoken by other machines than this one; `strict` as for
    `registry.load`.
    """

    def __init__(
        self, memory_limit: str | None = None, *, slots: int = 1, device: str = "auto", strict: bool = False
    ) -> None:
        self._limit, self._slots, self._device, self._strict = memory_limit, slots, device, strict
        self._chosen: dict[str, tuple[str, str] | SonantError] = {}
        self.plans: dict[str, Plan] = {}
        """How each model is loaded below the limit."""

    def __call__(self, job: Job) -> Job:
        """The job with the dtype and the precision that it is spoken in. Raises as `registry.plan`."""
        from sonant.errors import SonantError

        if job.model not in self._chosen:
            try:
                self._chosen[job.model] = self._choose(job)
            except SonantError as error:
                self._chosen[job.model] = error
        found = self._chosen[job.model]
        if isinstance(found, SonantError):
            raise found
        dtype, precision = found
        if (dtype, precision) == (job.dtype, job.precision):
            return job
        return replace(job, dtype=dtype, precision=precision)

    def engine(self, job: Job) -> Engine:
        """An engine for a job that was made to fit."""
        return load_engine(
            job.model,
            device=job.device,
            dtype=job.dtype,
            precision=job.precision,
            planned=self.plans.get(job.model),
            strict=self._strict,
        )

    def _choose(self, job: Job) -> tuple[str, str]:
        from sonant.catalogue import registry

        device = job.device if job.device != "auto" else self._device
        precision = registry.choose_precision(job.model, job.precision, device=device, dtype=job.dtype)
        if self._limit is None:
            return job.dtype, precision
        planned = registry.plan(
            job.model,
            memory_limit=self._limit,
            device=device,
            dtype=job.dtype,
            precision=job.precision,
            slots=self._slots,
        )
        for remark in planned.remarks:
            warn(remark)
        registry.limit_device(device, self._limit)
        self.plans[job.model] = planned
        return planned.words(job.dtype, precision)


def load_engine(
    model: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    precision: str = "auto",
    planned: Plan | None = None,
    strict: bool = False,
) -> Engine:
    """An engine for one request at a time, over the user's voice library; `planned` below a limit."""
    from sonant.catalogue.registry import load

    with status(f"loading {model}"):
        return load(
            model,
            device=device,
            dtype=dtype,
            precision=precision,
            slots=1,
            strict=strict,
            **(planned.load_options if planned is not None else {}),
        )


def job_voice(job: Job, spec: ModelSpec) -> Voice | str | None:
    """The voice of a job for its model: designed now, or found where it is kept."""
    from sonant.readings.job_voice import job_voice

    if job.design_model is None:
        return job_voice(job, spec)
    with status(f"designing the voice with {job.design_model}"):
        return job_voice(job, spec)


def speak(
    job: Job,
    *,
    target: Path | BinaryIO | None,
    play: bool = False,
    pieces: Path | None = None,
    engine: Engine | None = None,
    voice: Voice | str | None = None,
    fitting: Fitting | None = None,
) -> Spoken:
    """Do the job. With an `engine`, its `voice` was found already; without one, `fitting` fits the job first.
    `pieces` is where finished pieces lie."""
    from sonant.audio.player import Player, find_player
    from sonant.cli.interrupt import CtrlC
    from sonant.errors import CancelledError
    from sonant.readings.delivery import deliver
    from sonant.readings.pieces import Narration
    from sonant.readings.verifying import Verified

    if play:
        find_player()
    began = time.monotonic()
    if engine is None:
        fitting = fitting or Fitting()
        with status(f"loading {job.model}"):  # torch, and on a first run the kernels
            job = fitting(job)
        engine = fitting.engine(job)
        voice = job_voice(job, engine.spec)
    load_seconds = time.monotonic() - began
    try:
        spoken: SpeechStream | Narration | Verified
        if pieces is not None:
            spoken = Narration(engine, job, voice, pieces)
        elif job.verify:
            spoken = Verified(engine, job.request(voice, spec=engine.spec), tries=job.verify_tries)
        else:
            spoken = engine.submit(job.request(voice, spec=engine.spec), streaming=job.is_streamed)
        with ExitStack() as stack:
            ctrl_c = stack.enter_context(CtrlC())
            on_chunk = stack.enter_context(progress(lambda: len(spoken.segments)))
            players = (stack.enter_context(Player(spoken.sample_rate)),) if play else ()
            outcome = deliver(
                spoken, job, target=target, listeners=players, on_chunk=on_chunk, waiting=ctrl_c.waiting
            )
    except CancelledError:
        raise  # at once: closing would wait for the step under way
    except BaseException:
        engine.close()
        raise
    engine.close()
    reused = spoken.reused if isinstance(spoken, Narration) else 0
    return Spoken(job, outcome, engine.spec, voice, load_seconds, reused)


def tell_verdicts(verdicts: Sequence[Verdict], timings: Mapping[str, float]) -> None:
    """One line on stderr of what listening found and what it cost, where there was any."""
    if not verdicts:
        return
    again = sum(verdict.tries for verdict in verdicts)
    wrong = sum(not verdict.is_right for verdict in verdicts)
    typer.echo(
        f"listened to {len(verdicts)} segments in {timings.get('verify', 0.0):.1f} s, spoke {again} again in "
        f"{timings.get('verify_again', 0.0):.1f} s; {wrong} still wrong",
        err=True,
    )


@contextmanager
def progress(segments: Callable[[], int]) -> Iterator[Callable[[AudioChunk], None]]:
    """A bar over the segments known so far on a terminal, nothing in a pipe; gives what hears each chunk."""
    if not sys.stderr.isatty():
        yield lambda chunk: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("speaking"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[seconds]:.1f} s"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("speaking", total=segments(), seconds=0.0)
        begun = 0

        def hear(chunk: AudioChunk) -> None:
            nonlocal begun
            begun += chunk.text is not None
            end = chunk.start + len(chunk.samples) / chunk.sample_rate
            total = segments()
            completed = total if chunk.is_final else max(0, begun - 1)
            bar.update(task, completed=completed, total=total, seconds=end)

        yield hear


@contextmanager
def told_when_stopped(words: str) -> Iterator[None]:
    """A Ctrl-C inside ends with status 130 and says what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; {words}", err=True)
        raise typer.Exit(130) from None


@contextmanager
def bar(words: str, total: int) -> Iterator[Callable[[int], None]]:
    """What is told how much more of `total` is done: a bar with the time left on a terminal, a line for every
    tenth in a pipe."""
    if not sys.stderr.isatty():
        done = 0

        def count(more: int) -> None:
            nonlocal done
            before, done = done, done + more
            if total and done * 10 // total > before * 10 // total:
                typer.echo(f"{done * 10 // total * 10} %", err=True)

        yield count
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(words), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(words, total=total)
        yield lambda more: shown.advance(task, more)
