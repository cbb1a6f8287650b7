"""The room and the line of a recording of speech: noise, bandwidth, reverberation, tones in the pauses.

Estimates for judging reference clips, not for science. They rest on speech: a voice rises and falls many
times a second, and what is left in its dips is the room.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sonant.audio.measure import FRAME_SECONDS, frame_levels
from sonant.audio.rumble import CUTOFF_HZ, HighPass

Samples = npt.NDArray[np.float32]
Levels = npt.NDArray[np.float64]

LEAST_RATE = 1_000
QUIET_SHARE = 0.1
"""The quietest frames, by share, that show what is there between the words."""
BAND_FLOOR = 70.0
"""dB under the strongest band; what is weaker at every higher frequency is no part of the recording."""
WINDOW_SECONDS = 0.064
LEAST_FALL = 12.0
"""dB that the sound must fall in one go for the fall to tell of the room."""


@dataclass(frozen=True, kw_only=True)
class Acoustics:
    """Figures of one recording of speech."""

    noise_distance: float
    """dB from the speech down to what is left in its dips; 60 at most."""
    bandwidth: float
    """Hz up to which there is sound."""
    reverberation: float | None
    """Seconds in which a sound falls by 60 dB (T60), roughly; None where nothing falls freely."""
    pause_tones: float
    """dB by which tones stand out of what is left in the dips: about 10 for noise, more for music or hum."""


def acoustics(samples: Samples, sample_rate: int) -> Acoustics:
    """Figures of samples [S], at least 0.1 s and not all zero. An offset and rumble are no part of them."""
    if sample_rate >= LEAST_RATE:
        samples = HighPass(CUTOFF_HZ, sample_rate).push(samples)
    levels = frame_levels(samples, sample_rate)
    return Acoustics(
        noise_distance=noise_distance(levels),
        bandwidth=_bandwidth(samples, sample_rate),
        reverberation=_reverberation(samples, sample_rate),
        pause_tones=_pause_tones(samples, sample_rate, levels),
    )


def noise_distance(levels: Levels) -> float:
    """dB between the mean power of the louder half of the frames and the quietest tenth, 0 to 60."""
    loud = levels[levels >= np.median(levels)]
    quiet = np.quantile(levels, QUIET_SHARE / 2)
    speech = 10 * np.log10(np.mean(10 ** (loud / 10)))
    return float(np.clip(speech - max(quiet, speech - 60.0), 0.0, 60.0))


def _spectra(samples: Samples, rate: int) -> Levels:
    """Power of each window [T, F], half a window apart; a short recording is one window."""
    size = max(int(WINDOW_SECONDS * rate), 16)
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), size)[:: size // 2]
    return np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2


def _bandwidth(samples: Samples, rate: int) -> float:
    power = _spectra(samples, rate).mean(axis=0)
    width = 250.0  # Hz of one band
    bands = [
        10 * np.log10(band.mean() + 1e-20) for band in np.array_split(power, max(int(rate / 2 / width), 1))
    ]
    heard = np.flatnonzero(np.array(bands) > max(bands) - BAND_FLOOR)
    return float((heard[-1] + 1) * rate / 2 / len(bands))


def _reverberation(samples: Samples, rate: int) -> float | None:
    """T60 from the steepness of the falls: those of dry speech are steep, a room's tail holds them back."""
    step = max(int(0.01 * rate), 1)
    count = len(samples) // step
    if count < 20:
        return None
    energy = (samples[: count * step].astype(np.float64).reshape(count, -1) ** 2).mean(axis=1)
    window = np.hanning(9)[1:-1]
    levels = 10 * np.log10(np.convolve(energy, window / window.sum(), mode="same") + 1e-12)
    floor = max(np.quantile(levels, QUIET_SHARE / 2) + 6.0, levels.max() - 55.0)
    times: list[float] = []
    start = 0
    for place in range(1, count + 1):
        if place < count and levels[place] < levels[place - 1] + 0.5 and levels[place] > floor:
            continue
        fall = levels[start + int(np.argmax(levels[start:place])) : place]
        start = place
        if len(fall) < 6 or fall[0] - fall[-1] < LEAST_FALL:
            continue
        late = fall[int(np.argmax(fall <= fall[0] - 5.0)) :]  # the first 5 dB are the voice's own end
        if len(late) >= 5 and (slope := np.polyfit(np.arange(len(late)) * 0.01, late, 1)[0]) < 0:
            times.append(-60.0 / slope)
    return float(np.median(times)) if len(times) >= 3 else None


def _pause_tones(samples: Samples, rate: int, levels: Levels) -> float:
    spectra = _spectra(samples, rate)
    hop = max(int(WINDOW_SECONDS * rate), 16) // 2
    centres = ((np.arange(len(spectra)) + 1) * hop / (FRAME_SECONDS * rate)).astype(int)
    quiet = levels[np.minimum(centres, len(levels) - 1)] <= np.quantile(levels, 2 * QUIET_SHARE)
    if not quiet.any():
        return 0.0
    size = 2 * (spectra.shape[1] - 1)
    band = spectra[quiet][:, int(80 * size / rate) : max(int(4000 * size / rate), 2)]
    if not band.shape[1]:
        return 0.0
    highest, middle = band.max(axis=1), np.median(band, axis=1)
    return float(np.median(10 * np.log10((highest + 1e-20) / (middle + 1e-20))))
