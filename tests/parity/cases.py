"""One tiny checkpoint and one short request of each family."""

import tempfile
from functools import cache
from pathlib import Path

import torch

from sonant.catalogue.registry import load_model
from sonant.parity.record import record
from sonant.parity.task import Task
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest
from tests.families.indextts2.conftest import build_checkpoint, build_checkpoint25, clip

DATA = Path(__file__).parents[1] / "data"
FAMILIES = ("qwen3_tts", "cosyvoice3", "indextts2")
CASES = (*FAMILIES, "indextts25")
"""The last one is IndexTTS-2.5, another version of a family."""


@cache
def checkpoint(family):
    """Folder of the family's tiny checkpoint."""
    if family == "qwen3_tts":
        return DATA / "qwen3_tts/checkpoints/base_1p7b"
    if family == "cosyvoice3":
        return DATA / "cosyvoice3/checkpoint"
    build = build_checkpoint25 if family == "indextts25" else build_checkpoint
    return build(Path(tempfile.mkdtemp(prefix="sonant-parity-")) / "checkpoint")


def task(family):
    """A short request that runs every part of the family."""
    if family == "qwen3_tts":
        return Task(
            request=SpeechRequest("Hello you.", seed=3, options={"codec_chunks": True}),
            audio=cut(Audio.read(DATA / "qwen3_tts/audio/ref_a_24k_mono.wav"), 0.6),
            transcript="Hi you.",
            max_steps=3,
        )
    if family == "cosyvoice3":
        return Task(
            request=SpeechRequest("Hello there.", seed=3, sampling=Sampling(flow_steps=4)),
            audio=cut(Audio.read(DATA / "cosyvoice3/prompt_24k.wav"), 0.8),
            transcript="Hi you.",
            max_steps=5,
        )
    sampling = Sampling(flow_steps=3, beams=1)
    if family == "indextts25":
        spoken = SpeechRequest("Hello, you!", language="en", seed=3, sampling=sampling, speed=0.8)
        return Task(request=spoken, audio=clip(0), max_steps=6)
    return Task(request=SpeechRequest("Hello.", seed=3, sampling=sampling), audio=clip(0), max_steps=6)


def cut(audio, seconds):
    return Audio(audio.samples[: int(seconds * audio.sample_rate)], audio.sample_rate)


def load(family, dtype="float32"):
    torch.set_num_threads(1)
    return load_model(checkpoint(family), device="cpu", dtype=dtype)


@cache
def reference(family):
    """The trace of a clean run."""
    return record(load(family), task(family))
