"""Readings of books on a server: queued, spoken beside everybody's requests, kept, resumed after a restart.

A reading speaks one line at a time through the engine's own turns, as its owner and below any short request's
priority, whoever sends that. Two run at once, one for each owner; the owner served the longest ago is next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sonant.books.cast import Cast, cast_of
from sonant.books.document import Book
from sonant.books.narration import Line
from sonant.books.report import estimate_seconds
from sonant.books.stage import Stage
from sonant.engine.engine import Engine
from sonant.errors import BusyError, CancelledError, RequestError, SonantError, StorageError
from sonant.files import Held, write_atomically
from sonant.readings.given import job_fields
from sonant.readings.job import Job
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.server.auth import Caller, holder
from sonant.server.book_files import (
    FORMATS,
    file_name,
    files_of,
    kept_book,
    kept_lines,
    kept_titles,
    parse_book,
)
from sonant.server.bookshelf import (
    EVERYBODY,
    Bookshelf,
    Reading,
    owner_of,
    remove_folder,
)
from sonant.server.one_each import OneEach
from sonant.server.problems import HttpProblem, describe_error, no_room
from sonant.server.reading_work import Running, dub_book, speak_book
from sonant.server.service import SpeechService
from sonant.server.settings import OPENAI_VOICES
from sonant.voices.finding import find_voice

log = logging.getLogger(__name__)

BYTES_A_SECOND = 24_000 * 4 + 24_000
"""About what a second of a reading takes on disk: its piece, and its share of the file that is bound."""
BUSY_SECONDS = 5.0
PARSED_AT_ONCE = 2
"""Books that are read in at a time, one of each owner: a file built to take for ever holds up its sender."""
BOOKS_COMING = 8
"""Books of one owner that may be on their way in at a time."""


class ReadingDesk:
    """The books and readings of one app."""

    def __init__(self, service: SpeechService, folder: Path) -> None:
        self._service = service
        self._limits = service.settings.readings
        self.shelf = Bookshelf(folder)
        self._readings: dict[str, Reading] = {}
        self._running: dict[str, Running] = {}
        self._served: dict[str, float] = {}
        self._parsing = OneEach(PARSED_AT_ONCE)
        self._looking = OneEach(1)
        self._coming: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        """Books and readings of an owner that are being added: they count before they are there."""
        self._going: set[str] = set()
        """Readings that are being deleted: nobody resumes them any more."""
        self._taking_room = asyncio.Lock()
        """From a look at the room to what takes it: two that ask at once do not get the same."""
        self._writing = asyncio.Lock()
        """States are written one after another, so that the newest is what stays."""
        self._taking = asyncio.Lock()
        self._held: Held | None = None
        self._is_open = False

    async def start(self) -> None:
        """Take up what was queued or running when the server ended."""
        try:
            await self.take()
        except (HttpProblem, OSError) as problem:  # the rest of the server works without
            log.warning("books and readings are not served: %s", problem)

    async def take(self) -> None:
        """Have the folder for this process alone. Raises HttpProblem 503 while another server has it."""
        async with self._taking:
            if self._held is not None:
                return
            try:
                self._held = Held(self.shelf.folder)
            except BlockingIOError as error:
                raise HttpProblem(
                    503,
                    "books_elsewhere",
                    "another server on this machine keeps the books of this folder. Ask that one, or start "
                    "this one with --readings FOLDER.",
                ) from error
            except OSError as error:
                problem = no_room(error)
                if problem is None:
                    raise
                raise problem from error
            await self._take_up()

    async def _take_up(self) -> None:
        await asyncio.to_thread(self.shelf.sweep)
        found = await asyncio.to_thread(lambda: list(self.shelf.readings()))
        keys = self._service.settings.keys
        known = {owner_of(holder(key, keys)) for key in keys} or {EVERYBODY}
        for reading in found:
            if reading.status == "running":
                reading.status = "queued"
            if reading.status == "queued" and reading.owner not in known:
                reading.status = "cancelled"  # its key was taken back, or a second one came: nobody sees it
                log.warning("reading %s is stopped: no key has the books of %s", reading.id, reading.owner)
            self._readings[reading.id] = reading
        self._is_open = True
        self._begin_next()

    async def close(self) -> None:
        """Stop what runs; it goes on at the next start."""
        self._is_open = False
        tasks = []
        for running in self._running.values():
            running.stage.cancel()
            if running.task is not None:
                tasks.append(running.task)
        if tasks:
            await asyncio.wait(tasks)
        if self._held is not None:
            self._held.close()

    # -- books --------------------------------------------------------------------------------

    async def add_book(self, caller: Caller, name: str, data: bytes) -> dict[str, Any]:
        """Keep a book that was sent, once it can be read. Raises HttpProblem and SonantError."""
        owner = owner_of(caller)
        name = file_name(name)
        coming = self._coming[owner, "books"]
        if len(self.shelf.ids(owner, "books") | coming) >= self._limits.books:
            raise HttpProblem(
                429, "too_many_books", f"{self._limits.books} books are kept, the most. Delete one first."
            )
        if len(coming) >= BOOKS_COMING:
            raise HttpProblem(
                429, "too_many_books", f"{BOOKS_COMING} books are being read in, the most at a time.",
                headers={"Retry-After": "5"},
            )  # fmt: skip
        book = self.shelf.new_id("book")
        folder = self.shelf.place(owner, "books", book)
        coming.add(book)
        try:
            await self._check_room(owner, len(data) * 2, self._promised())
            await asyncio.to_thread(write_atomically, folder / name, data)
            async with self._parsing.turn(owner):
                await parse_book(folder, name, seconds=self._limits.parse_seconds)
            facts = {
                "id": book, "object": "book", "name": name, "bytes": len(data), "created_at": time.time(),
            }  # fmt: skip
            return await asyncio.to_thread(self.shelf.keep_book, folder, facts)
        except BaseException:
            if folder.is_dir():
                await asyncio.to_thread(remove_folder, folder)
            raise
        finally:
            coming.discard(book)

    async def books(self, caller: Caller) -> list[dict[str, Any]]:
        """The caller's books."""
        return await asyncio.to_thread(self.shelf.books, owner_of(caller))

    async def book(self, caller: Caller, book: str) -> dict[str, Any]:
        """One of them, with chapters and roles. Raises HttpProblem 404."""
        return await asyncio.to_thread(self.shelf.about, owner_of(caller), book)

    async def cover(self, caller: Caller, book: str) -> bytes:
        """The cover's bytes. Raises HttpProblem 404."""
        path = self.shelf.book(owner_of(caller), book) / "cover"
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            raise HttpProblem(404, "not_found", "the book has no cover.") from None

    async def remove_book(self, caller: Caller, book: str) -> None:
        """Delete a book. Raises HttpProblem 404, and 409 while it is being read."""
        owner = owner_of(caller)
        folder = self.shelf.book(owner, book)
        if any(r.book == book and r.status in ("queued", "running") for r in self._mine(owner)):
            raise HttpProblem(409, "book_in_use", "the book is being read. Cancel the reading first.")
        await asyncio.to_thread(remove_folder, folder)

    async def lines(
        self, caller: Caller, book: str, options: dict[str, Any]
    ) -> tuple[list[tuple[int, Line]], Cast]:
        """Chapter numbers and lines of a book under a cast. Raises HttpProblem and RequestError."""
        folder = self.shelf.book(owner_of(caller), book)
        async with self._looking.turn(owner_of(caller)):  # a long book takes seconds
            return await asyncio.to_thread(kept_lines, folder, options)

    # -- readings -----------------------------------------------------------------------------

    async def add(self, caller: Caller, book: str, options: dict[str, Any]) -> Reading:
        """Queue a reading, its voices and settings checked. Raises HttpProblem and SonantError."""
        owner = owner_of(caller)
        about = await self.book(caller, book)
        form = options.get("format") or ("wav" if about["kind"] == "subtitles" else "m4b")
        if form not in FORMATS:
            raise HttpProblem(
                400, "unsupported_response_format", f"the format is {form!r}; expected {', '.join(FORMATS)}.",
                param="format",
            )  # fmt: skip
        coming = self._coming[owner, "readings"]
        if len(self._mine(owner)) + len(coming) >= self._limits.readings:
            raise HttpProblem(
                429, "too_many_readings",
                f"{self._limits.readings} readings are kept, the most. Delete one first.",
            )  # fmt: skip
        reading = Reading(
            id=self.shelf.new_id("reading"), owner=owner, caller=caller.id, priority=caller.priority,
            book=book, title=about["title"], format=form, options=options,
        )  # fmt: skip
        coming.add(reading.id)
        try:
            stage, lines, _, _ = await self._plan(reading)
            if about["kind"] == "book":
                await asyncio.to_thread(stage.check, lines, self._service.pool.spec)
            seconds = about["seconds"] if about["kind"] == "subtitles" else estimate_seconds(lines)
            reading.wanted = round(seconds * BYTES_A_SECOND)
            reading.lines = len(lines) or about["lines"]
            async with self._taking_room:
                await self._check_room(owner, reading.wanted, self._promised())
                async with self._writing:
                    await asyncio.to_thread(self.shelf.save, reading)
                self._readings[reading.id] = reading
        finally:
            coming.discard(reading.id)
        self._begin_next()
        return reading

    def readings(self, caller: Caller) -> list[dict[str, Any]]:
        """The caller's readings, the newest first."""
        mine = sorted(self._mine(owner_of(caller)), key=lambda reading: -reading.created_at)
        return [self.describe(reading) for reading in mine]

    def reading(self, caller: Caller, name: str) -> Reading:
        """One of them. Raises HttpProblem 404."""
        owner = owner_of(caller)
        self.shelf.reading(owner, name)
        found = self._readings.get(name)
        if found is None or name in self._going:
            raise HttpProblem(404, "reading_not_found", f"the reading {name!r} cannot be read any more.")
        return found

    async def cancel(self, reading: Reading, *, why: str = "cancelled") -> None:
        """Stop it; what was spoken is kept."""
        running = self._running.get(reading.id)
        if running is not None:
            running.ends = why
            running.stage.cancel()
            if running.task is not None:
                await asyncio.wait({running.task})
        elif reading.status == "queued":
            reading.status, reading.ended_at = "cancelled", time.time()
            await self._save(reading)

    async def resume(self, reading: Reading) -> None:
        """Queue it again. Raises HttpProblem 409 where it runs or is done, 404 where its book has gone."""
        if reading.status in ("queued", "running", "completed"):
            raise HttpProblem(
                409, "not_stopped", f"the reading is {reading.status}; nothing is to be resumed."
            )
        self.shelf.book(reading.owner, reading.book)
        async with self._taking_room:
            if reading.status not in ("queued", "running"):  # nor resumed by another request meanwhile
                missing = await asyncio.to_thread(self.shelf.missing, reading)
                await self._check_room(reading.owner, missing, self._promised())
                reading.status, reading.error, reading.ended_at = "queued", None, None
        await self._save(reading)
        self._begin_next()

    async def remove(self, reading: Reading) -> None:
        """Cancel it and delete what was made."""
        self._going.add(reading.id)
        try:
            await self.cancel(reading)
            async with self._writing:
                self._readings.pop(reading.id, None)
                place = self.shelf.place(reading.owner, "readings", reading.id)
                await asyncio.to_thread(remove_folder, place)
        finally:
            self._going.discard(reading.id)

    def file(self, reading: Reading, name: str) -> Path:
        """A file that was made. Raises HttpProblem 404."""
        if name not in files_of(reading):
            raise HttpProblem(
                404, "not_found", f"there is no file {name!r}; there are: {', '.join(files_of(reading))}."
            )
        path = self.shelf.reading(reading.owner, reading.id) / name
        if not path.is_file():
            raise HttpProblem(
                404, "not_ready_yet", f"{name} is not there yet: the reading is {reading.status}."
            )
        return path

    def describe(self, reading: Reading) -> dict[str, Any]:
        """A reading as clients see it."""
        running = self._running.get(reading.id)
        left = None
        if running is not None and running.began is not None and running.spoken > 0:
            left = round(running.left / running.spoken * (time.monotonic() - running.began), 1)
        folder = self.shelf.place(reading.owner, "readings", reading.id)
        files = []
        for name, media in files_of(reading).items():
            with contextlib.suppress(OSError):
                size = (folder / name).stat().st_size
                url = f"/v1/audio/readings/{reading.id}/files/{name}"
                files.append({"name": name, "media_type": media, "bytes": size, "url": url})
        is_done = reading.status == "completed"
        return {
            "id": reading.id,
            "object": "reading",
            "book": reading.book,
            "title": reading.title,
            "status": reading.status,
            "progress": {
                "lines": reading.lines,
                "done": reading.done,
                "share": 1.0 if is_done else round(reading.done / reading.lines, 4) if reading.lines else 0.0,
                "seconds": round(reading.seconds, 1),
                "seconds_left": 0.0 if is_done else left,
                "line": running.line if running is not None else None,
            },
            "created_at": reading.created_at,
            "started_at": reading.started_at,
            "ended_at": reading.ended_at,
            "error": reading.error,
            "failures": reading.failures,
            "failed": reading.failed,
            "guards": reading.guards,
            "format": reading.format,
            "bytes": sum(file["bytes"] for file in files),
            "files": files,
            "options": reading.options,
        }

    def _mine(self, owner: str) -> list[Reading]:
        return [reading for reading in self._readings.values() if reading.owner == owner]

    async def _save(self, reading: Reading) -> None:
        """Keep how a reading stands, unless it was deleted meanwhile."""
        async with self._writing:
            if reading.id in self._readings:
                await asyncio.to_thread(self.shelf.save, reading)

    def _promised(self) -> list[Reading]:
        """Readings that wait or run: what they still need is set aside."""
        return [reading for reading in self._readings.values() if reading.status in ("queued", "running")]

    async def _check_room(self, owner: str, wanted: int, promised: Sequence[Reading]) -> None:
        """Raise HttpProblem where an owner would keep too much, StorageError where the disk has no room.

        What the readings `promised` still need is taken as used.
        """

        def look() -> tuple[int, int, list[tuple[str, int]]]:
            needs = [(reading.owner, self.shelf.missing(reading)) for reading in promised]
            return self.shelf.size(owner), self.shelf.free(), needs

        used, free, needs = await asyncio.to_thread(look)
        used += sum(size for whose, size in needs if whose == owner)
        if used + wanted > self._limits.owner_bytes:
            raise HttpProblem(
                413,
                "too_much_kept",
                f"this needs about {wanted / 2**20:.0f} MiB beside {used / 2**20:.0f} that are kept or that "
                f"readings under way will take; {self._limits.owner_bytes / 2**20:.0f} are allowed. Delete a "
                "reading, or read less.",
            )
        free = max(0, free - sum(size for _, size in needs))
        if wanted + self._limits.spare_bytes > free:
            raise StorageError(
                f"this needs about {wanted / 2**20:.0f} MiB and the server's disk has {free / 2**20:.0f} "
                "that nobody waits for. Its operator has to make room."
            )

    # -- running ------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Begin what may run now: one of each owner, the owner served the longest ago first."""
        while self._is_open and len(self._running) < self._limits.at_once:
            busy = {self._readings[name].owner for name in self._running}
            waiting = [r for r in self._readings.values() if r.status == "queued" and r.owner not in busy]
            if not waiting:
                return
            chosen = min(waiting, key=lambda r: (self._served.get(r.owner, 0.0), r.created_at))
            self._served[chosen.owner] = time.monotonic()
            chosen.status, chosen.started_at = "running", time.time()
            chosen.done = chosen.failed = chosen.guards = 0
            chosen.seconds, chosen.failures = 0.0, []
            self._running[chosen.id] = running = Running(self._stage(chosen, Cast(), Job(text="")))
            running.task = asyncio.create_task(self._run(chosen, running))

    async def _run(self, reading: Reading, running: Running) -> None:
        timer = asyncio.get_running_loop().call_later(self._limits.seconds, lambda: self._give_up(running))
        try:
            await self._save(reading)
            stage, lines, titles, book = await self._plan(reading)
            if running.stage.is_cancelled:
                stage.cancel()
            running.stage = stage
            running.left = sum(estimate_seconds([line]) for line in lines)
            reading.lines = len(lines) or reading.lines
            place = self.shelf.reading(reading.owner, reading.id)
            # Once more: estimates may have been wrong, and the disk may have filled since.
            missing = await asyncio.to_thread(self.shelf.missing, reading)
            others = [one for one in self._promised() if one.id in self._running and one is not reading]
            await self._check_room(reading.owner, missing, others)
            if book is None:
                source = self.shelf.book(reading.owner, reading.book)
                work = partial(dub_book, reading, running, place, source)
            else:
                work = partial(speak_book, reading, running, place, lines, titles, book)
            await asyncio.to_thread(work)
            reading.status = "completed"
        except CancelledError:
            self._stopped(reading, running)
        except (SonantError, HttpProblem, OSError) as error:
            reading.status, reading.error = "failed", _problem(error)
            log.warning("reading %s failed: %s", reading.id, reading.error["code"])
        except Exception:
            log.exception("reading %s failed", reading.id)
            reading.status = "failed"
            reading.error = {"code": "internal_error", "message": "an internal error stopped the reading."}
        finally:
            timer.cancel()
            del self._running[reading.id]
            if reading.status != "queued":
                reading.ended_at = time.time()
            try:
                await self._save(reading)
            except OSError as error:  # a full disk: what is known of it stays in memory
                log.warning("the state of reading %s cannot be kept: %s", reading.id, error)
            self._begin_next()

    def _give_up(self, running: Running) -> None:
        running.ends = "deadline"
        running.stage.cancel()

    def _stopped(self, reading: Reading, running: Running) -> None:
        if running.ends == "deadline":
            reading.status = "failed"
            hours = self._limits.seconds / 3600
            reading.error = {
                "code": "deadline_exceeded",
                "message": f"the reading took more than {hours:g} h. Resume it: what was spoken is kept.",
            }
        elif running.ends is None:  # the server ends: it goes on at the next start
            reading.status = "queued"
        else:
            reading.status = "cancelled"

    async def _plan(self, reading: Reading) -> tuple[Stage, list[Line], list[str], Book | None]:
        """The stage, lines, chapters' titles and the book of a reading; no book for subtitles."""
        folder = self.shelf.book(reading.owner, reading.book)
        cast, base = await asyncio.to_thread(self._asked, reading)
        stage = self._stage(reading, cast, base)
        if not (folder / "book.json").is_file():
            return stage, [], [], None
        async with self._looking.turn(reading.owner):
            numbered, _ = await asyncio.to_thread(kept_lines, folder, reading.options)
            book = await asyncio.to_thread(kept_book, folder)
        if not numbered:
            raise RequestError(
                "nothing is left to read with this choice of chapters and paragraphs.", field="chapters"
            )
        return stage, [line for _, line in numbered], kept_titles(book, reading.options), book

    def _asked(self, reading: Reading) -> tuple[Cast, Job]:
        """The cast and the base job that were asked for, models by their names here."""
        resolve = self._service.pool.resolve
        options = reading.options
        cast = cast_of(options["cast"], files=False) if options.get("cast") else Cast()
        roles = {
            name: replace(role, model=resolve(role.model)) if role.model is not None else role
            for name, role in cast.roles.items()
        }
        fields = job_fields(options.get("settings") or {}, files=False)
        fields["settings"] = {"seed": 0, **fields["settings"]}
        base = Job(text="", model=resolve(options.get("model")), in_pieces=True, **fields)
        return replace(cast, roles=roles), base

    def _stage(self, reading: Reading, cast: Cast, base: Job) -> Stage:
        caller = Caller(
            id=reading.caller, priority=reading.priority, has_own_shelf=reading.owner != EVERYBODY
        )
        loop = asyncio.get_running_loop()

        def open_engine(job: Job) -> contextlib.AbstractContextManager[Engine]:
            return self._engine(loop, stage, job)

        def fitted(job: Job) -> Job:
            dtype, precision = self._service.pool.words(job.model)
            return replace(job, dtype=dtype, precision=precision)  # pieces of two precisions do not mix

        stage = Stage(
            base, cast, self.shelf.place(reading.owner, "readings", reading.id) / "pieces",
            open_engine=open_engine, voice_of=partial(self._voice, caller), client=caller.id,
            fitted=fitted, carries=bool(reading.options.get("carry")),
            priority=min([0, *(key.priority for key in self._service.settings.keys)]) - 1,
        )  # fmt: skip
        return stage

    @contextlib.contextmanager
    def _engine(self, loop: asyncio.AbstractEventLoop, stage: Stage, job: Job) -> Iterator[Engine]:
        """The engine of a model of the pool, for a thread; waits while there is no memory for it."""
        while True:
            use = self._service.pool.use(job.model)
            try:
                loaded = asyncio.run_coroutine_threadsafe(use.__aenter__(), loop).result()
                break
            except BusyError:
                if stage.is_cancelled:
                    raise CancelledError("stopped while there was no memory for its model.") from None
                time.sleep(BUSY_SECONDS)
        try:
            yield loaded.desk.engine
        finally:
            asyncio.run_coroutine_threadsafe(use.__aexit__(None, None, None), loop).result()

    def _voice(self, caller: Caller, job: Job, spec: ModelSpec) -> Voice | str | None:
        if job.voice is None:
            return None
        name = self._service.settings.voice_aliases.get(job.voice, job.voice)
        return find_voice(name, spec=spec, shelf=self._service.shelves.view(caller), equals=OPENAI_VOICES)


def _problem(error: Exception) -> dict[str, str]:
    """What a reading's error is to its owner."""
    if isinstance(error, OSError):
        error = no_room(error) or HttpProblem(500, "internal_error", "the server's storage failed.")
    assert isinstance(error, (SonantError, HttpProblem))
    body = describe_error(error)[1]
    return {"code": body["code"], "message": body["message"]}
