"""Codes straight from mel frames: principal components, then k-means in the codec's split layout.

Codebook 0 (semantic) and the chain of the others (acoustic) are both fitted on the same features, because the
codec's encoder quantises the same embedding twice. No network is trained, so codes exist after two minutes.
codes/fit.pt: mean, basis, books; codes/NNN.npz: codes [N, K] of the shard of speech with that number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recipes.nano import speech
from recipes.nano.progress import Progress
from recipes.nano.settings import FRAME, HOP, MELS, SAMPLE_RATE, Settings

WINDOW = 1024
FLOOR = 5e-4


def mel_filters(bins: int, size: int, rate: int = SAMPLE_RATE) -> Tensor:
    """Triangular filters [bins, size / 2 + 1] evenly spaced on the HTK mel scale, rows summing to one."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = torch.from_numpy(700 * (10 ** (np.linspace(0, top, bins + 2) / 2595) - 1)).float()
    bin_hz = torch.linspace(0, rate / 2, size // 2 + 1)
    rising = (bin_hz[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bin_hz[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_min(0)
    return filters / filters.sum(1, keepdim=True).clamp_min(1e-6)


_FILTERS = mel_filters(MELS, WINDOW)
_HANN = torch.hann_window(WINDOW)


def log_mel(waveform: Tensor) -> Tensor:
    """waveform [B, S] -> natural log of mean magnitudes [B, S / HOP, M], centred on each hop."""
    left = (WINDOW - HOP) // 2
    padded = torch.nn.functional.pad(waveform, (left, WINDOW - HOP - left))
    spectrum = torch.stft(padded, WINDOW, HOP, window=_HANN, center=False, return_complex=True).abs()
    return torch.log(torch.clamp(_FILTERS @ spectrum / 16, min=FLOOR)).transpose(1, 2)


def stacked(waveform: Tensor) -> Tensor:
    """waveform [B, S] -> the mel frames of every codec frame side by side [B, S / FRAME, 640]."""
    mel = log_mel(waveform)
    return mel.reshape(mel.shape[0], mel.shape[1] * HOP // FRAME, -1)


def nearest(x: Tensor, book: Tensor) -> Tensor:
    """Index of the nearest row of `book` [V, D] for each row of x [N, D]."""
    half = book.pow(2).sum(1) / 2
    return torch.cat([(half - part @ book.T).argmin(1) for part in x.split(16_384)])


def k_means(x: Tensor, size: int, rounds: int, chance: torch.Generator) -> Tensor:
    """`size` centres of x [N, D]."""
    centres = x[torch.randperm(len(x), generator=chance)[:size]].clone()
    for _ in range(rounds):
        at = nearest(x, centres)
        count = torch.bincount(at, minlength=size).float()
        total = torch.zeros_like(centres).index_add_(0, at, x)
        fresh = x[torch.randint(len(x), (size,), generator=chance)]
        centres = torch.where(count[:, None] > 0, total / count.clamp_min(1)[:, None], fresh)
    return centres


class Codes:
    """The fitted features and codebooks."""

    def __init__(self, fit: dict[str, Tensor]) -> None:
        self.mean, self.basis, self.books = fit["mean"], fit["basis"], fit["books"]

    @classmethod
    def load(cls, s: Settings) -> Codes:
        """From codes/fit.pt."""
        return cls(torch.load(s.folder("codes") / "fit.pt", weights_only=True))

    def features(self, waveform: Tensor) -> Tensor:
        """waveform [B, S] -> [B, T, D]."""
        return (stacked(waveform) - self.mean) @ self.basis

    def encode(self, features: Tensor) -> Tensor:
        """features [N, D] -> codes [N, K]."""
        found = [nearest(features, self.books[0])]
        rest = features.clone()
        for book in self.books[1:]:
            at = nearest(rest, book)
            rest -= book[at]
            found.append(at)
        return torch.stack(found, 1)

    def chain(self, codes: Tensor) -> Tensor:
        """codes [..., K] -> features as the acoustic chain has them [..., D]."""
        return sum(self.books[k][codes[..., k]] for k in range(1, len(self.books)))  # type: ignore[return-value]

    def mel(self, features: Tensor) -> Tensor:
        """features [B, T, D] -> log mel [B, T * 8, M]."""
        flat = features @ self.basis.T + self.mean
        return flat.reshape(flat.shape[0], -1, MELS)


def _features(samples: np.ndarray) -> Tensor:
    parts = []
    for first in range(0, len(samples), FRAME * 1500):  # with a frame of context on both sides
        low, high = max(0, first - FRAME), min(len(samples), first + FRAME * 1501)
        wave = torch.from_numpy(samples[low:high].astype(np.float32) / 32767)[None]
        rows = stacked(wave)[0]
        skip = (first - low) // FRAME
        parts.append(rows[skip : skip + min(1500, (len(samples) - first) // FRAME)])
    return torch.cat(parts)


def make(s: Settings) -> None:
    """Fit once on the first shards, then give every shard its codes."""
    folder = s.folder("codes")
    progress = Progress("codes", folder)
    if not (folder / "fit.pt").exists():
        chance = torch.Generator().manual_seed(s.seed)
        x = torch.cat([_features(speech.samples(s, n)) for n in speech.numbers(s)[: s.code_shards]])
        mean = x.mean(0)
        x = x - mean
        values, vectors = torch.linalg.eigh(x.T @ x / len(x))
        basis = vectors.flip(1)[:, : s.features].contiguous()
        progress.log(frames=len(x), kept=float(values.flip(0)[: s.features].sum() / values.sum()))
        x = x @ basis
        some = x[torch.randperm(len(x), generator=chance)[:30_000]]
        total = some.pow(2).sum()
        books = [k_means(some, s.codebook, 10, chance)]
        progress.log(book=0, left=float((some - books[0][nearest(some, books[0])]).pow(2).sum() / total))
        rest = some.clone()
        for k in range(1, s.groups):
            books.append(k_means(rest, s.codebook, 8 if k < 4 else 5, chance))
            rest = rest - books[-1][nearest(rest, books[-1])]
            progress.log(book=k, left=float(rest.pow(2).sum() / total))
        torch.save({"mean": mean, "basis": basis, "books": torch.stack(books)}, folder / "fit.pt")
    fit = Codes.load(s)
    for number in speech.numbers(s):
        path = folder / f"{number:03d}.npz"
        if path.exists():
            continue
        features = (_features(speech.samples(s, number)) - fit.mean) @ fit.basis
        part = path.with_suffix(".part")
        with part.open("wb") as file:  # a talker in training may look for this file at any moment
            np.savez(file, codes=fit.encode(features).numpy().astype(np.int16))
        part.replace(path)
        progress.bar((number + 1) / len(speech.numbers(s)))
    progress.close()
