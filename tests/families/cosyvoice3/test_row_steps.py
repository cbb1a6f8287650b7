"""A step of the language model as one piece of work gives the tokens of the ordinary one."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.nn.cache import KVCache
from sonant.nn.tap import tapped
from sonant.request.speech import Sampling, SpeechRequest
from tests.laws import run_alone, run_together
from tests.pretended_gpu import DEVICE, moved_there, pretended_gpu

from .conftest import load


@pytest.fixture(scope="module")
def model(checkpoint):
    made = load(checkpoint)
    made.step_in_one_piece()
    return made


def prompts(model, clip):
    voice = model.encode_voice(clip, "A small boat crosses the quiet lake.")
    settings = [Sampling(max_frames=30), Sampling(max_frames=50, greedy=True), Sampling(max_frames=9)]
    texts = ("The lake is quiet today.", "Good morning.", "Hello there, my friend.")
    return [
        model.prepare(SpeechRequest(text, voice=voice, seed=seed, sampling=sampling))[0]
        for seed, (text, sampling) in enumerate(zip(texts, settings, strict=True))
    ]


def test_the_tokens_are_those_of_ordinary_steps(model, shared_model, clip):
    spoken = prompts(shared_model, clip)
    expected = [run_alone(shared_model, prompt).tolist() for prompt in spoken]
    assert [run_alone(model, prompt).tolist() for prompt in spoken] == expected
    assert [tokens.tolist() for tokens in run_together(model, spoken)] == expected


def test_a_trace_still_sees_inside(model, clip):
    seen = set()
    with tapped(lambda name, _: seen.add(name)):
        run_alone(model, prompts(model, clip)[2])
    assert "lm.layer.0.query" in seen


def pretended_step(config, damage=lambda network: None):
    with pretended_gpu():
        network = moved_there(LanguageModel(config), torch.bfloat16)
        decoder = config.decoder
        cache = KVCache(
            layers=decoder.layers,
            slots=4,
            heads=decoder.kv_heads,
            head_dim=decoder.head_dim,
            capacity=33,
            dtype=torch.bfloat16,
            device=DEVICE,
        )
        steps = network.row_steps(network.step_stack(), cache, slots=4)
        assert steps.replay.records
        damage(network)
        steps._step(2, 32)
        return steps._scores.device


def test_no_value_is_looked_at_and_nothing_lies_elsewhere(model):
    assert pretended_step(model.config.language) == DEVICE


def test_the_pretended_gpu_notices_a_look_and_a_stray_tensor(model):
    def looks(network):
        inner = network.logits
        network.logits = lambda hidden: inner(hidden) * hidden.sum().item()

    def strays(network):
        inner = network.logits
        network.logits = lambda hidden: inner(hidden) + torch.zeros(hidden.shape[0], 1)

    with pytest.raises(DataDependentOutputException):
        pretended_step(model.config.language, looks)
    with pytest.raises(FakeTensorDeviceMismatchError):
        pretended_step(model.config.language, strays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_steps_give_the_scores_of_ordinary_ones(model, shared_model, clip):
    from sonant.families import cosyvoice3

    from .conftest import DATA

    there = cosyvoice3.load(DATA / "checkpoint", device=torch.device("cuda"), dtype=torch.float32)
    spoken = prompts(shared_model, clip)
    expected = [run_alone(shared_model, prompt).tolist() for prompt in spoken]
    assert [run_alone(there, prompt).tolist() for prompt in spoken] == expected
    assert there._steps.replay.records, "recording failed"
    assert len(there._steps.replay) > 0
