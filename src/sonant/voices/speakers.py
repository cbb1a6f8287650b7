"""Do several people speak in a clip? By the speaker encoder of the resemblyzer package, where there is one.

Only the package's weights are read: its own module needs a compiled voice detector that nothing here does.
Source: generalized end-to-end loss, arXiv 1710.10467; three LSTM layers over 40 mel energies.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sonant.audio.measure import frame_levels
from sonant.audio.mel import MelConfig, log_mel
from sonant.audio.resample import resample_soxr
from sonant.checkpoints.files import read_pickle
from sonant.checkpoints.modules import build, load_strict
from sonant.request.audio import Audio

RATE = 16_000
WINDOW, HOP = 160, 40  # frames of 10 ms
LEVEL = -30.0  # dBFS that clips were brought to in training
WIDTH, BANDS, LAYERS = 256, 40, 3
MEL = MelConfig(sample_rate=RATE, n_fft=400, hop=160, bins=BANDS, padding=200, power=2, floor=1e-20)
LOUD = 25.0
"""dB below the loudest frames within which a window's middle is speech."""


class SpeakerEncoder(nn.Module):
    """Mel energies [N, T, 40] of windows -> unit vectors [N, 256], near one another for one speaker."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, mels: Tensor) -> Tensor:
        """mels [N, T, 40] -> [N, 256]"""
        _, (hidden, _) = self.lstm(mels)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def weights_path() -> Path | None:
    """The encoder's weights in the installed package; None without it."""
    found = find_spec("resemblyzer")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        if (path := Path(folder) / "pretrained.pt").is_file():
            return path
    return None


def load_encoder() -> SpeakerEncoder | None:
    """The encoder on the CPU, or None where its package is not installed. Raises CheckpointError."""
    path = weights_path()
    if path is None:
        return None
    state = dict(read_pickle(path)["model_state"])
    for scale in ("similarity_weight", "similarity_bias"):  # of the loss
        state.pop(scale, None)
    encoder: SpeakerEncoder = build(SpeakerEncoder)
    load_strict(encoder, state, where=str(path))
    return encoder.eval()


@torch.inference_mode()
def voices_apart(audio: Audio, encoder: SpeakerEncoder) -> float | None:
    """Cosine between the two groups into which the windows of a clip fall most naturally: low for two people.

    None where there is too little speech for two groups of two windows.
    """
    vectors = _window_vectors(audio, encoder)
    return None if vectors is None or len(vectors) < 4 else _two_groups(vectors)


@torch.inference_mode()
def voice_vector(audio: Audio, encoder: SpeakerEncoder) -> npt.NDArray[np.float32] | None:
    """Unit vector [256] of the voice in a clip, the mean of its windows. None with too little speech."""
    vectors = _window_vectors(audio, encoder)
    if vectors is None:
        return None
    mean: npt.NDArray[np.float32] = vectors.mean(axis=0)
    return mean / np.float32(np.linalg.norm(mean))


def _window_vectors(audio: Audio, encoder: SpeakerEncoder) -> npt.NDArray[np.float32] | None:
    """A vector for each window of speech [N, 256]; None without one."""
    samples = resample_soxr(audio.samples, audio.sample_rate, RATE)
    power = float(np.mean(samples.astype(np.float64) ** 2))
    if power <= 0 or len(samples) < RATE:
        return None
    samples = samples * np.float32(10 ** (LEVEL / 20) / np.sqrt(power))
    mel = torch.exp(log_mel(torch.from_numpy(samples), MEL)).T  # [T, 40]
    starts = [start for start in range(0, len(mel) - WINDOW + 1, HOP) if _is_spoken(samples, start)]
    if not starts:
        return None
    vectors: npt.NDArray[np.float32] = encoder(torch.stack([mel[s : s + WINDOW] for s in starts])).numpy()
    return vectors


def _is_spoken(samples: npt.NDArray[np.float32], start: int) -> bool:
    hop = RATE // 100
    window = samples[start * hop : (start + WINDOW) * hop]
    loudest = float(np.percentile(frame_levels(samples, RATE), 95))
    return bool(np.mean(frame_levels(window, RATE) > loudest - LOUD) > 0.5)


def _two_groups(vectors: npt.NDArray[np.float32]) -> float | None:
    """Spherical 2-means from the pair furthest apart; the cosine of the groups' means."""
    first, second = np.unravel_index(int((vectors @ vectors.T).argmin()), (len(vectors),) * 2)
    centres = vectors[[int(first), int(second)]]
    for _ in range(20):
        group = (vectors @ centres.T).argmax(axis=1)
        if min(np.bincount(group, minlength=2)) < 2:
            return None
        centres = np.stack([vectors[group == number].mean(axis=0) for number in (0, 1)])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return float(centres[0] @ centres[1])
