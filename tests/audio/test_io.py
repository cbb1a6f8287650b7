"""Reading: every kind of source, limits before decoding, and refusals that say what to do."""

import io
import os
import struct

import av
import numpy as np
import pytest
import soundfile

from sonant.audio.encode import open_encoder
from sonant.audio.io import AudioLimits, read_audio, write_audio
from sonant.errors import RequestError


def tone(seconds=0.5, rate=16_000, level=0.5):
    return (level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav(samples, rate=16_000, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=options.pop("format", "WAV"), **options)
    return buffer.getvalue()


def container(form, codec, *, rate=48_000, kind="fltp"):
    """A second of a stereo tone (right channel silent) that only FFmpeg reads."""
    left = tone(1.0, rate)
    planes = np.stack([left, np.zeros_like(left)])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as target:
        stream = target.add_stream(codec, rate=rate, layout="stereo")
        stream.codec_context.format = kind
        values = planes if kind == "fltp" else planes.T.reshape(1, -1)
        if kind == "s16":
            values = (values * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=kind, layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return buffer.getvalue()


def test_path_bytes_and_file_object_read_the_same(tmp_path):
    data = wav(tone())
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with path.open("rb") as file:
        results = [read_audio(source) for source in (path, str(path), data, io.BytesIO(data), file)]
    for samples, rate in results:
        assert rate == 16_000
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, results[0][0])


def test_channels_are_averaged_and_rate_is_converted():
    left = tone(1.0, 44_100)
    samples, rate = read_audio(wav(np.stack([left, np.zeros_like(left)], 1), 44_100), sample_rate=24_000)
    assert (rate, len(samples)) == (24_000, 24_001)  # librosa's length
    assert abs(np.abs(samples[1000:-1000]).max() - 0.25) < 0.005


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_sample_formats_give_the_same_sound(subtype):
    samples, _ = read_audio(wav(tone(), subtype=subtype))
    assert np.abs(samples - tone()).max() < 0.03


@pytest.mark.parametrize(
    ("form", "codec", "kind"),
    [
        ("mp4", "aac", "fltp"),
        ("webm", "libopus", "flt"),
        ("matroska", "aac", "fltp"),
        ("mov", "pcm_s16le", "s16"),
    ],
)
def test_what_libsndfile_cannot_read_is_read_by_ffmpeg(form, codec, kind):
    data = container(form, codec, kind=kind)
    samples, rate = read_audio(data)
    assert rate == 48_000
    assert abs(len(samples) / rate - 1.0) < 0.05
    assert 0.2 < np.abs(samples).max() < 0.32


def test_a_streamed_flac_without_length_is_read_whole():
    encoder = open_encoder("flac", 24_000)
    data = encoder.encode(tone(2.0, 24_000)) + encoder.finish()
    samples, rate = read_audio(data)
    assert (len(samples), rate) == (48_000, 24_000)


def test_too_long_is_refused_from_the_header_without_decoding(monkeypatch):
    monkeypatch.setattr("sonant.audio.io._blocks", lambda file: pytest.fail("it decoded"))
    with pytest.raises(RequestError, match=r"lasts 0\.50 s or more; expected at most 0\.20 s"):
        read_audio(wav(tone()), max_seconds=0.2)


def test_too_long_is_stopped_while_decoding_where_the_header_is_silent():
    encoder = open_encoder("flac", 24_000)
    data = encoder.encode(tone(20.0, 24_000)) + encoder.finish()
    with pytest.raises(RequestError, match="expected at most 3"):
        read_audio(data, max_seconds=3.0)


def test_too_long_m4a_is_refused():
    with pytest.raises(RequestError, match="expected at most"):
        read_audio(container("mp4", "aac"), max_seconds=0.3)


@pytest.mark.parametrize("rate", [0, 999, 768_001, 2**31, 2**32 - 1])
def test_a_wav_with_an_impossible_rate_is_refused_by_that_rate(rate):
    data = bytearray(wav(np.zeros(100, np.float32)))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(RequestError, match=f"sample rate of {rate} Hz"):
        read_audio(bytes(data))


def test_limits_on_bytes_channels_rate_and_samples(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone()))
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(RequestError, match="MiB"):
            read_audio(source, limits=AudioLimits(max_bytes=1000))
    with pytest.raises(RequestError, match="3 channels"):
        read_audio(wav(np.zeros((100, 3), np.float32)), limits=AudioLimits(max_channels=2))
    with pytest.raises(RequestError, match="sample rate of 16000"):
        read_audio(path, limits=AudioLimits(min_rate=22_050))
    with pytest.raises(RequestError, match="expected at most"):
        read_audio(path, limits=AudioLimits(max_samples=1000))
    with pytest.raises(RequestError, match="asked for"):
        read_audio(path, sample_rate=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello world" * 100,
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        wav(tone())[:44],
        wav(np.zeros(0, np.float32)),
    ],
    ids=["nothing", "text", "concat", "playlist", "picture", "header only", "no samples"],
)
def test_what_is_not_sound_is_refused(data):
    with pytest.raises(RequestError, match="expected"):
        read_audio(data)


def test_samples_that_are_not_finite_are_refused():
    bad = tone()
    for value in (np.nan, np.inf, -np.inf):
        bad[100] = value
        with pytest.raises(RequestError, match="not finite"):
            read_audio(wav(bad, subtype="FLOAT"))


def test_bad_sources_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    closed = io.BytesIO(b"x")
    closed.close()
    for source, words in (
        (tmp_path / "absent.wav", "no file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        ("a\0b", "cannot read"),
        ("\udcff", "expected"),
        (io.StringIO("text"), "binary"),
        (closed, "cannot read"),
        (7, "int"),
    ):
        with pytest.raises(RequestError, match=words):
            read_audio(source)


def test_written_wav_reads_back_exactly(tmp_path):
    samples = np.rint(tone() * 32768).astype(np.float32) / 32768
    write_audio(tmp_path / "a.wav", samples, 16_000)
    again, rate = read_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(again, samples)
    assert rate == 16_000


@pytest.mark.parametrize(("riff", "size"), [(0, 0), (36, 0), (2**32 - 1, 2**32 - 1), (0, 2**32 - 1)])
def test_a_wav_that_was_streamed_is_read_to_its_end(riff, size):
    """Writers of streams state a length of 0, or the largest there is."""
    samples = (8000 * np.sin(np.arange(2400) / 10)).astype("<i2")
    form = struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size)
    heard, rate = read_audio(head + samples.tobytes())
    assert rate == 24_000
    assert np.array_equal(heard, samples.astype(np.float32) / 32768)
