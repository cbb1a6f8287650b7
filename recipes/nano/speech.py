"""The teacher speaks: hibari-tts at a fixed pace, with the durations that its own network chose.

speech/NNN.npz: samples [S] int16 (sentences joined, whole frames) and a line for each sentence:
text, frames, sounds, word ends, milliseconds.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from recipes.nano.progress import Progress
from recipes.nano.settings import CUT_SAMPLES, FRAME, SAMPLE_RATE, TEACHER_SPEED, Settings
from sonant.text.paced_phonemes import INDEX, sounds

DURATIONS = b"/Cast_32_output_0"
"""Tensor of hibari-tts 0.2's graph that holds the frames (of 25 ms) of every phoneme."""
UNIT_MS = 25.0


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


class Teacher:
    """hibari's voice "heart", with phoneme durations as one more output.

    A serialised protobuf followed by another is their merge, so an output is added by appending
    ModelProto(graph=GraphProto(output=[ValueInfoProto(name=...)])).
    """

    def __init__(self) -> None:
        import onnxruntime as ort
        from hibari import Hibari

        self.voice = Hibari(threads=1)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        with open(self.voice.model_path, "rb") as file:
            graph = file.read() + _field(7, _field(12, _field(1, DURATIONS)))
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def say(self, text: str, seed: int) -> tuple[np.ndarray, list[int], list[int], list[float]] | None:
        """Samples (whole frames), sounds, word ends, milliseconds; None for what is not one sentence."""
        from hibari import dsp

        strings = self.voice.phonemize(text)
        if len(strings) != 1 or len(strings[0]) > 200:
            return None
        phonemes = "".join(c for c in strings[0] if c in self.voice.vocab)
        ids = self.voice.ids(phonemes)
        out = self.session.run(
            None, {"ids": np.asarray([ids], np.int64), "speed": np.asarray([TEACHER_SPEED], np.float32)}
        )
        lh, th, ln, lr, phi, f0 = (x[0] for x in out[:6])
        samples = dsp.synth(lh, th, ln, lr, phi, f0, np.random.default_rng(seed))
        each = out[6].ravel() * UNIT_MS
        parts = sounds(phonemes)
        milliseconds = [float(each[p.first : p.last].sum()) for p in parts]
        cut = 1000 * CUT_SAMPLES / SAMPLE_RATE
        if milliseconds[0] < cut + UNIT_MS:
            return None
        milliseconds[0] -= cut
        samples = samples[CUT_SAMPLES:]
        samples = np.pad(samples, (0, -len(samples) % FRAME))
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        return pcm, [INDEX[p.symbol] for p in parts], [int(p.ends_word) for p in parts], milliseconds


def _shard(job: tuple[int, str, list[str]]) -> tuple[int, float]:
    """Speak one shard and write it; gives its number and seconds of speech."""
    number, path, texts = job
    teacher = Teacher()
    waves: list[np.ndarray] = []
    lines: list[list[Any]] = []
    for index, text in enumerate(texts):
        said = teacher.say(text, seed=number * 100_000 + index)
        if said is None or not 8 <= len(said[0]) // FRAME <= 120:
            continue
        waves.append(said[0])
        lines.append([text, len(said[0]) // FRAME, said[1], said[2], said[3]])
    samples = np.concatenate(waves)
    with open(path + ".part", "wb") as file:
        np.savez(file, samples=samples, lines=np.frombuffer(json.dumps(lines).encode(), np.uint8))
    import os

    os.replace(path + ".part", path)
    return number, len(samples) / SAMPLE_RATE


def make(s: Settings, shards: int | None = None) -> None:
    """All shards that are missing (or the first `shards` of them)."""
    texts = json.loads((s.folder("texts") / "train.json").read_text(encoding="utf-8"))
    folder = s.folder("speech")
    jobs = []
    for number, first in enumerate(range(0, len(texts), s.speech_shard)):
        path = folder / f"{number:03d}.npz"
        if (shards is None or number < shards) and not path.exists():
            jobs.append((number, str(path), texts[first : first + s.speech_shard]))
    if not jobs:
        return
    progress = Progress("speech", folder)
    with ProcessPoolExecutor(s.threads) as pool:
        for done, (number, seconds) in enumerate(pool.map(_shard, jobs), 1):
            progress.bar(done / len(jobs))
            progress.log(shard=number, speech_minutes=seconds / 60)
    progress.close()


def numbers(s: Settings) -> list[int]:
    """Numbers of the shards so far."""
    return sorted(int(p.stem) for p in s.folder("speech").glob("*.npz") if re.fullmatch(r"\d+", p.stem))


def lines(s: Settings, number: int) -> list[list[Any]]:
    """A shard's lines [text, frames, sounds, word ends, milliseconds]."""
    with np.load(s.folder("speech") / f"{number:03d}.npz") as file:
        found: list[list[Any]] = json.loads(file["lines"].tobytes())
    return found


def samples(s: Settings, number: int) -> np.ndarray:
    """A shard's speech [S] int16."""
    with np.load(s.folder("speech") / f"{number:03d}.npz") as file:
        return file["samples"]
