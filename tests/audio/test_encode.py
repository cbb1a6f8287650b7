"""Writing: every format streams, is deterministic, and stays valid when cut short."""

import errno
import hashlib
import io
import logging
import os

import av
import numpy as np
import pytest
import soundfile

from sonant.audio.encode import FORMATS, AudioWriter, open_encoder
from sonant.audio.io import read_audio, write_audio
from sonant.errors import RequestError, StorageError


def tone(seconds=1.0, rate=22_050):
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(form, samples, rate, piece):
    encoder = open_encoder(form, rate)
    parts = [encoder.encode(samples[i : i + piece]) for i in range(0, len(samples), piece)]
    return b"".join([*parts, encoder.finish()]), encoder


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_056])
def test_pieces_give_the_bytes_of_the_whole_and_the_sound_survives(form, rate):
    samples = tone(1.0, rate)
    whole, encoder = encoded(form, samples, rate, len(samples))
    assert encoded(form, samples, rate, 777)[0] == whole
    if form == "pcm":
        result, decoded_rate = np.frombuffer(whole, "<i2").astype(np.float32) / 32768, 24_000
    else:
        result, decoded_rate = read_audio(whole)
    assert decoded_rate == encoder.sample_rate
    assert abs(len(result) - decoded_rate) < 2600  # codecs pad to whole frames
    spectrum = np.abs(np.fft.rfft(result[: decoded_rate // 2]))
    assert abs(2 * spectrum.argmax() - 440) <= 4
    assert 0.4 < np.abs(result[decoded_rate // 4 : decoded_rate // 2]).max() < 0.65


@pytest.mark.parametrize("form", [name for name in FORMATS if name != "wav"])
def test_bytes_flow_before_the_end(form):
    encoder = open_encoder(form, 24_000)
    early = b"".join(encoder.encode(tone(0.1, 24_000)) for _ in range(5))
    assert len(early) > 1000


def test_streamed_wav_header_says_unknown_length_and_plays():
    data, _ = encoded("wav", tone(), 22_050, 500)
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    assert len(read_audio(data)[0]) == 22_050


@pytest.mark.parametrize("form", FORMATS)
def test_file_interrupted_half_way_is_valid(tmp_path, form):
    path = tmp_path / f"a.{form}"

    def interrupted():
        with AudioWriter(path, 24_000) as writer:
            for _ in range(5):
                writer.write(tone(0.2, 24_000))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    if form == "pcm":
        assert path.stat().st_size == 48_000
        return
    samples, rate = read_audio(path)
    assert abs(len(samples) / rate - 1.0) < 0.15


def test_wav_and_flac_headers_are_completed_on_close(tmp_path):
    for form in ("wav", "flac"):
        path = tmp_path / f"a.{form}"
        write_audio(path, tone(), 22_050)
        assert soundfile.info(path).frames == 22_050
    size = int.from_bytes((tmp_path / "a.wav").read_bytes()[40:44], "little")
    assert size == 44_100
    pcm = np.rint(tone() * np.float32(32768)).astype("<i2")
    assert (tmp_path / "a.flac").read_bytes()[26:42] == hashlib.md5(pcm.tobytes()).digest()
    with av.open(str(tmp_path / "a.flac")) as container:
        assert container.duration == 1_000_000


def test_wav_killed_before_close_still_reads(tmp_path):
    path = tmp_path / "a.wav"
    writer = AudioWriter(path, 24_000)
    writer.write(tone(0.5, 24_000))
    copy = path.read_bytes()  # what a killed process leaves
    writer.close()
    assert len(read_audio(copy)[0]) == 12_000


def test_file_objects_get_the_same_bytes_and_stay_open():
    for form in FORMATS:
        seekable = io.BytesIO()
        write_audio(seekable, tone(), 22_050, format=form)
        assert len(seekable.getvalue()) == len(encoded(form, tone(), 22_050, 10_000)[0])
    later = io.BytesIO(b"before")
    later.seek(6)
    write_audio(later, tone(), 22_050, format="wav")
    assert later.getvalue()[:6] == b"before"
    assert len(read_audio(later.getvalue()[6:])[0]) == 22_050


def test_a_pipe_that_cannot_seek_gets_a_stream():
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise AssertionError("a pipe cannot seek")

    pipe = Pipe()
    write_audio(pipe, tone(), 22_050, format="flac")
    assert len(read_audio(pipe.getvalue())[0]) == 22_050


def test_clipping_is_reported(caplog):
    encoder = open_encoder("wav", 24_000)
    with caplog.at_level(logging.WARNING):
        encoder.encode(np.array([0.5, 1.5, -1.0001, 1.0, -1.0], np.float32))
        encoder.finish()
    assert encoder.clipped == 2
    assert "2 samples were beyond full scale" in caplog.text


def test_nothing_spoken_is_a_valid_empty_wav(tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros(0, np.float32), 24_000)
    assert soundfile.info(tmp_path / "a.wav").frames == 0
    for form in ("flac", "mp3", "opus", "aac"):
        encoder = open_encoder(form, 24_000)
        assert isinstance(encoder.finish(), bytes)


def test_bad_targets_and_samples_are_refused_and_leave_no_file(tmp_path):
    good = tone()
    for make, words in (
        (lambda: write_audio(tmp_path / "a.xyz", good, 24_000), "ending of"),
        (lambda: write_audio(tmp_path / "a", good, 24_000), "ending of"),
        (lambda: write_audio(tmp_path / "a.wav", good, 24_000, format="midi"), "unknown"),
        (lambda: write_audio(io.BytesIO(), good, 24_000), "named"),
        (lambda: write_audio(tmp_path / "a.wav", good, 0), "cannot write"),
        (lambda: write_audio(tmp_path / "no" / "a.wav", good, 24_000), "cannot write"),
        (lambda: open_encoder("wav", 24_000).encode(np.array([np.nan], np.float32)), "finite"),
        (lambda: open_encoder("wav", 24_000).encode(np.zeros((2, 2), np.float32)), "mono"),
    ):
        with pytest.raises(RequestError, match=words):
            make()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC], ids=errno.errorcode.get
)
def test_a_place_that_takes_no_file_is_no_fault_of_the_request(tmp_path, monkeypatch, number):
    def refuse(path, mode):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr("sonant.audio.encode.open", refuse, raising=False)
    with pytest.raises(StorageError, match="cannot write"):
        write_audio(tmp_path / "a.wav", tone(), 24_000)
