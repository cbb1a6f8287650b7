"""Delivery: rumble is found and taken away, loudness is reached, in pieces as on the whole."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from sonant.audio.encode import AudioWriter
from sonant.audio.loudness import Leveller, at_loudness, measure_loudness
from sonant.audio.rumble import HighPass, RumbleMeter
from sonant.errors import CancelledError, RequestError, StorageError
from sonant.readings import delivery
from sonant.readings.delivery import deliver
from sonant.readings.job import Job
from sonant.request.audio import Audio
from sonant.request.settings import LOUDNESS
from sonant.request.speech import AudioChunk, GuardEvent

RATE = 16_000
TIME = np.arange(2 * RATE) / RATE
VOICE = (0.2 * np.sin(2 * np.pi * 180 * TIME) + 0.1 * np.sin(2 * np.pi * 900 * TIME)).astype(np.float32)
RUMBLE = (0.3 * np.sin(2 * np.pi * 25 * TIME)).astype(np.float32)


class Recorded:
    """Chunks given beforehand, as a stream gives them."""

    def __init__(self, samples, pieces=4, stop_at=None):
        self.sample_rate, self.seed, self.segments = RATE, 1, ("x",)
        self.guards = [GuardEvent("note", "a note")]
        self.timings = {"total": 1.0}
        self._parts = np.array_split(samples, pieces)
        self._index, self._stop_at = 0, stop_at
        self.was_cancelled = False

    def get(self):
        if self._index == self._stop_at:
            raise KeyboardInterrupt
        index = self._index
        self._index += 1
        return AudioChunk(self._parts[index], RATE, index, 0.0, self._index == len(self._parts), None)

    def cancel(self):
        self.was_cancelled = True


def rumble_of(samples):
    meter = RumbleMeter(RATE)
    for part in np.array_split(samples, 7):
        meter.push(part)
    return meter.result()


def test_clean_speech_has_no_rumble_and_stays_as_it_was(tmp_path):
    outcome = deliver(Recorded(VOICE), Job(text="x", loudness=None), target=tmp_path / "a.wav")
    assert not outcome.rumble.is_excessive
    assert [guard.kind for guard in outcome.guards] == ["note"]
    assert np.abs(Audio.read(tmp_path / "a.wav").samples - VOICE).max() < 1e-4


@pytest.mark.parametrize("trouble", [RUMBLE, np.full_like(VOICE, 0.05)], ids=["rumble", "offset"])
def test_rumble_is_taken_away_with_a_warning(tmp_path, trouble):
    outcome = deliver(Recorded(VOICE + trouble), Job(text="x", loudness=None), target=tmp_path / "a.wav")
    assert outcome.rumble.is_excessive
    assert outcome.is_filtered
    assert "60 Hz was applied" in outcome.guards[-1].message
    mended = Audio.read(tmp_path / "a.wav").samples
    assert not rumble_of(mended).is_excessive
    middle = slice(RATE // 2, -RATE // 2)
    assert np.std(mended[middle]) == pytest.approx(np.std(VOICE[middle]), rel=0.05)


def test_a_streamed_file_is_only_warned_about(tmp_path):
    job = Job(text="x", is_streamed=True, loudness=None)
    outcome = deliver(Recorded(VOICE + RUMBLE), job, target=tmp_path / "a.wav")
    assert not outcome.is_filtered
    assert "--de-rumble 60" in outcome.guards[-1].message


def test_de_rumble_off_leaves_everything(tmp_path):
    outcome = deliver(
        Recorded(VOICE + RUMBLE), Job(text="x", de_rumble="off", loudness=None), target=tmp_path / "a.wav"
    )
    assert [guard.kind for guard in outcome.guards] == ["note"]
    assert rumble_of(Audio.read(tmp_path / "a.wav").samples).is_excessive


def test_the_high_pass_in_pieces_equals_the_whole():
    samples = VOICE + RUMBLE + 0.1
    whole = HighPass(60, RATE).push(samples)
    pieces = HighPass(60, RATE)
    joined = np.concatenate([pieces.push(part) for part in np.array_split(samples, 13)])
    assert np.abs(joined - whole).max() < 1e-7
    assert abs(whole[0]) < 0.01  # the offset makes no click


@pytest.mark.parametrize("cutoff", [0, 5, 5000, float("nan")])
def test_an_impossible_cutoff_is_refused(cutoff):
    with pytest.raises(RequestError, match="expected 10 to 400"):
        HighPass(cutoff, RATE)


def test_loudness_is_reached_and_never_clips(tmp_path, caplog):
    deliver(Recorded(VOICE), Job(text="x", loudness=-20.0), target=tmp_path / "a.wav")
    assert measure_loudness(Audio.read(tmp_path / "a.wav").samples, RATE) == pytest.approx(-20, abs=0.1)
    spiky = VOICE * 0.01
    spiky[100] = 0.9
    louder = at_loudness(spiky, RATE, -16.0)
    assert np.abs(louder).max() <= 0.971
    assert "would clip" in caplog.text
    assert at_loudness(np.zeros(100, np.float32), RATE, -16.0).max() == 0


def test_ctrl_c_closes_the_file_and_cancels_the_speech(tmp_path):
    spoken = Recorded(VOICE, pieces=4, stop_at=2)
    with pytest.raises(CancelledError, match=r"1\.0 s were spoken and are kept in"):
        deliver(spoken, Job(text="x", loudness=None), target=tmp_path / "a.wav")
    assert spoken.was_cancelled
    assert Audio.read(tmp_path / "a.wav").seconds == pytest.approx(1.0)


def test_ctrl_c_before_any_sound_leaves_an_older_file_alone(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"older")
    with pytest.raises(CancelledError):
        deliver(Recorded(VOICE, stop_at=0), Job(text="x", loudness=None), target=tmp_path / "a.wav")
    assert (tmp_path / "a.wav").read_bytes() == b"older"


def test_a_full_disk_leaves_the_recording_that_was_spoken(tmp_path, monkeypatch):
    target = tmp_path / "a.wav"
    made = []

    class Full(AudioWriter):
        def __init__(self, place, *arguments, **options):
            super().__init__(place, *arguments, **options)
            made.append(place)

        def write(self, samples):
            if len(made) > 1:
                raise OSError(28, "No space left on device")
            super().write(samples)

    monkeypatch.setattr(delivery, "AudioWriter", Full)
    with pytest.raises(StorageError, match=r"No space left.*kept in .*a\.wav"):
        deliver(Recorded(VOICE), Job(text="x"), target=target)
    assert len(made) == 2
    assert Audio.read(target).seconds == pytest.approx(2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("is_pipe", [False, True], ids=["file", "pipe"])
def test_nothing_is_said_to_be_kept_where_nothing_was_written(tmp_path, monkeypatch, is_pipe):
    def full(writer, samples):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(AudioWriter, "write", full)
    target = io.BytesIO() if is_pipe else tmp_path / "a.wav"
    with pytest.raises(StorageError, match=r"No space left.* Nothing of it is kept"):
        deliver(Recorded(VOICE, pieces=1), Job(text="x"), target=target)
    assert not list(tmp_path.iterdir())


def test_listeners_and_a_streamed_file_are_levelled_on_the_way(tmp_path):
    heard = []
    ear = SimpleNamespace(write=heard.append)
    job = Job(text="x", is_streamed=True)
    deliver(Recorded(VOICE * 0.1), job, target=tmp_path / "a.wav", listeners=(ear,))
    levelled = np.concatenate(heard)
    np.testing.assert_array_equal(levelled, Leveller(LOUDNESS, RATE).push(VOICE * 0.1))
    assert np.abs(Audio.read(tmp_path / "a.wav").samples - levelled).max() < 1e-4
