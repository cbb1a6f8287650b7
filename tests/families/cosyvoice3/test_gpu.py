"""Whole requests on a GPU in name: nothing mixes devices, nothing looks inside a recording, same speech."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.engine.engine import Engine
from sonant.families import cosyvoice3
from sonant.families.cosyvoice3.model import CosyVoice3Model
from sonant.request.speech import Sampling, SpeechRequest, TextFeed
from tests.gpu_with_values import DEVICE, gpu_with_values

from .conftest import load


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Less room from the start, a window that a short stream leaves behind, and no rounding of what it keeps:
    that would make more of the last bits."""
    options = CosyVoice3Model._options
    monkeypatch.setattr(
        CosyVoice3Model, "_options", lambda *given: replace(options(*given), kept=torch.float32)
    )
    monkeypatch.setattr(CosyVoice3Model, "least_positions", 256)
    monkeypatch.setattr("sonant.families.cosyvoice3.model.CONTEXT_TOKENS", 25)


def requests(source):
    feed = TextFeed()
    feed.put("Good morning, my friend. ")
    feed.close()
    few = Sampling(max_frames=20, flow_steps=2)
    return [
        SpeechRequest("The lake is quiet today.", seed=1, sampling=replace(few, max_frames=110)),
        SpeechRequest("Good morning.", seed=2, speed=1.2, sampling=replace(few, greedy=True)),
        SpeechRequest("Hello.", seed=3, sampling=few, options={"noise": "reference"}),
        SpeechRequest("", seed=4, sampling=few, text_feed=feed),
        SpeechRequest("", seed=5, sampling=few, source_audio=source),
    ]


def spoken(model, clip, source):
    with Engine(model, slots=2, records_ahead=True) as engine:
        voice = engine.clone(clip, transcript="A small boat crosses the quiet lake.")
        assert {type(tensor) for tensor in voice.tensors.values()} == {torch.Tensor}, "a voice is the CPU's"
        streams = [
            engine.submit(replace(request, voice=voice), streaming=not number)
            for number, request in enumerate(requests(source))
        ]
        return [np.concatenate([chunk.samples for chunk in stream]) for stream in streams]


@pytest.mark.slow
def test_whole_requests_give_the_same_speech(checkpoint, clip, source):
    expected = spoken(load(checkpoint), clip, source)
    with gpu_with_values():
        model = cosyvoice3.load(checkpoint, device=DEVICE, dtype=torch.float32)
        assert not model.keeps_past
        model.keeps_past = True  # as on the CPU, so that both streams see the same
        made = spoken(model, clip, source)
    for one, other in zip(expected, made, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 0.02 * max(1.0, np.abs(one).max())
    assert model._steps.replay.records, "recording failed"
    assert len(model._steps.replay)
