"""Long readings: pieces lose no words, a second run reuses them, an edit speaks only what changed."""

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError
from sonant.readings.job import Job
from sonant.readings.pieces import PIECE_LIMIT, Narration, split_pieces
from tests.toy import ToyModel

TEXT = "One is here. It has two sentences\n\n* * *\n\nTwo is here\n\n[pause:2s]\n\nThree is here"


def read(narration):
    chunks = []
    while not chunks or not chunks[-1].is_final:
        chunks.append(narration.get())
    return np.concatenate([chunk.samples for chunk in chunks])


def test_pieces_hold_every_word_within_the_limit():
    text = "\n\n".join(f"Paragraph {n}. " + "Some words follow here. " * (10 * n) for n in range(1, 12))
    pieces = split_pieces(text)
    assert " ".join(" ".join(piece.text for piece in pieces).split()) == " ".join(text.split())
    assert max(len(piece.text) for piece in pieces) <= PIECE_LIMIT


def test_what_cannot_be_spoken_becomes_silence():
    pieces = split_pieces(TEXT)
    assert [piece.text.splitlines()[0] for piece in pieces] == [
        "One is here. It has two sentences",
        "Two is here",
        "Three is here",
    ]
    assert pieces[1].pause_after >= 2
    assert pieces[-1].pause_after == 0
    with pytest.raises(RequestError, match="nothing to say"):
        split_pieces("* * *")


def test_a_second_run_reuses_every_piece_and_gives_the_same_samples(tmp_path):
    with Engine(ToyModel()) as engine:
        first = Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path / "kept")
        samples = read(first)
        steps = engine.steps
        second = Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path / "kept")
        assert np.array_equal(read(second), samples)
        assert (first.reused, second.reused) == (0, 3)
        assert engine.steps == steps
        with pytest.raises(GenerationError, match="to its end"):
            second.get()


def test_a_stopped_run_goes_on_and_ends_with_the_samples_of_a_whole_run(tmp_path):
    with Engine(ToyModel()) as engine:
        whole = read(Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path / "whole"))
        stopped = Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path / "kept")
        stopped.get()
        stopped.cancel()
        again = Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path / "kept")
        assert np.array_equal(read(again), whole)
        assert again.reused == 1


def test_an_edited_text_speaks_only_what_is_new(tmp_path):
    with Engine(ToyModel()) as engine:
        read(Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path))
        edited = Narration(
            engine, Job(text="A new beginning\n\n" + TEXT, settings={"seed": 4}), None, tmp_path
        )
        read(edited)
        assert (edited.reused, len(edited.pieces)) == (3, 4)


@pytest.mark.parametrize("change", [{"seed": 5}, {"language": "english"}, {"sampling": {"temperature": 0.5}}])
def test_another_setting_reuses_nothing(tmp_path, change):
    with Engine(ToyModel()) as engine:
        read(Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path))
        other = Narration(engine, Job.from_data({"text": TEXT, "seed": 4, **change}), None, tmp_path)
        read(other)
        assert other.reused == 0


def test_a_damaged_piece_is_spoken_again(tmp_path):
    with Engine(ToyModel()) as engine:
        samples = read(Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path))
        for entry in tmp_path.iterdir():
            entry.write_bytes(entry.read_bytes()[:50])
        again = Narration(engine, Job(text=TEXT, settings={"seed": 4}), None, tmp_path)
        assert np.array_equal(read(again), samples)
        assert again.reused == 0
