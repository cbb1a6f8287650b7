"""DNSMOS: how good speech sounds, by the networks of P.835 and P.808 that the speechmos package ships.

Only the ONNX files are read: the package's own module asks for old versions of half a dozen libraries. Equal
to it to four decimals. Source: arXiv 2110.01763; the polynomial is that of speechmos.dnsmos.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sonant.audio.mel import MelConfig, log_mel
from sonant.audio.resample import resample_soxr
from sonant.errors import DependencyError
from sonant.native.graphs import onnxruntime
from sonant.request.audio import Audio, Samples

RATE = 16_000
WINDOW = int(9.01 * RATE)
"""Samples that the networks take; shorter clips are repeated first."""
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
MEL = MelConfig(sample_rate=RATE, n_fft=321, hop=160, bins=120, padding=0, power=2, floor=1e-10)
RANGE_DB = 80.0


@dataclass(frozen=True)
class Mos:
    """Opinion scores, 1 (bad) to 5 (excellent)."""

    overall: float
    """P.835, speech and background together."""
    p808: float


class Dnsmos:
    """Both networks on the CPU. Raises DependencyError where the package is not installed."""

    def __init__(self) -> None:
        ort = onnxruntime()
        found = find_spec("speechmos")
        if found is None or not found.submodule_search_locations:
            raise DependencyError(
                'judging sound needs the DNSMOS networks. Install them with: pip install "sonant[judge]"'
            )
        folder = Path(found.submodule_search_locations[0]) / "dnsmos_models"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1

        def load(name: str) -> Any:
            return ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])

        self._main, self._p808 = load("sig_bak_ovr.onnx"), load("model_v8.onnx")

    def score(self, audio: Audio) -> Mos | None:
        """The mean over windows of nine seconds, one every second; None for a silent clip."""
        samples = np.clip(resample_soxr(audio.samples, audio.sample_rate, RATE), -1, 1).astype(np.float32)
        if not np.any(samples):
            return None
        while len(samples) < WINDOW:
            samples = np.append(samples, samples)
        scores = []
        for first in range(0, len(samples) - WINDOW + 1, RATE):
            part = samples[first : first + WINDOW]
            overall = self._main.run(None, {"input_1": part[None]})[0][0][2]
            p808 = self._p808.run(None, {"input_1": _features(part[:-160])[None]})[0][0][0]
            scores.append((np.polyval(OVERALL, overall), p808))
        overall, p808 = np.mean(scores, axis=0)
        return Mos(float(overall), float(p808))


def _features(samples: Samples) -> npt.NDArray[np.float32]:
    """Mel energies [T, 120] in dB below the loudest, 0 to -80, as -1 to 1."""
    padded = torch.from_numpy(np.pad(samples, MEL.n_fft // 2))
    decibels = log_mel(padded, MEL).T.numpy() * np.float32(10 / np.log(10))
    decibels -= decibels.max()
    return ((np.maximum(decibels, -RANGE_DB) + RANGE_DB / 2) / (RANGE_DB / 2)).astype(np.float32)
