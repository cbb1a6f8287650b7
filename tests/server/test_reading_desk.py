"""The desk of books without a network: limits that hold for many at once, what kills and deletes leave."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest

from sonant.books.cast import NARRATOR
from sonant.books.stored import MOST_CHAPTERS, main
from sonant.errors import RequestError, StorageError
from sonant.server import reading_desk
from sonant.server.app import create_app
from sonant.server.auth import hash_key, holder
from sonant.server.bookshelf import Bookshelf, Reading
from sonant.server.models import ModelPool
from sonant.server.problems import HttpProblem
from sonant.server.settings import ApiKey, ReadingLimits, ServerSettings

from .conftest import toy_source

pytest.importorskip("bs4")

SCENE = "“So be it,” said Alice. “Well then,” said the Hatter.\n\nIt was late. They drank their tea.\n"
KEYS = (ApiKey(hash=hash_key("one"), priority=5), ApiKey(hash=hash_key("two")))


@pytest.fixture(autouse=True)
def parsed_here(monkeypatch):
    """Books are read in this process, which takes no second to start."""

    async def parse(folder, name, *, seconds):
        main(folder / name, folder)

    monkeypatch.setattr(reading_desk, "parse_book", parse)


@pytest.fixture
def desk_of(library):
    def made(*, keys=KEYS, **limits):
        settings = ServerSettings(keys=keys, readings=ReadingLimits(**limits))
        return create_app(ModelPool([toy_source()]), library, settings).state.desk

    return made


ANN, BEA = (holder(key, KEYS) for key in KEYS)


def codes(results):
    return sorted(r.code if isinstance(r, HttpProblem) else "kept" for r in results)


async def add(desk, caller=ANN, name="a.txt", text=SCENE):
    return (await desk.add_book(caller, name, text.encode()))["id"]


def test_readings_that_wait_have_their_room_set_aside(desk_of):
    async def run():
        desk = desk_of()
        book = await add(desk)
        first = await desk.add(ANN, book, {})
        assert first.wanted > reading_desk.BYTES_A_SECOND
        small = desk_of(owner_bytes=round(first.wanted * 1.5) + 20_000)
        await desk.remove(first)
        results = await asyncio.gather(*(small.add(ANN, book, {}) for _ in range(3)), return_exceptions=True)
        assert codes(results) == ["kept"] + ["too_much_kept"] * 2
        [kept] = [one for one in results if isinstance(one, Reading)]
        await small.cancel(kept)
        other = await small.add(ANN, book, {})
        with pytest.raises(HttpProblem, match="under way will take"):
            await small.resume(kept)
        assert (kept.status, other.status) == ("cancelled", "queued")

    asyncio.run(run())


def test_a_reading_names_what_the_model_of_the_pool_is_opened_with(library):
    async def run():
        source = replace(toy_source(), words=lambda: ("auto", "int8"))
        desk = create_app(ModelPool([source]), library, ServerSettings(keys=KEYS)).state.desk
        stage, *_ = await desk._plan(await desk.add(ANN, await add(desk), {}))
        assert stage.job(NARRATOR).precision == "int8"

    asyncio.run(run())


def test_what_others_wait_for_on_the_disk_is_not_given_twice(desk_of, monkeypatch):
    async def run():
        desk = desk_of(spare_bytes=0)
        books = [await add(desk, caller) for caller in (ANN, BEA)]
        first = await desk.add(ANN, books[0], {})
        monkeypatch.setattr(Bookshelf, "free", lambda shelf: round(first.wanted * 1.5))
        with pytest.raises(StorageError):
            await desk.add(BEA, books[1], {})
        await desk.remove(first)
        await desk.add(BEA, books[1], {})

    asyncio.run(run())


def test_a_disk_that_filled_meanwhile_fails_a_reading_before_its_first_word(desk_of, monkeypatch):
    async def run():
        desk = desk_of()
        reading = await desk.add(ANN, await add(desk), {})
        monkeypatch.setattr(Bookshelf, "free", lambda shelf: 10)
        monkeypatch.setattr(reading_desk, "speak_book", lambda *given: pytest.fail("it was spoken"))
        desk._is_open = True
        desk._begin_next()
        await desk._running[reading.id].task
        assert (reading.status, reading.error["code"]) == ("failed", "storage_unavailable")

    asyncio.run(run())


def test_a_key_takes_in_only_so_many_books_at_a_time_and_keeps_nobody_out(desk_of, monkeypatch):
    async def run():
        monkeypatch.setattr(reading_desk, "BOOKS_COMING", 3)
        desk = desk_of()
        gate, begun = asyncio.Event(), []

        async def slow(folder, name, *, seconds):
            begun.append(folder.parent.parent.name)
            await gate.wait()
            main(folder / name, folder)

        monkeypatch.setattr(reading_desk, "parse_book", slow)
        mine = [asyncio.create_task(add(desk)) for _ in range(5)]
        other = asyncio.create_task(add(desk, BEA))
        while len(begun) < 2:
            await asyncio.sleep(0)
        assert set(begun) == {f"key-{ANN.id}", f"key-{BEA.id}"}
        gate.set()
        results = await asyncio.gather(*mine, return_exceptions=True)
        assert codes(results) == ["kept"] * 3 + ["too_many_books"] * 2
        assert await other

    asyncio.run(run())


def test_a_deleted_reading_does_not_come_back_with_its_last_state(desk_of, monkeypatch):
    async def run():
        desk = desk_of()
        reading = await desk.add(ANN, await add(desk), {})
        folder = desk.shelf.place(reading.owner, "readings", reading.id)
        gate, is_saving, save = threading.Event(), threading.Event(), Bookshelf.save

        def slow(shelf, one, **how):
            if one.status == "failed":
                is_saving.set()
                assert gate.wait(30)
            save(shelf, one, **how)

        def broken(*given):
            raise RequestError("broken")

        monkeypatch.setattr(Bookshelf, "save", slow)
        monkeypatch.setattr(reading_desk, "speak_book", broken)
        desk._is_open = True
        desk._begin_next()
        task = desk._running[reading.id].task
        await asyncio.to_thread(is_saving.wait, 30)
        removal = asyncio.create_task(desk.remove(reading))
        await asyncio.wait({removal}, timeout=0.1)  # it waits for the end; else the folder has gone by now
        gate.set()
        await asyncio.gather(removal, task)
        assert not folder.exists()
        assert desk.readings(ANN) == []

    asyncio.run(run())


def test_what_a_killed_server_left_is_swept_and_what_is_whole_stays(desk_of):
    async def run():
        desk = desk_of()
        book = await add(desk)
        reading = await desk.add(ANN, book, {})
        home = desk.shelf.folder / reading.owner
        left = [
            home / "books" / "book-0000000000000001" / "a.txt",
            home / "books" / "book-0000000000000002" / "about.json",
            home / "books" / ".gone-book-0000000000000003" / "a.txt",
            home / "books" / book / ".about.json.x.part",
            home / "readings" / "reading-0000000000000001" / "pieces" / "a.flac",
            home / "readings" / ".gone-reading-0000000000000002" / "book.m4b",
            home / "readings" / reading.id / "pieces" / ".a.flac.x.part",
        ]
        for path in left:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        whole = home / "readings" / reading.id / "pieces" / "b.flac"
        whole.write_text("x")
        desk.shelf.sweep()
        assert [path for path in left if path.exists()] == []
        assert whole.exists()
        assert [one["id"] for one in await desk.books(ANN)] == [book]
        assert [one.id for one in desk.shelf.readings()] == [reading.id]
        assert sorted(path.name for path in (home / "books").iterdir()) == [book]

    asyncio.run(run())


def test_a_book_that_is_still_read_in_is_no_book_yet(desk_of, monkeypatch):
    async def run():
        desk = desk_of()
        whole = await add(desk)
        seen = []

        async def looked_at(folder, name, *, seconds):
            main(folder / name, folder)  # all that the child writes
            seen.append([one["id"] for one in await desk.books(ANN)])
            for ask in (desk.book(ANN, folder.name), desk.add(ANN, folder.name, {})):
                with pytest.raises(HttpProblem, match="no book"):
                    await ask

        monkeypatch.setattr(reading_desk, "parse_book", looked_at)
        await add(desk)
        assert seen == [[whole]]
        assert len(await desk.books(ANN)) == 2

    asyncio.run(run())


def test_lists_of_books_read_only_what_they_tell(desk_of):
    async def run():
        desk = desk_of()
        book = await add(desk)
        about = json.loads((desk.shelf.book(f"key-{ANN.id}", book) / "about.json").read_bytes())
        assert [about] == await desk.books(ANN)
        assert not {"chapters", "roles"} & set(about)
        assert {"chapters", "roles", "left_out", *about} == set(await desk.book(ANN, book))

    asyncio.run(run())


def test_readings_are_below_the_short_requests_of_every_key(desk_of):
    async def run():
        desk = desk_of()
        for caller in (ANN, BEA):
            reading = await desk.add(caller, await add(desk, caller), {})
            stage, *_ = await desk._plan(reading)
            assert stage._priority < min(key.priority for key in KEYS)

    asyncio.run(run())


@pytest.mark.parametrize(("before", "now"), [((), KEYS), (KEYS[:1], KEYS), (KEYS, KEYS[:1]), (KEYS, ())])
def test_readings_that_no_key_can_see_any_more_do_not_run(desk_of, monkeypatch, before, now):
    async def run():
        caller = holder(before[0], before) if before else holder(ApiKey(hash=hash_key("x")), KEYS[:1])
        first = desk_of(keys=before)
        reading = await first.add(caller, await add(first, caller), {})
        again = desk_of(keys=now)
        monkeypatch.setattr(again, "_begin_next", lambda: None)
        await again.take()
        assert again._readings[reading.id].status == "cancelled"
        await again.close()

    asyncio.run(run())


def test_a_book_of_ever_so_many_chapters_is_refused(tmp_path):
    source = tmp_path / "a.md"
    source.write_text("# a\n\nb\n\n" * (MOST_CHAPTERS + 1))
    with pytest.raises(RequestError, match="5,001 chapters"):
        main(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]
