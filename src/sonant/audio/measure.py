"""What a recording is like: level, clipping, offset, rumble, silence, pitch, pace; and how two differ.

Figures for judging clips and comparing voices, not for science: pitch and pace are rough and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from sonant.audio.loudness import measure_loudness
from sonant.audio.resample import resample_soxr
from sonant.audio.rumble import MOST_OFFSET, MOST_RUMBLE, RumbleMeter
from sonant.errors import RequestError

Samples = npt.NDArray[np.float32]

FRAME_SECONDS = 0.02
SILENCE_BELOW_SPEECH = 35.0  # dB under the loud frames (their 95th percentile)
SILENCE_FLOOR = -60.0  # dBFS; nothing quieter is speech
FULL_SCALE = 0.999
FLAT_RUN = 3  # equal samples at the peak in a row that count as clipped
LOWEST_PITCH, HIGHEST_PITCH = 60.0, 500.0  # Hz
VOICED = 0.5  # least periodicity of a voiced frame, 1 being a perfect repetition
ANALYSIS_RATE = 16_000

# Limits of `Measurement.problems`; chosen for reference clips of one speaker.
QUIET_LOUDNESS = -35.0  # LUFS; speech is usually at -26 to -16
LOUD_LOUDNESS = -9.0
MOST_CLIPPING = 0.001  # share of the samples; below it distortion is hardly heard
MOST_SILENCE = 0.6
LEAST_SPEECH = 1.0  # seconds that are not silence


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Figures of one recording; decibels are relative to full scale."""

    seconds: float
    sample_rate: int
    loudness: float
    """LUFS by ITU-R BS.1770; minus infinity for silence."""
    rms_db: float
    peak: float
    """Largest absolute sample; 1 is full scale."""
    clipping_share: float
    """Share of samples at full scale or on a flat top."""
    dc_offset: float
    rumble_share: float
    """Share of the energy below the lowest voices (see rumble)."""
    silence_share: float
    """Share of the time that is silent."""
    leading_silence: float
    """Seconds."""
    trailing_silence: float
    longest_silence: float
    pitch: float | None
    """Median fundamental frequency in Hz of the voiced frames; None without any."""
    voiced_share: float
    """Share of the frames that are not silent."""
    syllable_rate: float
    """Rough syllables a second while speaking: peaks of the voice's energy."""

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain numbers for JSON; minus infinity becomes None."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    def problems(self) -> tuple[str, ...]:
        """What makes this a poor clip of a voice, one sentence each; empty when it is fine."""
        if self.peak == 0 or self.loudness < SILENCE_FLOOR:
            return ("The recording is silent. Check the microphone.",)
        speech = self.seconds * (1 - self.silence_share)
        checks = (
            (speech < LEAST_SPEECH, f"Only {speech:.1f} s are not silent. Record more speech."),
            (
                self.loudness < QUIET_LOUDNESS,
                f"It is quiet ({self.loudness:.0f} LUFS). Speak closer or louder.",
            ),
            (self.loudness > LOUD_LOUDNESS, f"It is very loud ({self.loudness:.0f} LUFS). Lower the level."),
            (
                self.clipping_share > MOST_CLIPPING,
                f"{self.clipping_share:.2%} of the samples are clipped. Record again at a lower level.",
            ),
            (
                abs(self.dc_offset) > MOST_OFFSET,
                f"It has a DC offset of {self.dc_offset:+.3f}. Filter it with a high-pass.",
            ),
            (
                self.rumble_share > MOST_RUMBLE,
                f"{self.rumble_share:.0%} of its energy lies below any voice. Filter it with a high-pass.",
            ),
            (
                self.silence_share > MOST_SILENCE,
                f"{self.silence_share:.0%} of it is silence. Cut the pauses.",
            ),
            (self.pitch is None, "No voiced sound was found. Is this speech?"),
        )
        return tuple(message for is_true, message in checks if is_true)


def measure(samples: Samples, sample_rate: int) -> Measurement:
    """Figures of samples [S]. Raises RequestError when there are none, or some are not finite."""
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise RequestError(
            f"samples of shape {samples.shape} cannot be measured; expected one row of finite numbers, not "
            "empty. Check how the audio was made."
        )
    peak = float(np.abs(samples).max())
    rumble = RumbleMeter(sample_rate)
    rumble.push(samples)
    low = rumble.result()
    levels = frame_levels(samples, sample_rate)
    threshold = max(float(np.percentile(levels, 95)) - SILENCE_BELOW_SPEECH, SILENCE_FLOOR)
    silent = levels < threshold
    voice = resample_soxr(samples, sample_rate, ANALYSIS_RATE) if sample_rate > ANALYSIS_RATE else samples
    voice_rate = min(sample_rate, ANALYSIS_RATE)
    pitches = _pitches(voice, voice_rate, threshold)
    heard = max(int(np.count_nonzero(~silent)), 1)
    lead, trail, longest = _silences(silent)
    return Measurement(
        seconds=len(samples) / sample_rate,
        sample_rate=sample_rate,
        loudness=measure_loudness(samples, sample_rate),
        rms_db=_decibels(float(np.mean(samples.astype(np.float64) ** 2))),
        peak=peak,
        clipping_share=clipping_share(samples),
        dc_offset=low.offset,
        rumble_share=low.share,
        silence_share=float(silent.mean()),
        leading_silence=lead * FRAME_SECONDS,
        trailing_silence=trail * FRAME_SECONDS,
        longest_silence=longest * FRAME_SECONDS,
        pitch=float(np.median(pitches)) if len(pitches) else None,
        voiced_share=min(len(pitches) / heard, 1.0),
        syllable_rate=_syllables(voice, voice_rate) / (heard * FRAME_SECONDS),
    )


def clipping_share(samples: Samples) -> float:
    """Share of samples at full scale, or flat at the recording's own peak (clipped, then turned down)."""
    if not len(samples):
        return 0.0
    absolute = np.abs(samples)
    peak = float(absolute.max())
    full = absolute >= FULL_SCALE
    if peak > 0.05:
        top = absolute >= 0.999 * peak
        level = np.concatenate([[False], np.abs(np.diff(samples)) < 1e-5])
        flat = top & level
        run = flat[2:] & flat[1:-1] & top[:-2]  # three in a row, each like the one before
        if run.any():
            marked = np.zeros(len(samples), bool)
            for shift in range(FLAT_RUN):
                marked[shift : len(samples) - 2 + shift] |= run
            full |= marked
    return float(full.mean())


def spectral_distance(first: Samples, second: Samples, sample_rate: int) -> float:
    """Mean log-spectral distance in dB of two recordings at the same rate, frame by frame over the shorter.

    0 for equal sound; it rises with any shift in time, so it compares runs of one model, not takes of a text.
    """
    length = min(len(first), len(second))
    size = max(int(0.032 * sample_rate), 16)
    if length < size:
        raise RequestError(
            f"the recordings share {length} samples; expected at least {size} to compare. Give longer ones."
        )
    window = np.hanning(size)
    spectra = []
    for samples in (first, second):
        frames = np.lib.stride_tricks.sliding_window_view(samples[:length].astype(np.float64), size)
        power = np.abs(np.fft.rfft(frames[:: size // 2] * window, axis=1)) ** 2
        spectra.append(10 * np.log10(power + 1e-7 * size))
    return float(np.sqrt(((spectra[0] - spectra[1]) ** 2).mean(axis=1)).mean())


def _decibels(power: float) -> float:
    return 10 * float(np.log10(power)) if power > 0 else float("-inf")


def frame_levels(samples: Samples, rate: int) -> npt.NDArray[np.float64]:
    """Level in dBFS of each 20 ms [T]; a shorter rest counts as a frame when it is all there is."""
    size = max(int(FRAME_SECONDS * rate), 1)
    count = max(len(samples) // size, 1)
    frames = samples[: count * size].astype(np.float64).reshape(count, -1)
    return 10 * np.log10((frames**2).mean(axis=1) + 1e-12)


def _silences(silent: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """Frames of silence at the start, at the end, and in the longest stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], silent, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0, 0
    lead = int(ends[0]) if starts[0] == 0 else 0
    trail = int(ends[-1] - starts[-1]) if ends[-1] == len(silent) else 0
    return lead, trail, int((ends - starts).max())


def _pitch_frames(samples: Samples, rate: int) -> Iterator[npt.NDArray[np.float64]]:
    """Frames [N, size] of three longest periods every 20 ms, some thousand at a time."""
    size, hop = int(3 * rate / LOWEST_PITCH), int(FRAME_SECONDS * rate)
    if len(samples) < size:
        return
    views = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]
    for start in range(0, len(views), 2000):
        yield views[start : start + 2000].astype(np.float64)


def pitch_track(samples: Samples, sample_rate: int) -> npt.NDArray[np.float64]:
    """Fundamental frequency in Hz every 20 ms [T]; NaN where nothing is voiced."""
    levels = frame_levels(samples, sample_rate)
    threshold = max(float(np.percentile(levels, 95)) - SILENCE_BELOW_SPEECH, SILENCE_FLOOR)
    rate = min(sample_rate, ANALYSIS_RATE)
    return _track(resample_soxr(samples, sample_rate, rate), rate, threshold)


def _pitches(samples: Samples, rate: int, threshold: float) -> npt.NDArray[np.float64]:
    """Fundamental frequency of each voiced frame."""
    track = _track(samples, rate, threshold)
    return track[np.isfinite(track)]


def _track(samples: Samples, rate: int, threshold: float) -> npt.NDArray[np.float64]:
    """Fundamental frequency of each frame, NaN without one; windowed autocorrelation (Boersma 1993)."""
    found = [np.zeros(0)]
    for frames in _pitch_frames(samples, rate):
        size = frames.shape[1]
        window = np.hanning(size)
        n_fft = 1 << (2 * size - 1).bit_length()
        loud = 10 * np.log10((frames**2).mean(axis=1) + 1e-12) >= threshold
        frames = (frames[loud] - frames[loud].mean(axis=1, keepdims=True)) * window
        own = np.fft.irfft(np.abs(np.fft.rfft(window, n_fft)) ** 2)[:size]
        values = np.fft.irfft(np.abs(np.fft.rfft(frames, n_fft, axis=1)) ** 2, axis=1)[:, :size]
        shortest, longest = int(rate / HIGHEST_PITCH), int(rate / LOWEST_PITCH)
        wanted = slice(shortest, longest + 1)  # the window's own correlation reaches 0 at its ends
        lags = values[:, wanted] / np.maximum(values[:, :1], 1e-12) / (own[wanted] / own[0])[None]
        best = lags.max(axis=1, initial=0.0)
        # The first local maximum nearly as high as the best: a multiple of the period repeats as well.
        inner = (lags[:, 1:-1] >= lags[:, :-2]) & (lags[:, 1:-1] >= lags[:, 2:])
        high = inner & (lags[:, 1:-1] >= 0.9 * best[:, None])
        voiced = (best >= VOICED) & high.any(axis=1)
        track = np.full(len(loud), np.nan)
        track[np.flatnonzero(loud)[voiced]] = rate / (shortest + 1 + high[voiced].argmax(axis=1))
        found.append(track)
    return np.concatenate(found)


def _syllables(samples: Samples, rate: int) -> int:
    """Peaks of the energy between 300 and 3000 Hz, at least 0.1 s apart and 3 dB above their valleys."""
    from scipy.signal import butter, find_peaks, sosfiltfilt

    hop = int(0.01 * rate)
    if len(samples) < 40 * hop or rate < 8000:
        return 0
    band = butter(2, [300, 3000], "bandpass", fs=rate, output="sos")
    energy = sosfiltfilt(band, samples.astype(np.float64)) ** 2
    count = len(energy) // hop
    frames = energy[: count * hop].reshape(count, hop).mean(axis=1)
    smooth = np.convolve(frames, np.hanning(11) / np.hanning(11).sum(), mode="same")
    envelope = 10 * np.log10(smooth + 1e-12)
    peaks, _ = find_peaks(envelope, distance=10, prominence=3.0, height=envelope.max() - 25.0)
    return len(peaks)
