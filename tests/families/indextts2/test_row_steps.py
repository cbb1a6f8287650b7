"""A step of the GPT as one piece of work gives the codes of the ordinary one, beams included."""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from sonant.families.indextts2.loading import load_model
from sonant.families.indextts2.model import IndexTTS2
from sonant.nn.cache import KVCache
from sonant.nn.tap import tapped
from sonant.request.speech import Sampling, SpeechRequest
from tests.laws import run_alone, run_together
from tests.pretended_gpu import DEVICE, moved_there, pretended_gpu


@pytest.fixture(scope="module")
def whole(loaded):
    made = IndexTTS2(loaded.parts, loaded.spec, device=torch.device("cpu"))
    made.step_in_one_piece()
    return made


def prompts(model, voice):
    settings = [
        Sampling(max_frames=14, flow_steps=1),
        Sampling(max_frames=20, flow_steps=1, beams=1),
        Sampling(max_frames=9, flow_steps=1, beams=2, greedy=True),
    ]
    texts = ("Hello world.", "A longer sentence is spoken here.", "Good morning.")
    return [
        model.prepare(SpeechRequest(text, voice=voice, seed=seed, sampling=sampling))[0]
        for seed, (text, sampling) in enumerate(zip(texts, settings, strict=True))
    ]


def test_the_codes_are_those_of_ordinary_steps(whole, loaded, voices):
    spoken = prompts(loaded, voices[0])
    expected = [run_alone(loaded, prompt).tolist() for prompt in spoken]
    assert [run_alone(whole, prompt).tolist() for prompt in spoken] == expected
    assert [codes.tolist() for codes in run_together(whole, spoken)] == expected


def test_a_trace_still_sees_inside(whole, voices):
    seen = set()
    with tapped(lambda name, _: seen.add(name)):
        run_alone(whole, prompts(whole, voices[0])[2])
    assert "gpt.h.0.attn" in seen


def pretended_step(parts, damage=lambda network: None):
    network, config = copy.deepcopy(parts.gpt), parts.gpt.config
    with pretended_gpu():
        moved_there(network, torch.bfloat16)
        cache = KVCache(
            layers=config.layers,
            slots=4,
            heads=config.heads,
            head_dim=config.model_dim // config.heads,
            capacity=33,
            dtype=torch.bfloat16,
            device=DEVICE,
        )
        steps = network.row_steps(cache, slots=4)
        assert steps.replay.records
        damage(network)
        steps._step(3, 32)
        return steps._scores.device


def test_no_value_is_looked_at_and_nothing_lies_elsewhere(loaded):
    assert pretended_step(loaded.parts) == DEVICE


def test_the_pretended_gpu_notices_a_look_and_a_stray_tensor(loaded):
    def looks(network):
        inner = network._logits
        network._logits = lambda hidden: inner(hidden) * hidden.sum().item()

    def strays(network):
        inner = network._logits
        network._logits = lambda hidden: inner(hidden) + torch.zeros(hidden.shape[0], 1)

    with pytest.raises(DataDependentOutputException):
        pretended_step(loaded.parts, looks)
    with pytest.raises(FakeTensorDeviceMismatchError):
        pretended_step(loaded.parts, strays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_steps_give_the_codes_of_ordinary_ones(loaded, checkpoint, voices):
    there = load_model(checkpoint, device="cuda", dtype=torch.float32)
    spoken = prompts(loaded, voices[0])
    expected = [run_alone(loaded, prompt).tolist() for prompt in spoken]
    assert [run_alone(there, p).tolist() for p in prompts(there, voices[0])] == expected
    assert there._steps.replay.records, "recording failed"
    assert len(there._steps.replay) > 0
