"""Many items spoken into a folder, several at a time; what is there already is not spoken again.

    DIR/NAME.wav           what was said
    DIR/status/NAME.json   how it went, and the key of everything that decides its bytes
    DIR/summary.json

A file is written before its status, each whole or not at all, so whenever a run is stopped the next one goes
on: an item is done when its status has its key and its file the bytes that the status names.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sonant import __version__
from sonant.audio.encode import FORMATS
from sonant.catalogue import registry
from sonant.checkpoints.memory import Plan
from sonant.engine.engine import Engine
from sonant.engine.stream import SpeechStream
from sonant.errors import RequestError, SonantError, StorageError, describe
from sonant.files import FULL, SHUT, Held, sweep_parts, write_atomically
from sonant.readings.delivery import deliver
from sonant.readings.job import Job
from sonant.readings.job_voice import job_voice
from sonant.readings.manifest import Item
from sonant.readings.verifying import Recognisers, Verdict, Verified
from sonant.request.speech import ModelSpec, SpeechRequest
from sonant.request.voice import Voice

log = logging.getLogger(__name__)

AHEAD = 2
"""Items under way for each slot of the engine, so that none waits for the next item."""
MOST_VOICES = 16
"""Voices that a worker keeps; one that was used longest ago is read or designed again."""


@dataclass(frozen=True)
class Clip:
    """An item that was spoken: the bytes of its file and what is told of it."""

    data: bytes
    seconds: float
    seed: int
    guards: tuple[tuple[str, str], ...]
    verdicts: tuple[Verdict, ...] = ()
    """What a recogniser made of each segment, where it was asked."""


@dataclass(frozen=True)
class Failed:
    """An item that could not be spoken."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How models are loaded."""

    device: str = "auto"
    dtype: str = "auto"
    precision: str = "auto"
    slots: int = 4
    memory_limit: str | None = None
    strict: bool = False
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """Of models that were fitted below the limit when their items were: they are loaded as planned."""

    def of(self, items: Sequence[Item]) -> Machine:
        """For one model: with the dtype and the precision that its items name, and as it was planned."""
        job = items[0].job
        assert job is not None
        plan = self.plans.get(job.model)
        plans = {} if plan is None else {job.model: plan}
        slots = self.slots if plan is None else plan.slots
        return replace(self, dtype=job.dtype, precision=job.precision, slots=slots, plans=plans)


class Worker:
    """One loaded model that says jobs, several at a time from as many threads."""

    def __init__(self, model: str, machine: Machine) -> None:
        # Planned again, after another model, what gave way would be a word that stays and has less room.
        plan = machine.plans.get(model)
        fit = {"memory_limit": machine.memory_limit} if plan is None else plan.load_options
        self.engine: Engine = registry.load(
            model,
            device=machine.device,
            dtype=machine.dtype,
            precision=machine.precision,
            slots=machine.slots,
            strict=machine.strict,
            # An item that is heard wrong has a second request beside its first.
            queue_limit=2 * machine.slots * AHEAD,
            **fit,
        )
        self._voices: dict[str, Voice | str | None] = {}
        self._lock = threading.Lock()
        self._recognisers = Recognisers()

    def say(self, job: Job) -> Clip | Failed:
        """The job's file, or why there is none; never raises but for what stops everything."""
        try:
            return self._say(job)
        except StorageError:
            raise
        except SonantError as error:
            return Failed(describe(error)[2], str(error))
        except Exception as error:
            log.exception("an item broke")
            return Failed("internal_error", f"{type(error).__name__}: {error}")

    def _say(self, job: Job) -> Clip:
        spec = self.engine.spec
        request = job.request(self._voice(job, spec), spec=spec)
        spoken, remarks = self._spoken(job, request)
        file = io.BytesIO()  # no folder for temporary files, which may be full
        outcome = deliver(spoken, job, target=file)
        guards = tuple((guard.kind, guard.message) for guard in outcome.guards)
        return Clip(file.getvalue(), outcome.seconds, outcome.seed, guards + remarks, outcome.verdicts)

    def _spoken(
        self, job: Job, request: SpeechRequest
    ) -> tuple[SpeechStream | Verified, tuple[tuple[str, str], ...]]:
        """What is read, and a remark where it is not listened to although it was asked."""
        if job.verify:
            try:
                with self._lock:  # one is loaded once
                    recogniser = self._recognisers.of(request.language, request.text)
            except RequestError as error:
                if request.language is not None:
                    raise
                # The language was guessed from what may be three words: no reason to lose the clip.
                remark = ("not_listened_to", f"nobody listened to it: {error}")
                return self.engine.submit(request, streaming=False), (remark,)
            return Verified(self.engine, request, tries=job.verify_tries, recogniser=recogniser), ()
        return self.engine.submit(request, streaming=False), ()

    def _voice(self, job: Job, spec: ModelSpec) -> Voice | str | None:
        key = json.dumps([job.voice, job.transcript, job.design_model, job.design_text, dict(job.settings)
                          if job.design_model else None])  # fmt: skip
        with self._lock:  # one voice is read or designed once
            voice = self._voices.pop(key) if key in self._voices else job_voice(job, spec)
            self._voices[key] = voice
            if len(self._voices) > MOST_VOICES:
                del self._voices[next(iter(self._voices))]
            return voice

    def close(self) -> None:
        """Stop what is being said, and end."""
        self.engine.close()


Results = Iterator[tuple[Item, "Clip | Failed"]]
SayAll = Callable[[str, Sequence[Item]], Results]
"""Says the items of one model in any order."""


def say_here(machine: Machine) -> SayAll:
    """Speak in this process, `machine.slots` items as one batch."""

    def say_all(model: str, items: Sequence[Item]) -> Results:
        mine = machine.of(items)
        worker = Worker(model, mine)
        pool = ThreadPoolExecutor(mine.slots * AHEAD, thread_name_prefix="sonant-batch")
        todo = iter(items)
        under_way: dict[Future[Clip | Failed], Item] = {}
        try:
            while True:
                for item in todo:
                    assert item.job is not None
                    under_way[pool.submit(worker.say, item.job)] = item
                    if len(under_way) >= mine.slots * AHEAD:
                        break
                if not under_way:
                    return
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda one: under_way[one].line):
                    yield under_way.pop(future), future.result()
        finally:
            worker.close()  # whoever is speaking ends at the next step
            pool.shutdown(cancel_futures=True)

    return say_all


@dataclass
class Summary:
    """How a batch went."""

    items: int = 0
    done: int = 0
    """Spoken in this run."""
    kept: int = 0
    """There from before."""
    failed: int = 0
    seconds: float = 0.0
    """Of speech, in all that is there."""
    elapsed: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every item is there."""
        return not self.failed


class Batch:
    """A folder that items are spoken into; `fitted` makes a job say what "auto" stands for."""

    def __init__(self, folder: Path, *, fitted: Callable[[Job], Job] = lambda job: job) -> None:
        self.folder = folder
        self._fitted = fitted
        self._specs: dict[str, ModelSpec | SonantError] = {}
        self._voices: dict[tuple[str, str | None, str | None], str | None] = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder, made if need be, for this process alone.

        Raises RequestError where another has it or it is none, StorageError where it may not be written.
        """
        try:
            held = Held(self.folder / "status")
        except BlockingIOError as error:
            raise RequestError(
                f"another batch is writing to {self.folder}. Wait for it, or choose another folder."
            ) from error
        except OSError as error:
            raise (StorageError if error.errno in (*FULL, *SHUT) else RequestError)(
                f"cannot write to {self.folder} ({error.strerror or error}); expected a folder for the "
                "clips. Check its permissions."
            ) from error
        try:
            for place in (self.folder, self.folder / "status"):
                sweep_parts(place)
            yield
        finally:
            held.close()

    def key(self, item: Item) -> str:
        """A hash of everything that decides an item's bytes. Raises SonantError for what cannot be spoken."""
        job = item.job
        assert job is not None
        spec = self._spec(job.model)
        data = job.to_data()
        del data["model"], data["in_pieces"]
        data["version"], data["model"] = __version__, [spec.family, spec.fingerprint]
        if job.design_model is None:
            data["voice"] = self._voice(job, spec)
        data["inputs"] = job.input_hashes()
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def _voice(self, job: Job, spec: ModelSpec) -> str | None:
        """What tells a voice from others; a clip is decoded once for all its items."""
        asked = (job.model, job.voice, job.transcript)
        if asked not in self._voices:
            voice = job_voice(job, spec)
            self._voices[asked] = voice.digest() if isinstance(voice, Voice) else voice
        return self._voices[asked]

    def _spec(self, model: str) -> ModelSpec:
        if model not in self._specs:
            try:
                self._specs[model] = registry.describe(model)
            except SonantError as error:
                self._specs[model] = error
        found = self._specs[model]
        if isinstance(found, SonantError):
            raise found
        return found

    def sort(
        self, items: Iterable[Item]
    ) -> tuple[dict[str, list[Item]], dict[int, str], list[tuple[Item, Failed]], list[Item]]:
        """Items to say by model and fitted, keys by line, those that cannot be said, those that are there."""
        self._voices.clear()  # a clip may have changed since
        todo: dict[str, list[Item]] = {}
        keys: dict[int, str] = {}
        broken: list[tuple[Item, Failed]] = []
        there: list[Item] = []
        for item in items:
            if item.job is None:
                broken.append((item, Failed("invalid_request", item.error)))
                continue
            try:
                job = self._fitted(item.job)
                item = replace(item, job=job)
                keys[item.line] = self.key(item)
            except SonantError as error:
                broken.append((item, Failed(describe(error)[2], str(error))))
                continue
            except Exception as error:
                log.exception("an item cannot be looked at")
                broken.append((item, Failed("internal_error", f"{type(error).__name__}: {error}")))
                continue
            if self.is_there(item, keys[item.line]):
                there.append(item)
            else:
                todo.setdefault(job.model, []).append(item)
        return todo, keys, broken, there

    def is_there(self, item: Item, key: str) -> bool:
        """Whether an item was spoken with this key and its file is whole."""
        spoken = self._spoken(item)
        if spoken.get("key") != key or spoken.get("file") != item.file:
            return False
        try:
            return hashlib.sha256((self.folder / item.file).read_bytes()).hexdigest() == spoken.get("sha256")
        except OSError:
            return False

    def _status(self, item: Item) -> Mapping[str, Any]:
        try:
            found = json.loads((self.folder / "status" / f"{item.name}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _spoken(self, item: Item) -> Mapping[str, Any]:
        """The status of the clip that lies there, also where the item could not be looked at since."""
        status = self._status(item)
        found = status if status.get("status") == "done" else status.get("before")
        return found if isinstance(found, dict) else {}

    def _remove_clip(self, item: Item, *, but: str | None = None) -> None:
        """Remove the clip of an item that is another now, unless its file is the one named `but`."""
        file = self._spoken(item).get("file")
        if file != but and file in [item.name + form.suffixes[0] for form in FORMATS.values()]:
            (self.folder / file).unlink(missing_ok=True)

    def run(
        self,
        items: Sequence[Item],
        say_all: SayAll,
        *,
        on_item: Callable[[Item, Clip | Failed | None], None] = lambda item, result: None,
    ) -> Summary:
        """Speak what is not there. `on_item` is told each: its clip, its failure, or None for what was there.

        Raises StorageError where nothing can be written; every item that was finished stays.
        """
        began = time.monotonic()
        todo, keys, broken, there = self.sort(items)
        summary = Summary(items=len(items))
        for item in there:
            summary.kept += 1
            spoken = self._spoken(item)
            summary.seconds += spoken.get("seconds", 0.0)
            if self._status(item) != spoken:
                self._write(f"status/{item.name}.json", spoken)
            on_item(item, None)
        for item, failed in broken:
            self._fail(summary, item, failed, is_other=False)
            on_item(item, failed)
        for model, group in todo.items():
            left = {item.line: item for item in group}
            try:
                for item, result in say_all(model, group):
                    del left[item.line]
                    if isinstance(result, Failed):
                        self._fail(summary, item, result, is_other=True)
                    else:
                        self._keep(item, keys[item.line], result)
                        summary.done += 1
                        summary.seconds += result.seconds
                    on_item(item, result)
            except StorageError:
                raise
            except SonantError as error:  # the model cannot be had: the items of the others go on
                for item in left.values():
                    failed = Failed(describe(error)[2], str(error))
                    self._fail(summary, item, failed, is_other=True)
                    on_item(item, failed)
        summary.failures.sort(key=lambda failure: failure["line"])
        summary.elapsed = round(time.monotonic() - began, 3)
        summary.seconds = round(summary.seconds, 3)
        self._write("summary.json", asdict(summary))
        return summary

    def _keep(self, item: Item, key: str, clip: Clip) -> None:
        self._write(item.file, clip.data)
        self._remove_clip(item, but=item.file)  # of another format
        told: dict[str, Any] = {
            "status": "done",
            "name": item.name,
            "line": item.line,
            "file": item.file,
            "key": key,
            "sha256": hashlib.sha256(clip.data).hexdigest(),
            "seconds": round(clip.seconds, 4),
            "seed": clip.seed,
            "guards": [{"kind": kind, "message": message} for kind, message in clip.guards],
        }
        if clip.verdicts:
            told["verdicts"] = [verdict.as_dict() for verdict in clip.verdicts]
        self._write(f"status/{item.name}.json", told)

    def _fail(self, summary: Summary, item: Item, failed: Failed, *, is_other: bool) -> None:
        """Tell it. A clip that lies there is removed where the item `is_other` than what was spoken; where
        nobody knows, as with a model that is not found today, it is kept with its key."""
        told: dict[str, Any] = {"status": "failed", "name": item.name, "line": item.line, **asdict(failed)}
        if is_other:
            self._remove_clip(item)
        elif before := self._spoken(item):
            told["before"] = before
        summary.failed += 1
        summary.failures.append({name: told[name] for name in ("line", "name", "code", "message")})
        self._write(f"status/{item.name}.json", told)

    def _write(self, name: str, data: bytes | Mapping[str, Any]) -> None:
        if not isinstance(data, bytes):
            data = (json.dumps(data, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "replace")
        try:
            write_atomically(self.folder / name, data, is_private=False)
        except OSError as error:
            raise StorageError(
                f"{name} cannot be written to {self.folder} ({error.strerror or error}); expected room on "
                "the disk. Make some and run it again: what is there is not spoken again."
            ) from error
