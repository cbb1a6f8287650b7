"""A recording to look at: spectrogram and waveform, and both with a player for a notebook."""

from __future__ import annotations

import base64
import html
import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt

from sonant.audio.io import write_audio

Samples = npt.NDArray[np.float32]

PICTURE_WIDTH, PICTURE_HEIGHT = 720, 128
FLOOR_DB = 80.0
"""Spectrograms show this range below their loudest point."""
# Anchors of a dark-to-light scale; lightness rises evenly, so it reads in grey too.
COLOURS = np.array(
    [[8, 8, 24], [64, 24, 104], [152, 46, 110], [228, 92, 70], [250, 172, 60], [252, 250, 190]]
)


def spectrogram(samples: Samples, sample_rate: int) -> npt.NDArray[np.uint8]:
    """Picture [PICTURE_HEIGHT, PICTURE_WIDTH, 3]: time to the right, frequency upwards as a mel scale."""
    size = max(64, int(0.04 * sample_rate))
    padded = np.pad(samples.astype(np.float64), (size // 2, size))
    starts = np.linspace(0, len(padded) - size, PICTURE_WIDTH).astype(int)
    window = np.hanning(size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    mels = np.linspace(0, np.log1p(sample_rate / 2 / 700), PICTURE_HEIGHT + 1)
    edges = np.floor(np.expm1(mels) * 700 / (sample_rate / 2) * (power.shape[1] - 1)).astype(int)
    bands = np.stack([power[:, low : max(high, low + 1)].max(axis=1) for low, high in pairwise(edges)])
    level = 10 * np.log10(bands + 1e-12)
    shade = np.clip((level - level.max() + FLOOR_DB) / FLOOR_DB, 0, 1)[::-1]
    place = shade * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    mixed = COLOURS[low] + (COLOURS[low + 1] - COLOURS[low]) * (place - low)[..., None]
    return np.rint(mixed).astype(np.uint8)


def png(picture: npt.NDArray[np.uint8]) -> bytes:
    """A PNG file of a picture [H, W, 3]."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, _ = picture.shape
    encoder.pix_fmt = "rgb24"
    encoder.framerate = Fraction(1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


def waveform(samples: Samples, *, width: int = PICTURE_WIDTH, height: int = 80) -> str:
    """The outline of samples [S], highest and lowest of each column, as an SVG picture."""
    columns = np.array_split(samples, min(width, max(len(samples), 1)))
    middle = height / 2
    above = [f"{x},{middle - middle * float(np.max(c, initial=0.0)):.1f}" for x, c in enumerate(columns)]
    below = [f"{x},{middle + 1 - middle * float(np.min(c, initial=0.0)):.1f}" for x, c in enumerate(columns)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(columns)} {height}" role="img" '
        f'preserveAspectRatio="none" aria-label="waveform" style="width:100%;height:{height}px">'
        f'<polygon points="{" ".join([*above, *reversed(below)])}" fill="currentColor"/></svg>'
    )


def notebook_page(samples: Samples, sample_rate: int, title: str) -> str:
    """HTML with a player, the waveform and the spectrogram, everything inside."""
    sound = io.BytesIO()
    write_audio(sound, samples, sample_rate, format="wav")
    wav = base64.b64encode(sound.getvalue()).decode()
    picture = base64.b64encode(png(spectrogram(samples, sample_rate))).decode()
    return (
        f'<figure style="margin:0;max-width:{PICTURE_WIDTH}px"><figcaption>{html.escape(title)}</figcaption>'
        f'<audio controls src="data:audio/wav;base64,{wav}" style="width:100%"></audio>'
        f'{waveform(samples)}<img alt="spectrogram" style="width:100%" src="data:image/png;base64,{picture}">'
        "</figure>"
    )
