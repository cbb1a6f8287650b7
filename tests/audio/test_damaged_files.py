"""A thousand damaged files: each is read, or refused with Sonant's own error, and soon."""

import io
import random
import time

import numpy as np
import pytest
import soundfile

from sonant.audio.encode import open_encoder
from sonant.audio.io import read_audio
from sonant.errors import SonantError

FILES = 1000
SOON = 2.0  # seconds of processor time for one file of a few kB; measured: under 0.05


@pytest.fixture(scope="module")
def seeds():
    """Small valid files in every container a user is likely to send."""
    times = np.arange(6000) / 16_000
    sweep = (0.4 * np.sin(2 * np.pi * 300 * times * (1 + times))).astype(np.float32)
    files = []
    for form in ("WAV", "FLAC", "MP3", "OGG", "AIFF", "W64", "AU"):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.stack([sweep, -sweep / 2], 1), 16_000, format=form)
        files.append(buffer.getvalue())
    for form in ("opus", "aac", "flac", "mp3"):
        encoder = open_encoder(form, 24_000)
        files.append(encoder.encode(sweep) + encoder.finish())
    return files


def mutated(rng, seeds):
    data = bytearray(rng.choice(seeds))
    kind = rng.randrange(6)
    place = rng.randrange(len(data))
    if kind == 0:
        del data[place:]
    elif kind == 1:
        for _ in range(rng.randrange(1, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(min(len(data), 96))] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
    elif kind == 3:
        del data[place : place + rng.randrange(1, 400)]
    elif kind == 4:
        data[place:place] = rng.randbytes(rng.randrange(1, 300))
    else:
        other = rng.choice(seeds)
        data[place:] = other[rng.randrange(len(other)) :]
    return bytes(data)


def test_a_thousand_damaged_files_never_crash_or_hang(seeds):
    rng = random.Random(7)
    read = refused = 0
    reasons = []
    for number in range(FILES):
        data = mutated(rng, seeds)
        start = time.thread_time()
        try:
            samples, rate = read_audio(data, sample_rate=24_000, max_seconds=60)
        except SonantError as error:
            refused += 1
            reasons.append(str(error))
        else:
            read += 1
            assert rate == 24_000
            assert samples.ndim == 1
            assert np.isfinite(samples).all()
        assert time.thread_time() - start < SOON, f"file {number} took too long"
    assert read > 100  # the mutations reach past the headers
    assert refused > 100
    assert all("expected" in reason for reason in reasons)
