"""Mending a reference clip gently: only what is wrong is touched, and everything that was done is said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sonant.audio.acoustics import acoustics
from sonant.audio.loudness import at_loudness
from sonant.audio.measure import FRAME_SECONDS, frame_levels, measure
from sonant.audio.resample import resample_soxr
from sonant.audio.rumble import CUTOFF_HZ, HighPass, RumbleMeter
from sonant.request.audio import Audio, Samples
from sonant.voices.doctor import HISSING, LONGEST, MOST_EDGE, STEADY

RATE = 24_000
"""Hz; no family listens to more of a clip."""
EDGE = 0.2
"""Seconds of silence left at either end."""
QUIETEST, LOUDEST, LEVEL = -30.0, -14.0, -23.0
"""LUFS: beyond the first two a clip is brought to the third."""
KEPT_SECONDS = (8.0, 15.0)
"""A long clip is cut at the longest pause between these."""
DEEPEST = 12.0
"""dB by which noise is taken down at most: more is heard in the voice."""
WINDOW = 0.032  # seconds


@dataclass(frozen=True)
class Mended:
    """A clip and what was done to it, one sentence each; nothing when nothing was wrong."""

    audio: Audio
    done: tuple[str, ...]


def mend(audio: Audio, *, may_cut: bool = True) -> Mended:
    """The clip trimmed, resampled, filtered, denoised and levelled where that helps.

    `may_cut` allows cutting speech from a long clip, whose transcript would no longer fit. A clip in which
    nothing is heard comes back as it is.
    """
    samples, rate, done = audio.samples, audio.sample_rate, []
    if not len(samples) or float(np.abs(samples).max()) < 1e-3:
        return Mended(audio, ())
    meter = RumbleMeter(rate)
    meter.push(samples)
    if meter.result().is_excessive:  # first: an offset would ring at the ends when it is resampled
        samples = HighPass(CUTOFF_HZ, rate).push(samples)
        done.append(f"Filtered away what lies below {CUTOFF_HZ:g} Hz.")
    if rate > RATE:
        samples, rate = resample_soxr(samples, rate, RATE), RATE
        done.append(f"Resampled from {audio.sample_rate:,} to {RATE:,} Hz.")
    distance = acoustics(samples, rate).noise_distance
    if STEADY < distance < HISSING:
        samples = _denoised(samples, rate)
        less = max(acoustics(samples, rate).noise_distance - distance, 0.0)
        done.append(f"Took the noise down by {less:.0f} dB (it was {distance:.0f} dB under the voice).")
    found = measure(samples, rate)
    if np.isfinite(found.loudness) and not QUIETEST <= found.loudness <= LOUDEST:
        samples = at_loudness(samples, rate, LEVEL)
        reached = measure(samples, rate).loudness
        done.append(f"Brought the level from {found.loudness:.0f} to {reached:.0f} LUFS.")
    samples, said = _trimmed(
        samples, rate
    )  # after the level: in a faint clip soft consonants pass for silence
    done += said
    if may_cut and len(samples) / rate > LONGEST:
        samples, said = _cut(samples, rate)
        done += said
    return Mended(Audio(samples, rate) if done else audio, tuple(done))


def _trimmed(samples: Samples, rate: int) -> tuple[Samples, list[str]]:
    found = measure(samples, rate)
    done = []
    start, end = 0, len(samples)
    if found.leading_silence > MOST_EDGE:
        start = int((found.leading_silence - EDGE) * rate)
        done.append(f"Cut {start / rate:.1f} s of silence from the start.")
    if found.trailing_silence > MOST_EDGE:
        end = len(samples) - int((found.trailing_silence - EDGE) * rate)
        done.append(f"Cut {(len(samples) - end) / rate:.1f} s of silence from the end.")
    return samples[start:end], done


def _cut(samples: Samples, rate: int) -> tuple[Samples, list[str]]:
    """The first passage, up to the middle of the longest pause in KEPT_SECONDS (else its quietest frame)."""
    least, most = (int(seconds / FRAME_SECONDS) for seconds in KEPT_SECONDS)
    levels = frame_levels(samples, rate)[least:most]
    quiet = levels < np.percentile(frame_levels(samples, rate), 95) - 30.0
    best = run = 0
    end = int(levels.argmin())
    for place, is_quiet in enumerate(quiet):
        run = run + 1 if is_quiet else 0
        if run > best:
            best, end = run, place - run // 2
    cut = samples[: int((least + end) * FRAME_SECONDS * rate)]
    fade = min(int(0.01 * rate), len(cut))
    cut = cut.copy()
    cut[len(cut) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return cut, [f"Kept the first {len(cut) / rate:.1f} s, up to a pause."]


def _denoised(samples: Samples, rate: int) -> Samples:
    """Spectral subtraction by a smoothed Wiener gain that never goes below -DEEPEST dB."""
    from scipy.ndimage import uniform_filter
    from scipy.signal import istft, stft

    size = 2 * (int(WINDOW * rate) // 2)
    _, _, spectrum = stft(samples.astype(np.float64), fs=rate, nperseg=size, noverlap=size - size // 4)
    power = np.abs(spectrum) ** 2
    order = np.argsort(power.mean(axis=0))
    quietest = order[: max(len(order) // 10, 1)]
    noise = power[:, quietest].mean(axis=1, keepdims=True)
    above: npt.NDArray[np.float64] = np.maximum(uniform_filter(power, (3, 5)) / (noise + 1e-20) - 1.0, 0.0)
    gain = np.maximum(above / (above + 1.0), 10 ** (-DEEPEST / 20))
    _, cleaned = istft(spectrum * gain, fs=rate, nperseg=size, noverlap=size - size // 4)
    return np.asarray(cleaned[: len(samples)], np.float32)
