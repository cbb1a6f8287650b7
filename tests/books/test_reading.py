"""A book is spoken line by line, goes on where it was stopped, loses no more than a line, and is bound."""

import contextlib
import io
from itertools import pairwise

import av
import numpy as np
import pytest

from sonant.audio.loudness import HIGHEST_PEAK
from sonant.books.binding import bind, chapter_marks, sound_of
from sonant.books.cast import Cast
from sonant.books.document import Block, Book, Chapter
from sonant.books.dubbing import dub, slots_of
from sonant.books.narration import BREAK, CHAPTER, HEADING, MOST_FAILURES, Heard, Line, lines_of
from sonant.books.report import level_gain
from sonant.books.stage import Stage
from sonant.books.subtitles import LONGEST_CUE, Cue, cues_of, read_subtitles, write_subtitles
from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError
from sonant.readings.job import Job
from sonant.readings.pieces import PieceStore
from tests.toy import ToyModel

from .conftest import picture

RATE = 8000
CHAPTERS = (
    Chapter(
        title="One",
        blocks=(
            Block("heading", "One", 1),
            Block("paragraph", "The ferry left at seven in the morning. Nobody on the deck said a word. So!"),
            Block("break"),
            Block("paragraph", "* — *"),
        ),
    ),
    Chapter(
        title="Two", blocks=(Block("item", "A ship came from far away"), Block("paragraph", "Land at last."))
    ),
)


def stage_of(engine, folder, **options):
    """A stage whose every model is this engine."""
    job = Job(text="", settings={"seed": 4})
    return Stage(
        job, Cast(), folder,
        open_engine=lambda job: contextlib.nullcontext(engine), voice_of=lambda job, spec: job.voice,
        **options,
    )  # fmt: skip


@pytest.fixture
def engine():
    with Engine(ToyModel()) as engine:
        yield engine


def test_every_word_is_a_line_and_structure_is_its_pause():
    lines = lines_of(CHAPTERS)
    assert [line.text for line in lines] == [
        "One.", "The ferry left at seven in the morning.", "Nobody on the deck said a word. So!",
        "A ship came from far away.", "Land at last.",
    ]  # fmt: skip
    assert [line.pause_after for line in lines] == [HEADING, 0.25, CHAPTER, 0.4, CHAPTER]
    assert lines_of(CHAPTERS[:1])[-1].pause_after == max(BREAK, CHAPTER)
    assert [line.text for line in lines_of(CHAPTERS, paragraphs=range(2, 3))][-1] == "Land at last."


def test_a_changed_sentence_costs_one_sentence(engine, tmp_path):
    lines = lines_of(CHAPTERS)
    first = stage_of(engine, tmp_path).speak(lines)
    assert (first.kept, len(first.heard)) == (0, 5)
    changed = [*lines[:3], Line(1, 1, "Another ship came.", 0.4), *lines[4:]]
    assert stage_of(engine, tmp_path).speak(changed).kept == 4
    assert stage_of(engine, tmp_path).speak(lines).kept == 5


def test_a_line_that_fails_is_left_out_and_told(engine, tmp_path, monkeypatch):
    tell = PieceStore.tell

    def failing(store, text, **pace):
        if "Nobody" in text:
            raise GenerationError("a planted fault")
        return tell(store, text, **pace)

    monkeypatch.setattr(PieceStore, "tell", failing)
    reading = stage_of(engine, tmp_path).speak(lines_of(CHAPTERS))
    assert [failure.line.text for failure in reading.failures] == ["Nobody on the deck said a word. So!"]
    assert len(reading.heard) == 4

    def broken(store, text, **pace):
        raise GenerationError("broken")

    monkeypatch.setattr(PieceStore, "tell", broken)
    many = [Line(0, n, f"Line {n}.", 0.0) for n in range(MOST_FAILURES + 5)]
    with pytest.raises(GenerationError, match=f"{MOST_FAILURES} pieces in a row"):
        stage_of(engine, tmp_path).speak(many)
    with pytest.raises(RequestError, match="nothing of the book"):
        stage_of(engine, tmp_path).speak(many[:3])


@pytest.mark.parametrize("ending", ["m4b", "mp3", "opus", "flac", "wav"])
def test_a_bound_book_is_as_long_as_it_was_heard_and_has_its_chapters(engine, tmp_path, ending):
    stage = stage_of(engine, tmp_path / "kept")
    reading = stage.speak(lines_of(CHAPTERS))
    marks = chapter_marks(["One", "Two"], reading.heard, reading.seconds)
    pieces = sound_of(reading.heard, stage.samples_of, RATE, until=reading.seconds)
    book = Book(title="The Ferry", author="A. Writer", chapters=CHAPTERS, cover=picture())
    path = tmp_path / f"book.{ending}"
    assert bind(path, pieces, RATE, marks, book) == [path]
    with av.open(str(path)) as file:
        assert file.duration / 1e6 == pytest.approx(reading.seconds, abs=0.15)
        told = [(c["metadata"]["title"], c["start"] * float(c["time_base"])) for c in file.chapters()]
        facts = {**file.metadata, **file.streams.audio[0].metadata}
        covers = [stream for stream in file.streams if stream.type == "video"]
    if ending in ("m4b", "mp3", "opus"):
        assert [title for title, _ in told] == ["One", "Two"]
        early = 0.5 if ending == "opus" else 0.002  # never late: the silence before a chapter is longer
        for (_, start), mark in zip(told, marks, strict=True):
            assert mark.start - early <= start <= mark.start + 0.002
    if ending != "wav":
        assert {key.lower(): value for key, value in facts.items()}["title"] == "The Ferry"
    assert len(covers) == (ending in ("m4b", "mp3"))
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_leaves_no_half_of_a_book(tmp_path):
    def pieces():
        yield np.zeros(RATE, np.float32)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        bind(tmp_path / "book.m4b", pieces(), RATE, (), Book(title="x", chapters=()))
    assert not list(tmp_path.iterdir())


def test_silence_between_lines_is_exact():
    heard = [Heard(Line(0, 1, "a", 0), 0.5, 0.75), Heard(Line(0, 2, "b", 0), 1.0, 1.25)]
    whole = np.concatenate(list(sound_of(heard, lambda line: np.ones(2000, np.float32), RATE, until=2.0)))
    assert len(whole) == 2 * RATE
    assert whole[4000:6000].all()
    assert whole[8000:10_000].all()
    assert whole.sum() == 4000


def test_subtitles_are_in_order_short_and_readable_again(tmp_path):
    long = "word " * 60 + "end, then more."
    heard = [Heard(Line(0, 1, "First, here.", 0), 0.0, 1.5), Heard(Line(0, 2, long, 0), 2.0, 20.0)]
    cues = cues_of(heard)
    assert all(len(cue.text) <= LONGEST_CUE for cue in cues)
    assert " ".join(cue.text for cue in cues).split() == f"First, here. {long}".split()
    assert all(a.end <= b.start + 1e-9 for a, b in pairwise(cues))
    for name in ("a.srt", "a.vtt"):
        write_subtitles(tmp_path / name, cues)
        again = read_subtitles(tmp_path / name)
        assert [cue.text for cue in again] == [cue.text for cue in cues]
        assert [cue.start for cue in again] == pytest.approx([cue.start for cue in cues], abs=0.001)
    with pytest.raises(RequestError, match=r"\.srt or \.vtt"):
        write_subtitles(tmp_path / "a.txt", cues)
    (tmp_path / "bad.srt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(RequestError, match="cannot be read"):
        read_subtitles(tmp_path / "bad.srt")


class Paced:
    """A store whose speech takes 0.1 s a character, less at a pace; `pace` is that of its job."""

    def __init__(self, pace=1.0):
        self.pace = pace

    def tell(self, text, *, speed=None):
        class Told:
            samples = np.ones(round(RATE * 0.1 * len(text) / (speed or self.pace)), np.float32)
            guards, is_kept = (), False

        return Told


def test_dubbed_lines_fit_their_slots():
    cues = [
        Cue(1.0, 2.0, "0123456789"),
        Cue(3.0, 3.5, "0123456789"),
        Cue(3.8, 9.0, "x" * 60),
        Cue(9.0, 9.5, "y"),
    ]
    assert slots_of(cues) == pytest.approx([2.0, 0.8, 5.2, 0.5])
    reading, fitted, speeds = dub(cues, Paced(), RATE, can_hurry=True)
    assert fitted[0].speed == 1.0
    assert fitted[1].speed > 1.25
    assert all(one.over == 0 for one in fitted)
    assert all(
        heard.end <= slot_end + 1e-6
        for heard, slot_end in zip(reading.heard, (3.0, 3.8, 9.0, 9.5), strict=True)
    )
    assert speeds[reading.heard[0].line] is None


def test_a_line_that_no_pace_fits_is_cut_and_told():
    reading, fitted, _ = dub([Cue(0, 0.5, "0123456789"), Cue(0.5, 2, "a")], Paced(), RATE, can_hurry=True)
    assert fitted[0].over > 0
    assert reading.heard[0].end == 0.5
    _, fitted, _ = dub([Cue(0, 0.9, "0123456789")], Paced(), RATE, can_hurry=False)
    assert fitted[0].speed == 1.0
    assert fitted[0].over == pytest.approx(0.1)


def test_a_line_is_hurried_from_the_pace_that_was_asked_for():
    cues = [Cue(0, 1.0, "0123456789"), Cue(0.6, 9, "a")]
    for pace in (1.25, 0.5):
        _, fitted, speeds = dub(cues, Paced(pace), RATE, can_hurry=True)
        assert fitted[0].speed > max(pace, 1.25)
        assert fitted[1].speed == pace
        assert list(speeds.values())[1] is None


def test_what_a_killed_binding_left_is_removed_and_nobody_elses(tmp_path):
    for name in (".book.m4b.aa.part", ".book.m4b.bb.part", ".other.m4b.cc.part", ".abook.m4b.dd.part"):
        (tmp_path / name).write_bytes(b"x")
    with (tmp_path / ".book.m4b.bb.part").open("rb") as held:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(held, fcntl.LOCK_EX)  # another process is at it
        bind(
            tmp_path / "book.m4b", iter([np.zeros(RATE, np.float32)]), RATE, (), Book(title="x", chapters=())
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".abook.m4b.dd.part", ".book.m4b.bb.part", ".other.m4b.cc.part", "book.m4b",
    ]  # fmt: skip


def test_a_role_that_is_raised_beyond_full_scale_is_rounded_and_not_cut_off():
    sine = (2.0 * np.sin(np.arange(RATE) / 5)).astype(np.float32)  # 12 dB over 0.5
    line = Line(0, 1, "x", 0.0)
    for gain in (1.0, level_gain([sine], RATE, -19.0)):
        (written,) = sound_of([Heard(line, 0.0, 1.0)], lambda _: sine, RATE, gain=gain)
        peak = np.abs(written).max()
        assert peak <= HIGHEST_PEAK
        assert (np.abs(written) == peak).mean() < 0.01
    usual = np.clip(sine, -0.99, 0.99)
    (same,) = sound_of([Heard(line, 0.0, 1.0)], lambda _: usual, RATE)
    assert np.array_equal(same, usual)  # what a model says within full scale stays as it is


def test_a_gain_never_clips():
    quiet = 0.01 * np.sin(np.arange(RATE) / 5).astype(np.float32)
    assert level_gain([quiet], RATE, None) == 1.0
    assert level_gain([quiet], RATE, -19.0) > 1
    loud = quiet.copy()
    loud[10] = 0.9
    line = Line(0, 1, "x", 0.0)
    gain = level_gain([loud], RATE, -5.0)
    (written,) = sound_of([Heard(line, 0.0, 1.0)], lambda _: loud, RATE, gain=gain)
    assert 0.8 < np.abs(written).max() < HIGHEST_PEAK


def test_a_cover_that_is_no_picture_is_left_out(tmp_path):
    book = Book(title="x", chapters=(), cover=b"not a picture")
    bind(tmp_path / "b.m4b", iter([np.zeros(RATE, np.float32)]), RATE, (), book)
    with av.open(io.BytesIO((tmp_path / "b.m4b").read_bytes())) as file:
        assert not [stream for stream in file.streams if stream.type == "video"]
