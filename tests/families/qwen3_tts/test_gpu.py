"""Whole requests on a GPU in name: nothing mixes devices, nothing looks inside a recording, same speech."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.families.qwen3_tts import load
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.nn.cache import KVCache
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.gpu_with_values import DEVICE, gpu_with_values

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    """Less room from the start, so that there is less to record."""
    monkeypatch.setattr(Qwen3TTS, "least_positions", 128)


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(0)
    time = np.arange(36_000) / 24_000
    hum = 0.2 * np.sin(2 * np.pi * 140 * time) + 0.02 * rng.standard_normal(len(time))
    return Audio(hum.astype(np.float32), 24_000)


def spoken(model, requests, clip=None, **options):
    """Samples of requests that run together, the first of which is streamed."""
    with Engine(model, records_ahead=True, **{"slots": 2, **options}) as engine:
        if clip is not None:
            voice = engine.clone(clip, transcript="A small boat.")
            assert {type(tensor) for tensor in voice.tensors.values()} == {torch.Tensor}, (
                "a voice is the CPU's"
            )
            requests = [replace(request, voice=voice) for request in requests]
        streams = [engine.submit(r, streaming=not number) for number, r in enumerate(requests)]
        return [np.concatenate([chunk.samples for chunk in stream]) for stream in streams]


def check(model, expected, made):
    for one, other in zip(expected, made, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-4
    for replay in (model._frames.replay, model.speech_tokenizer.steps.replay):
        assert replay.records, "recording failed"
        assert len(replay)


@pytest.mark.slow
def test_cloned_voices_speak_the_same(kit, loaded, small, clip):
    requests = [
        SpeechRequest("The old ferry.", seed=1, sampling=Sampling(max_frames=7)),
        SpeechRequest(
            "Hello there.", seed=2, sampling=Sampling(max_frames=5, top_p=0.7), options={"codec_chunks": True}
        ),
        SpeechRequest("Good morning.", seed=3, sampling=Sampling(max_frames=4, greedy=True)),
    ]
    expected = spoken(loaded("base_1p7b"), requests, clip)
    with gpu_with_values():
        model = load(kit / "checkpoints" / "base_1p7b", device=DEVICE, dtype=torch.float32)
        made = spoken(model, requests, clip)
        tokens = model.encode_audio(clip)
        assert tokens.device == DEVICE
        samples = model.decode_tokens(tokens).cpu()
    check(model, expected, made)
    plain = loaded("base_1p7b")
    assert torch.equal(tokens.inner, plain.encode_audio(clip))
    assert (samples - plain.decode_tokens(tokens.inner)).abs().max() < 1e-4


@pytest.mark.slow
def test_a_narrow_model_with_voices_of_its_own_speaks(kit, small):
    request = SpeechRequest(
        "The old ferry.",
        voice="ryan",
        seed=1,
        sampling=Sampling(max_frames=4),
        style=Style(instruction="Calm."),
    )
    with gpu_with_values():
        model = load(kit / "checkpoints" / "custom_voice_1p7b", device=DEVICE, dtype=torch.bfloat16)
        (made,) = spoken(model, [request], slots=1, pipelined=True)
    assert len(made)
    assert model._frames.replay.records, "recording failed"


def test_what_is_no_number_does_not_outlive_its_row():
    with gpu_with_values():
        cache = KVCache(layers=2, slots=2, heads=1, head_dim=2, capacity=6, device=DEVICE)
        for storage in (*cache.keys, *cache.values):
            storage[:, :, :4] = float("nan")
        cache.lengths = [4, 4]
        cache.free(0)
    for storage in (*cache.keys, *cache.values):
        assert not storage.inner[0].any()
        assert storage.inner[1, :, :4].isnan().all()
    assert cache.lengths == [0, 4]
