"""A book killed at random moments, on a full disk, with broken parts: nothing is lost or said twice."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from sonant.books.binding import bind, chapter_marks, sound_of
from sonant.books.cast import Cast
from sonant.books.document import Block, Book, Chapter
from sonant.books.narration import lines_of
from sonant.books.stage import Stage
from sonant.engine.engine import Engine
from sonant.errors import StorageError
from sonant.readings import pieces
from sonant.readings.job import Job
from sonant.readings.pieces import read_piece
from tests.toy import ToyDecoder, ToyModel

CHAPTERS = tuple(
    Chapter(
        title=f"Chapter {number}",
        blocks=tuple(
            Block(
                "paragraph",
                f"This is line {line} of chapter {number}, and it is a little longer than the last.",
            )
            for line in range(12)
        ),
    )
    for number in range(4)
)


def read(folder, log=None):
    """Read the book to folder/book.wav; each line that is spoken is told in the log once it is kept."""
    lines = lines_of(CHAPTERS)
    with Engine(ToyModel()) as engine:
        stage = Stage(
            Job(text="", settings={"seed": 4}), Cast(), folder / "pieces",
            open_engine=lambda job: contextlib.nullcontext(engine), voice_of=lambda job, spec: None,
        )  # fmt: skip

        def on_line(line, kept):
            if log is not None and not kept:
                with log.open("a") as file:
                    file.write(line.text + "\n")

        heard = stage.speak(lines, on_line=on_line)
    marks = chapter_marks([chapter.title for chapter in CHAPTERS], heard.heard, heard.seconds)
    sound = sound_of(heard.heard, stage.samples_of, stage.sample_rate, until=heard.seconds)
    for name in ("book.wav", "book.m4b"):
        bind(folder / name, sound, stage.sample_rate, marks, Book(title="x", chapters=CHAPTERS))
        sound = sound_of(heard.heard, stage.samples_of, stage.sample_rate, until=heard.seconds)
    return heard


def _child(folder, begun):
    os.environ["OMP_NUM_THREADS"] = "1"
    begun.set()
    read(Path(folder), Path(folder) / "spoken.log")


def books(folder):
    return {name: (folder / name).read_bytes() for name in ("book.wav", "book.m4b")}


def kept(folder):
    """What every piece holds; None for one that is not whole. The order of a file's metadata is nobody's."""
    found = {}
    for path in (folder / "pieces").glob("*.safetensors"):
        told = read_piece(path)
        found[path.name] = (told.samples.tobytes(), told.guards) if told is not None else None
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    heard = read(folder)
    assert len(heard.heard) == 48
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments", [4, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_book_killed_at_random_moments_loses_and_repeats_nothing(moments, tmp_path, undisturbed):
    whole, expected = books(undisturbed), kept(undisturbed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.books.test_kill"])
    chance = random.Random(5)
    killed = finished = book = 0
    longest = 0.5
    while killed < moments:
        folder = tmp_path / f"book-{book}"
        folder.mkdir(exist_ok=True)
        begun = context.Event()
        child = context.Process(target=_child, args=(str(folder), begun))
        child.start()
        assert begun.wait(60)
        began = time.monotonic()
        child.join(chance.uniform(0.0, longest))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.join()
        now = kept(folder)
        for name, data in now.items():  # whole or absent, and what it would have been
            assert data == expected[name]
        for name in ("book.wav", "book.m4b"):  # a book is whole or not there
            assert not (folder / name).exists() or (folder / name).read_bytes() == whole[name]
        if child.exitcode == 0:
            longest = max(0.1, time.monotonic() - began)
        if all((folder / name).exists() for name in whole):
            finished += 1
            book += 1
    folder = tmp_path / f"book-{book}"
    folder.mkdir(exist_ok=True)
    read(folder, folder / "spoken.log")
    assert books(folder) == whole
    for number in range(book + 1):
        place = tmp_path / f"book-{number}"
        said = (place / "spoken.log").read_text().splitlines()
        assert len(said) == len(set(said))  # no line is spoken twice once it was kept
        assert kept(place) == expected
        assert not list((place / "pieces").glob(".*.part"))
    assert killed == moments


@pytest.mark.slow
def test_a_disk_that_fills_stops_the_book_and_loses_nothing(tmp_path, undisturbed, monkeypatch):
    write, left = pieces.write_atomically, iter(range(1_000))

    def full(path, data, **options):
        if next(left) >= 20:
            raise OSError(28, "No space left on device")
        write(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "write_atomically", full)
        with pytest.raises(StorageError, match=r"No space left.*not spoken again"):
            read(tmp_path)
    assert len(kept(tmp_path)) == 20
    assert not (tmp_path / "book.wav").exists()
    heard = read(tmp_path)
    assert heard.kept == 20
    assert books(tmp_path) == books(undisturbed)


@pytest.mark.parametrize("broken", ["push", "finish"])
@pytest.mark.slow
def test_a_decoder_that_breaks_costs_its_line_until_it_is_mended(broken, tmp_path, undisturbed, monkeypatch):
    whole, count = getattr(ToyDecoder, broken), iter(range(100_000))

    def breaks(decoder, *arguments):
        if next(count) % 7 == 3:
            raise RuntimeError("the decoder broke")
        return whole(decoder, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ToyDecoder, broken, breaks)
        heard = read(tmp_path)
    assert heard.failures
    assert len(heard.failures) + len(heard.heard) == 48
    assert all("broke" in failure.reason for failure in heard.failures)
    again = read(tmp_path)
    assert (again.kept, len(again.heard)) == (len(heard.heard), 48)
    assert books(tmp_path) == books(undisturbed)


def test_a_piece_that_was_damaged_on_disk_is_spoken_again(tmp_path, undisturbed):
    read(tmp_path)
    damaged = sorted((tmp_path / "pieces").glob("*.safetensors"))[:3]
    damaged[0].write_bytes(b"")
    damaged[1].write_bytes(damaged[1].read_bytes()[:-100])
    damaged[2].unlink()
    assert read(tmp_path).kept == 45
    assert books(tmp_path) == books(undisturbed)
    assert np.isfinite(read_piece(damaged[0]).samples).all()
