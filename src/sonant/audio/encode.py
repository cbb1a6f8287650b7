"""Encode sound piece by piece: wav, flac, mp3, opus, aac, m4a and raw pcm, to bytes or to a file.

    samples [S] at the model's rate -> (resampled where a codec needs it) -> bytes

The same samples give the same bytes, however they are cut into pieces.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import soxr

from sonant.errors import RequestError, StorageError
from sonant.files import FULL, SHUT

logger = logging.getLogger(__name__)

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """A format Sonant writes."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    rates: tuple[int, ...] = ()
    """Sample rates the codec takes; empty means any. Other rates are resampled to the next higher one."""
    codec: str = ""
    """FFmpeg's name of the encoder; empty where the bytes are written here."""
    container: str = ""
    bit_rate: int = 0
    most_bits: int = 5
    """Bits for each sample that the codec can spend; low sample rates get a lower bit rate."""


_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
FORMATS: Mapping[str, AudioFormat] = {
    form.name: form
    for form in (
        AudioFormat(name="wav", media_type="audio/wav", suffixes=(".wav", ".wave")),
        AudioFormat(
            name="flac", media_type="audio/flac", suffixes=(".flac",), codec="flac", container="flac"
        ),
        AudioFormat(
            name="mp3",
            media_type="audio/mpeg",
            suffixes=(".mp3",),
            rates=_MP3_RATES,
            codec="libmp3lame",
            container="mp3",
            bit_rate=128_000,
            most_bits=8,
        ),
        AudioFormat(
            name="opus",
            media_type="audio/ogg",
            suffixes=(".opus", ".ogg"),
            rates=(48_000,),  # the codec's own rate; headers promise it whatever the input was
            codec="libopus",
            container="ogg",
            bit_rate=64_000,
        ),
        AudioFormat(
            name="aac",
            media_type="audio/aac",
            suffixes=(".aac",),
            rates=(*_MP3_RATES, 64_000, 88_200, 96_000),
            codec="aac",
            container="adts",
            bit_rate=96_000,
        ),
        AudioFormat(
            name="m4a",
            media_type="audio/mp4",
            suffixes=(".m4a",),
            rates=_MP3_RATES,
            codec="aac",
            container="mp4",
            bit_rate=96_000,
        ),
        # Raw 16-bit little-endian at 24 kHz, as OpenAI's "pcm" is defined.
        AudioFormat(name="pcm", media_type="audio/pcm", suffixes=(".pcm", ".raw"), rates=(24_000,)),
    )
}


def find_format(name: str) -> AudioFormat:
    """The format called `name`, or a RequestError that lists the names."""
    form = FORMATS.get(name.lower().lstrip("."))
    if form is None:
        raise RequestError(
            f"audio format {name!r} is unknown; expected one of {', '.join(FORMATS)}. Choose one of them.",
            field="response_format",
        )
    return form


def format_of_path(path: str | os.PathLike[str]) -> AudioFormat:
    """The format that a path's suffix names, or a RequestError that lists the suffixes."""
    suffix = Path(path).suffix.lower()
    for form in FORMATS.values():
        if suffix in form.suffixes:
            return form
    known = ", ".join(suffix for form in FORMATS.values() for suffix in form.suffixes)
    what = f"{str(path)!r} is a folder, and" if Path(path).is_dir() else f"the file name {Path(path).name!r}"
    raise RequestError(
        f"{what} does not say its audio format; expected an ending of {known}. "
        "Rename the file, or name the format."
    )


class Encoder(Protocol):
    """Turns samples into bytes of one file, piece by piece."""

    format: AudioFormat
    sample_rate: int
    """Of the encoded sound, in Hz."""

    @property
    def clipped(self) -> int:
        """Samples so far that lay beyond -1..1 and were held at the limit."""

    def encode(self, samples: Samples) -> bytes:
        """Bytes that are ready after these samples [S]; maybe none yet."""

    def finish(self) -> bytes:
        """The remaining bytes."""

    def final_header(self) -> bytes:
        """What to write over the start of the file once the length is known; may be empty."""


def open_encoder(
    format: str, sample_rate: int, *, rate: int | None = None, bit_rate: int | None = None
) -> Encoder:
    """An encoder for samples at `sample_rate` Hz; `format` is a key of FORMATS.

    `rate` resamples to that of the file, `bit_rate` is in bits a second; None leaves both to the format.
    """
    form = find_format(format)
    if rate is not None:
        form = replace(form, rates=(rate,))
    if bit_rate is not None:
        form = replace(form, bit_rate=bit_rate)
    if not 1_000 <= sample_rate <= 768_000:
        raise RequestError(
            f"cannot write audio at {sample_rate} Hz; expected 1000 to 768000 Hz. Resample it first."
        )
    return FFmpegEncoder(form, sample_rate) if form.codec else PcmEncoder(form, sample_rate)


class _Intake:
    """Checks samples, counts and holds what is beyond -1..1, and resamples to the codec's rate."""

    def __init__(self, form: AudioFormat, sample_rate: int) -> None:
        higher = [rate for rate in form.rates if rate >= sample_rate]
        self.rate = sample_rate if not form.rates else min(higher, default=max(form.rates))
        self.clipped = 0
        self._stream = None
        if self.rate != sample_rate:
            self._stream = soxr.ResampleStream(sample_rate, self.rate, 1, dtype="float32", quality="HQ")

    def take(self, samples: Samples, *, last: bool = False) -> Samples:
        """Samples [S'] at `rate`, all of them in -1..1."""
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1:
            raise RequestError(
                f"samples of shape {samples.shape} are not mono; expected one row. Average them."
            )
        if not np.isfinite(samples).all():
            raise RequestError(
                "the samples to write are not all finite; expected numbers in -1..1. "
                "The model or an effect before this failed; run it with --seed again or in float32."
            )
        beyond = int(np.count_nonzero(np.abs(samples) > 1.0))
        if beyond:
            self.clipped += beyond
            samples = np.clip(samples, -1.0, 1.0)
        if self._stream is None:
            return samples
        # Resampling overshoots full-scale edges a little; that is no fault of the input and is not counted.
        return np.clip(self._stream.resample_chunk(samples, last=last), -1.0, 1.0)

    def rest(self) -> Samples:
        """What the resampler still holds."""
        return self.take(np.zeros(0, np.float32), last=True)

    def report(self) -> None:
        """Say so when samples were held."""
        if self.clipped:
            logger.warning(
                "%d samples were beyond full scale and were held at it; lower the level to avoid the "
                "distortion",
                self.clipped,
            )


def to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    """Samples in -1..1 as 16-bit integers; reading them back as n / 32768 changes nothing."""
    return np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767).astype("<i2")


class PcmEncoder:
    """16-bit little-endian samples, bare or behind a wav header whose length is open until the end."""

    def __init__(self, form: AudioFormat, sample_rate: int) -> None:
        self.format = form
        self._intake = _Intake(form, sample_rate)
        self.sample_rate = self._intake.rate
        self._bytes = 0
        self._started = form.name != "wav"

    @property
    def clipped(self) -> int:
        """Samples held at full scale so far."""
        return self._intake.clipped

    def encode(self, samples: Samples) -> bytes:
        """Header (once) and samples as bytes."""
        return self._pack(self._intake.take(samples))

    def finish(self) -> bytes:
        """Samples that the resampler still held."""
        self._intake.report()
        return self._pack(self._intake.rest())

    def final_header(self) -> bytes:
        """The wav header with true sizes; empty for raw samples and beyond 4 GiB."""
        return self._header(self._bytes) if self.format.name == "wav" and self._bytes < 2**32 - 36 else b""

    def _pack(self, samples: Samples) -> bytes:
        body = to_int16(samples).tobytes()
        self._bytes += len(body)
        if not self._started:
            self._started = True
            return self._header(None) + body
        return body

    def _header(self, size: int | None) -> bytes:
        """44 bytes; an unknown size is 0xFFFFFFFF, which readers take as "until the end"."""
        riff, data = (0xFFFFFFFF, 0xFFFFFFFF) if size is None else (size + 36, size)
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, self.sample_rate, self.sample_rate * 2, 2, 16),
            *(b"data", data),
        )


class _Sink:
    """Collects what a container writes; it cannot seek, so containers write as for a stream."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        """Append."""
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        """Everything since the last call."""
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


class FFmpegEncoder:
    """flac, mp3, opus and aac, bare or in MP4, through FFmpeg's encoders."""

    def __init__(self, form: AudioFormat, sample_rate: int) -> None:
        import av

        self.format = form
        self._intake = _Intake(form, sample_rate)
        self.sample_rate = self._intake.rate
        self._sink = _Sink()
        self._container: Any = av.open(
            self._sink,
            "w",
            format=form.container,
            # bitexact: no version strings, no random stream number. flush_packets: nothing waits in a buffer.
            options={"fflags": "+bitexact", "flush_packets": "1", **_CONTAINER_OPTIONS.get(form.name, {})},
        )
        self._stream: Any = self._container.add_stream(form.codec, rate=self.sample_rate, layout="mono")
        context: Any = self._stream.codec_context
        context.format = "s16" if form.name == "flac" else ("flt" if form.name == "opus" else "fltp")
        context.options = {"flags": "+bitexact"}
        context.thread_count = 1
        if form.bit_rate:
            context.bit_rate = min(form.bit_rate, form.most_bits * self.sample_rate)
        self._position = 0
        self._digest = hashlib.md5(usedforsecurity=False)  # FLAC's header carries the MD5 of its samples
        self._head = b""

    @property
    def clipped(self) -> int:
        """Samples held at full scale so far."""
        return self._intake.clipped

    def encode(self, samples: Samples) -> bytes:
        """Bytes ready after these samples."""
        return self._push(self._intake.take(samples))

    def finish(self) -> bytes:
        """The last frames."""
        self._intake.report()
        ready = self._push(self._intake.rest())
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return ready + self._collect()

    def final_header(self) -> bytes:
        """FLAC's stream information with the number of samples and their MD5; empty for other formats."""
        if self.format.name != "flac" or self._head[:4] != b"fLaC":
            return b""
        # "fLaC", block header (4), block and frame sizes (10), rate/channels/bits/total (8), MD5 (16)
        packed = int.from_bytes(self._head[18:26], "big") >> 36 << 36 | self._position
        return self._head[:18] + packed.to_bytes(8, "big") + self._digest.digest()

    def _push(self, samples: Samples) -> bytes:
        import av

        if not len(samples):
            return self._collect()
        kind = self._stream.codec_context.format.name
        values: npt.NDArray[Any] = samples
        if kind == "s16":
            values = to_int16(samples)
            self._digest.update(values.tobytes())
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values[None]), format=kind, layout="mono")
        frame.sample_rate = self.sample_rate
        frame.pts = self._position
        self._position += len(samples)
        self._container.mux(self._stream.encode(frame))
        return self._collect()

    def _collect(self) -> bytes:
        ready = self._sink.take()
        if len(self._head) < 42:
            self._head += ready[: 42 - len(self._head)]
        return ready


_CONTAINER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "mp3": {"write_xing": "0", "id3v2_version": "0"},  # the Xing header needs the length
    # In fragments, as nothing can go back to the start; each is whole, so a file that broke off plays.
    "m4a": {"movflags": "+empty_moov+default_base_moof", "frag_duration": "250000", "brand": "M4A "},
    "opus": {"page_duration": "100000"},  # microseconds; the default of a second would delay the first sound
}


def _create(path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return open(path, "wb")
    except (OSError, ValueError) as error:  # ValueError: a null character or lone surrogate in the path
        is_shut = isinstance(error, OSError) and error.errno in (*FULL, *SHUT)
        raise (StorageError if is_shut else RequestError)(
            f"cannot write {os.fspath(path)!r} ({error}); expected a place to write to. "
            "Check the folder and its permissions."
        ) from error


class AudioWriter:
    """A file that grows as it is spoken; whatever happens, `close` leaves it valid.

    `target` is a path (format from its suffix unless named) or a binary file object (format needed; it is
    not closed). Use as a context manager: leaving it, also by an exception, closes it.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        sample_rate: int,
        *,
        format: str | None = None,
    ) -> None:
        if format is None:
            if not isinstance(target, (str, os.PathLike)):
                raise RequestError(
                    f"no audio format was named for a stream; expected one of {', '.join(FORMATS)}. Name one."
                )
            format = format_of_path(target).name
        self.encoder = open_encoder(format, sample_rate)
        self.samples = 0
        """Samples taken so far, at the rate given."""
        self._owned = isinstance(target, (str, os.PathLike))
        self._file: IO[bytes] = _create(target) if isinstance(target, (str, os.PathLike)) else target
        self._start = self._file.tell() if self._seekable() else 0
        self._closed = False

    def write(self, samples: Samples) -> None:
        """Add samples [S]; what is encoded so far is handed to the file at once."""
        assert not self._closed, "the writer is closed"
        ready = self.encoder.encode(samples)
        self.samples += len(samples)
        if ready:
            self._file.write(ready)
            self._file.flush()

    def close(self) -> None:
        """Finish the file: last frames, and true lengths in the header where the file can seek."""
        if self._closed:
            return
        self._closed = True
        try:
            self._file.write(self.encoder.encode(np.zeros(0, np.float32)) + self.encoder.finish())
            header = self.encoder.final_header()
            if header and self._seekable():
                end = self._file.tell()
                self._file.seek(self._start)
                self._file.write(header)
                self._file.seek(end)
            self._file.flush()
        finally:
            if self._owned:
                self._file.close()

    def _seekable(self) -> bool:
        seekable = getattr(self._file, "seekable", None)
        return bool(seekable and seekable())

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
