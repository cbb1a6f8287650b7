"""A front end that writes text as sounds in time: two phonemes to a word, one word to a codec frame.

    "Hello." -> phonemes "həlˈO." -> durations -> " hh əl ˈOˈO ˈOˈO ǁǁ ǁǁ"

A talker that takes one text token a frame then always reads the sounds of the frame it is about to say.
Phonemes are those of hibari's grapheme-to-phoneme rules (the misaki alphabet); a stress mark belongs to the
vowel after it, the time of a space to the sound before it. Every sound gets half a frame at least.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sonant.native.graphs import onnxruntime
from sonant.text.bounds import within_bounds

STRESS = "ˈˌ"
SOUNDS = tuple("AIOWYiuɑɔəɛɜɪʊʌæᵊᵻɐbdfhjklmnpstvwzɡŋɹʃʒðθʤʧɾTʔ")
STRESSED = tuple("ˈ" + sound for sound in "AIOWYiuɑɔəɛɜɪʊʌæ")
PAUSE, STOP, ASK = "ǀ", "ǁ", "ǂ"
"""Silence inside a sentence, at its end, after a question: letters, so that a pair is one word."""
SYMBOLS = (*SOUNDS, *STRESSED, PAUSE, STOP, ASK)
INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}
_PAUSES = {**dict.fromkeys(',;:—()“”"', PAUSE), **dict.fromkeys(".!…", STOP), "?": ASK}


@dataclass(frozen=True)
class Sound:
    """One symbol and the characters of the phoneme string [first, last) whose time it takes."""

    symbol: str
    first: int
    last: int
    ends_word: bool


def sounds(phonemes: str) -> list[Sound]:
    """The phoneme string as symbols; a stop at both ends stands for the silence around it.

    Characters are counted with one more in front and one more behind, for that silence.
    """
    found = [Sound(STOP, 0, 1, True)]
    stress = ""
    first = 1
    for position, char in enumerate(phonemes, start=1):
        if char in STRESS:
            stress = "ˈ"
            continue
        if char in _PAUSES:
            symbol = _PAUSES[char]
        elif stress + char in INDEX:
            symbol = stress + char
        elif char in INDEX:
            symbol = char
        else:  # a space, or a sign without sound of its own: its time goes to the sound before
            last = found[-1]
            found[-1] = Sound(last.symbol, last.first, position + 1, True)
            first, stress = position + 1, ""
            continue
        found.append(Sound(symbol, first, position + 1, False))
        first, stress = position + 1, ""
    found.append(Sound(STOP, first, len(phonemes) + 2, True))
    return found


def slots(durations: Sequence[float], slot: float) -> list[int]:
    """How many slots each sound gets: at least one, and ends as near as possible to the true ends."""
    counts, end, done = [], 0.0, 0
    for duration in durations:
        end += duration / slot
        upto = max(done + 1, round(end))
        counts.append(upto - done)
        done = upto
    return counts


def frames(symbols: Sequence[str], counts: Sequence[int]) -> list[tuple[str, str]]:
    """The two symbols of every frame; an odd last slot is doubled."""
    line = [symbol for symbol, count in zip(symbols, counts, strict=True) for _ in range(count)]
    if len(line) % 2:
        line.append(line[-1])
    return list(zip(line[::2], line[1::2], strict=True))


class PaceModel(nn.Module):
    """Durations from sounds: ids [B, N], word ends [B, N] -> log of milliseconds [B, N]."""

    def __init__(self, width: int = 48, kernel: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SYMBOLS), width)
        self.word_end = nn.Embedding(2, width)
        pad = kernel // 2
        self.first = nn.Conv1d(width, width, kernel, padding=pad)
        self.second = nn.Conv1d(width, width, kernel, padding=pad)
        self.third = nn.Conv1d(width, width, kernel, padding=pad)
        self.out = nn.Linear(width, 1)

    def forward(self, ids: Tensor, ends: Tensor) -> Tensor:
        x = (self.embedding(ids) + self.word_end(ends)).transpose(1, 2)
        x = x + torch.tanh(self.first(x))
        x = x + torch.tanh(self.second(x))
        x = x + torch.tanh(self.third(x))
        return self.out(x.transpose(1, 2))[..., 0]


class PacedPhonemes:
    """Text -> the string that the checkpoint's tokenizer reads; made from a checkpoint's folder."""

    name = "paced-phonemes"

    def __init__(self, model: PaceModel, *, slot_ms: float, lead_frames: int, edge_ms: float) -> None:
        self.model, self.slot_ms, self.lead_frames, self.edge_ms = model, slot_ms, lead_frames, edge_ms
        self._g2p: object | None = None

    @classmethod
    def load(cls, folder: Path) -> PacedPhonemes:
        """From `front_end.json` and `front_end.safetensors`."""
        from safetensors.torch import load_file

        numbers = json.loads((folder / "front_end.json").read_text(encoding="utf-8"))
        tensors = {k: v.float() for k, v in load_file(folder / "front_end.safetensors").items()}
        model = PaceModel(tensors["embedding.weight"].shape[1], tensors["first.weight"].shape[2])
        model.load_state_dict(tensors)
        return cls(
            model.eval(),
            slot_ms=float(numbers["slot_ms"]),
            lead_frames=int(numbers["lead_frames"]),
            edge_ms=float(numbers["edge_ms"]),
        )

    def phonemes(self, text: str) -> list[str]:
        """One phoneme string for each sentence of `text`."""
        onnxruntime()
        from hibari import Hibari
        from hibari.g2p import G2P

        if self._g2p is None:
            self._g2p = G2P()
        sentences = (piece for found in Hibari.split_sentences(text) for piece in within_bounds(found))
        found = [self._g2p(sentence) for sentence in sentences]  # type: ignore[operator]
        return [p for p in found if p]

    @torch.inference_mode()
    def durations(self, parts: Sequence[Sound]) -> list[float]:
        """Milliseconds of each sound; the first is what remains of the leading silence."""
        ids = torch.tensor([[INDEX[part.symbol] for part in parts]])
        ends = torch.tensor([[int(part.ends_word) for part in parts]])
        values: list[float] = self.model(ids, ends)[0].float().exp().tolist()
        values[0] = self.edge_ms
        return values

    def frames(self, text: str, speed: float = 1.0) -> list[tuple[str, str]]:
        """The two symbols of each frame of the whole text."""
        line: list[tuple[str, str]] = []
        for phonemes in self.phonemes(text):
            parts = sounds(phonemes)
            counts = slots([value / speed for value in self.durations(parts)], self.slot_ms)
            line += frames([part.symbol for part in parts], counts)
        return line

    def __call__(self, text: str, speed: float = 1.0) -> str:
        """The words for the tokenizer, each with a space in front, `lead_frames` ahead of the sound."""
        return spell(self.frames(text, speed)[self.lead_frames :])


def spell(pairs: Sequence[tuple[str, str]]) -> str:
    """The frames as words: a space and the two symbols."""
    return "".join(f" {first}{second}" for first, second in pairs)
