"""Read audio as mono float32 at a known rate, within limits; write a whole file.

libsndfile reads what it can (wav, flac, ogg, mp3, aiff, ...), FFmpeg the rest (m4a, webm, aac, ...).
Nothing but the given bytes is ever opened: playlists and other formats that name further files are refused.
"""

from __future__ import annotations

import io
import logging
import math
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from sonant.audio.encode import AudioWriter
from sonant.audio.resample import resample_soxr
from sonant.errors import RequestError

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]
Source = str | os.PathLike[str] | bytes | BinaryIO

UNKNOWN_LENGTH = 2**50  # libsndfile reports lengths above this where the file does not say
BLOCK = 1 << 20  # decoded values (frames times channels) held at once before mixing down

# Containers FFmpeg may open. Absent on purpose: hls, dash, concat, lavfi, image2, rtsp, sdp and others that
# fetch further files, addresses or devices.
FFMPEG_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,ogg,aac,mp3,flac,wav,w64,aiff,caf,au,amr,asf,avi,flv,"
    "mpegts,mpeg,ac3,eac3,dts,ape,wv,tta,mpc,mpc8,tak,dsf,voc,gsm,loas,opus"
)


@dataclass(frozen=True, kw_only=True)
class AudioLimits:
    """What an audio source may be; checked from its header, and again while it is decoded."""

    max_bytes: int = 512 * 2**20
    max_channels: int = 64
    min_rate: int = 1_000
    max_rate: int = 768_000
    max_seconds: float = 2 * 3600.0
    max_samples: int = 250_000_000
    """Mono samples held in memory, 4 bytes each."""


DEFAULT_LIMITS = AudioLimits()


def read_audio(
    source: Source,
    *,
    sample_rate: int | None = None,
    max_seconds: float | None = None,
    limits: AudioLimits = DEFAULT_LIMITS,
) -> tuple[Samples, int]:
    """Mono samples [S] (the mean of the channels) and their rate in Hz.

    `sample_rate` resamples with soxr's high quality; `max_seconds` tightens the limit on duration.
    Raises RequestError when the source is absent, not audio, damaged, empty or beyond a limit.
    """
    if sample_rate is not None and not limits.min_rate <= sample_rate <= limits.max_rate:
        raise RequestError(
            f"sample rate {sample_rate} Hz was asked for; expected {limits.min_rate} to {limits.max_rate}. "
            "Choose a usual rate such as 24000.",
            field="sample_rate",
        )
    seconds = limits.max_seconds if max_seconds is None else min(max_seconds, limits.max_seconds)
    data = _read_bytes(source, limits.max_bytes)
    if not data:
        raise RequestError("the audio source is empty (0 bytes); expected an audio file. Check the source.")
    mono, rate = _decode(_with_its_length(data), limits, seconds)
    if not len(mono):
        raise RequestError(
            "the audio holds no samples; expected some sound. Check that the recording was saved completely."
        )
    if not np.isfinite(mono).all():
        raise RequestError(
            "the audio has samples that are not finite (NaN or infinite); expected numbers in about -1..1. "
            "Export the file again, for instance as 16-bit wav."
        )
    if sample_rate is not None and sample_rate != rate:
        return resample_soxr(mono, rate, sample_rate), sample_rate
    return mono, rate


def write_audio(
    target: str | os.PathLike[str] | BinaryIO,
    samples: Samples,
    sample_rate: int,
    *,
    format: str | None = None,
) -> None:
    """Write samples [S] to a path (format from its suffix) or a file object (`format` needed).

    Samples beyond -1..1 are held at the limits and a warning tells how many they were.
    """
    with AudioWriter(target, sample_rate, format=format) as writer:
        writer.write(samples)


class _Memory(io.BytesIO):
    """Bytes as a file whose seeks stay inside; damaged headers ask for negative positions."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = self.getbuffer().nbytes
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: size}.get(whence, 0)
        return super().seek(min(max(origin + offset, 0), size))


def _read_bytes(source: Source, limit: int) -> bytes:
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, os.PathLike)):
        data = _read_path(source, limit)
    elif hasattr(source, "read"):
        data = _read_object(source, limit)
    else:
        raise RequestError(
            f"audio was given as {type(source).__name__}; expected a path, bytes or a binary file object."
        )
    if len(data) > limit:
        raise RequestError(
            f"the audio has more than {limit / 2**20:.0f} MiB, the limit. Cut it, or convert it to a "
            "compressed format."
        )
    return data


def _read_path(path: str | os.PathLike[str], limit: int) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise RequestError(
                f"{os.fspath(path)!r} is not a regular file; expected an audio file. "
                "Give a file, or pass an open stream."
            )
        if status.st_size > limit:
            raise RequestError(
                f"{os.fspath(path)!r} has {status.st_size / 2**20:.0f} MiB; expected at most "
                f"{limit / 2**20:.0f} MiB. Cut it, or convert it to a compressed format."
            )
        with open(path, "rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError as error:
        raise RequestError(f"no file {os.fspath(path)!r}; expected an audio file. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character or lone surrogate in the path
        raise RequestError(
            f"cannot read {os.fspath(path)!r} ({error}); expected a readable audio file. "
            "Check the path and its permissions."
        ) from error


def _read_object(source: BinaryIO, limit: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    while total <= limit:
        try:
            piece = source.read(min(limit + 1 - total, 1 << 20))
        except (OSError, ValueError) as error:
            raise RequestError(
                f"cannot read the audio stream ({error}); expected an open binary file. Open it again."
            ) from error
        if not isinstance(piece, bytes):
            raise RequestError(
                f"the audio stream gave {type(piece).__name__}; expected bytes. Open the file in binary mode."
            )
        if not piece:
            break
        pieces.append(piece)
        total += len(piece)
    return b"".join(pieces)


def _decode(data: bytes, limits: AudioLimits, max_seconds: float) -> tuple[Samples, int]:
    try:
        file = soundfile.SoundFile(_Memory(data))
    except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        if (
            stated := _wav_header(data)
        ) is not None:  # libsndfile calls a rate of 0 or above 2**31 incomplete
            _check_header(*stated, limits)
        return _decode_ffmpeg(data, limits, max_seconds, reason)
    with file:
        _check_header(file.channels, file.samplerate, limits)
        if file.frames >= UNKNOWN_LENGTH:  # a streamed flac: libsndfile cannot keep its place in it
            return _decode_ffmpeg(data, limits, max_seconds, "its length is unknown.")
        collected = _Collector(file.samplerate, limits, max_seconds)
        collected.check(file.frames)
        try:
            for block in _blocks(file):
                collected.add(block)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise _damaged(str(error)) from error
        if (
            file.frames - collected.count > 0.1 * file.samplerate
        ):  # mp3 headers are off by a fraction of a frame
            logger.warning(
                "the audio ends after %d of the %d samples its header announces", collected.count, file.frames
            )
        return collected.mono(), file.samplerate


def _blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    frames = max(BLOCK // file.channels, 1)
    while True:
        block = file.read(frames, dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block


class _Collector:
    """Mono samples as they are decoded, stopped hard at the limits."""

    def __init__(self, rate: int, limits: AudioLimits, max_seconds: float) -> None:
        self.rate = rate
        self.count = 0
        self._most = min(math.floor(max_seconds * rate), limits.max_samples)
        self._pieces: list[Samples] = []

    def check(self, count: int) -> None:
        """Refuse a length of `count` samples beyond the limit."""
        if count > self._most:
            raise _too_long(count / self.rate, self._most / self.rate)

    def add(self, block: Samples) -> None:
        """Take decoded samples [N, C]."""
        self.count += len(block)
        self.check(self.count)
        with np.errstate(over="ignore", invalid="ignore"):  # not finite is refused at the end
            self._pieces.append(block.mean(axis=1))

    def mono(self) -> Samples:
        """Everything so far [S]."""
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)


def _wav_header(data: bytes) -> tuple[int, int] | None:
    """Channels and sample rate as a wav file states them, or None when the bytes are no wav."""
    for name, start, _ in _wav_chunks(data):
        if name == b"fmt ":
            channels, rate = struct.unpack_from("<HI", data, start + 2)
            return channels, rate
    return None


def _wav_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and stated size of each chunk of a wav file; none of other bytes."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    start = 12
    while start + 16 <= len(data):
        name, size = struct.unpack_from("<4sI", data, start)
        yield name, start + 8, size
        start += 8 + size + size % 2


def _with_its_length(data: bytes) -> bytes:
    """A wav whose writer never went back to say how long it is (a size of 0 and samples after it), mended."""
    for name, start, size in _wav_chunks(data):
        if name == b"data":
            if size or len(data) <= start:
                return data
            head, rest = data[: start - 4], data[start:]
            whole = b"".join((head, struct.pack("<I", min(len(rest), 2**32 - 1)), rest))
            return b"".join((whole[:4], struct.pack("<I", min(len(whole) - 8, 2**32 - 1)), whole[8:]))
    return data


def _check_header(channels: int, rate: int, limits: AudioLimits) -> None:
    if not 1 <= channels <= limits.max_channels:
        raise RequestError(
            f"the audio has {channels} channels; expected 1 to {limits.max_channels}. "
            "Mix it down to mono or stereo."
        )
    if not limits.min_rate <= rate <= limits.max_rate:
        raise RequestError(
            f"the audio has a sample rate of {rate} Hz; expected {limits.min_rate} to {limits.max_rate} Hz. "
            "Convert it to a usual rate such as 24000 Hz."
        )


def _too_long(seconds: float, limit: float) -> RequestError:
    return RequestError(
        f"the audio lasts {seconds:.2f} s or more; expected at most {limit:.2f} s. "
        "Cut it to the part that matters."
    )


def _damaged(reason: str) -> RequestError:
    return RequestError(
        f"the audio is damaged and cannot be decoded ({reason.strip()}); expected a complete file. "
        "Export or download it again."
    )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _decode_ffmpeg(data: bytes, limits: AudioLimits, max_seconds: float, first: str) -> tuple[Samples, int]:
    import av

    try:
        container: Any = av.open(
            _Memory(data),
            options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"the audio cannot be read (libsndfile: {first.strip()} FFmpeg: {_reason(error)}); expected "
            "a sound file such as wav, flac, mp3, ogg, m4a or webm. Convert it to wav."
        ) from error
    with container:
        if not container.streams.audio:
            raise RequestError(
                "the file has no sound track; expected one. "
                "Choose a file with sound, or export its sound as wav."
            )
        stream = container.streams.audio[0]
        collected: _Collector | None = None
        resampler = av.AudioResampler(format="fltp")  # only the sample format changes
        try:
            announced = (container.duration or 0) / 1e6  # given in microseconds, padding included
            if announced > max_seconds + 1.0:
                raise _too_long(announced, max_seconds)
            for frame in container.decode(stream):
                channels, rate = frame.layout.nb_channels, frame.sample_rate
                if collected is None:
                    _check_header(channels, rate, limits)
                    collected = _Collector(rate, limits, max_seconds)
                elif rate != collected.rate:
                    raise _damaged(f"the sample rate changes from {collected.rate} to {rate} Hz")
                for planar in resampler.resample(frame):
                    collected.add(planar.to_ndarray().T.astype(np.float32, copy=False))
        except (av.FFmpegError, ValueError, RuntimeError) as error:
            raise _damaged(_reason(error)) from error
        if collected is None:
            return np.zeros(0, np.float32), limits.min_rate
        return collected.mono(), collected.rate
