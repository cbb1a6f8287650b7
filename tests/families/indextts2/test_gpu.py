"""Whole requests on a GPU in name: nothing mixes devices, nothing looks inside a recording, same speech."""

from dataclasses import replace

import pytest
import torch

from sonant.engine.engine import Engine
from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.request.speech import Sampling, SpeechRequest, Style
from tests.gpu_with_values import DEVICE, gpu_with_values

from .conftest import clip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Less room from the start, so that there is less to record."""
    monkeypatch.setattr(IndexTTS2, "least_positions", 128)


def requests():
    few = Sampling(max_frames=8, flow_steps=1)
    happy = (0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.0)
    return [
        SpeechRequest("Hello world.", seed=1, sampling=few),
        SpeechRequest(
            "Good morning.", seed=2, sampling=replace(few, beams=1), style=Style(emotion_vector=happy)
        ),
        SpeechRequest("The lake.", seed=3, sampling=few, style=Style(emotion_audio=clip(1))),
        SpeechRequest("How dare you!", seed=4, sampling=few, style=Style(emotion_from_text=True)),
    ]


def spoken(model):
    """Mels of requests that run together: a seeded vocoder of full loudness tells the last bits apart."""
    mels, vocoder = [], model.parts.vocoder.forward

    def hear(mel):
        mels.append(mel.detach().cpu().clone())
        return vocoder(mel)

    model.parts.vocoder.forward = hear
    try:
        with Engine(model, slots=4, records_ahead=True) as engine:
            voice = engine.clone(clip(0))
            assert {type(x) for x in voice.tensors.values()} == {torch.Tensor}, "a voice is the CPU's"
            streams = [
                engine.submit(replace(request, voice=voice), streaming=False) for request in requests()
            ]
            lengths = [sum(len(chunk.samples) for chunk in stream) for stream in streams]
    finally:
        del model.parts.vocoder.forward
    return lengths, mels


@pytest.mark.slow
def test_whole_requests_give_the_same_mels(loaded, checkpoint):
    plain = IndexTTS2(loaded.parts, loaded.spec, device=torch.device("cpu"))
    lengths, expected = spoken(plain)
    with gpu_with_values():
        model = load_model(checkpoint, device=DEVICE, dtype=torch.float32)
        made_lengths, made = spoken(model)
    assert made_lengths == lengths
    for one, other in zip(expected, made, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 1e-3
    assert model._steps.replay.records, "recording failed"
    assert len(model._steps.replay)
