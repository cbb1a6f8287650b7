"""Language model, flow and vocoder against the official code's outputs at the same tiny size."""

import pytest
import torch

from sonant.engine.model import Prompt, Utterance
from sonant.families.cosyvoice3 import generate
from sonant.families.cosyvoice3.estimator import chunk_mask, rotate_first_head
from sonant.families.cosyvoice3.noise import ReferenceNoise
from sonant.families.cosyvoice3.sampler import greedy
from sonant.families.cosyvoice3.speaking import TokenState
from sonant.nn.tap import tapped
from sonant.parity.kits.cosyvoice3.front import inverse_cdf
from sonant.request.speech import Sampling


@pytest.fixture(scope="module")
def noise(shared_model):
    return ReferenceNoise(shared_model.config)


def prompt_of(model, expected, mode):
    text = torch.cat((expected[f"llm.{mode}.prompt_text"][0], expected[f"llm.{mode}.text"][0])).long()
    return model.language.prompt(text, expected[f"llm.{mode}.prompt_speech_token"][0].long())


def steps(model, x, text_tokens, pick, count):
    model.allocate(1, x.shape[1] + count)
    sampling = Sampling(greedy=pick is greedy).over(model.spec.sampling)
    prompt = Prompt(text="", sampling=sampling, seed=0, ceiling=count, inputs=None)
    utterance = Utterance(prompt=prompt, slots=(0,), generator=torch.Generator())
    state = utterance.state = TokenState(pick=pick, minimum=2 * text_tokens)
    state.logits = generate.prefill(model.language, model._cache, 0, x)
    scores = []
    for _ in range(count):
        generate.next_scores(model.language, model._cache, [utterance])
        scores.append(state.logits)
        state.history.append(generate.choose(model.config.language, state, sampling))
    return state.history, torch.stack(scores)


@pytest.mark.parametrize("mode", ["zero_shot", "cross_lingual", "instruct2"])
def test_greedy_steps_are_as_recorded(shared_model, expected, mode):
    x = prompt_of(shared_model, expected, mode)
    ids, scores = steps(shared_model, x, expected[f"llm.{mode}.text"].shape[1], greedy, 10)
    assert ids == expected[f"llm.{mode}.greedy_tokens"].tolist()
    assert (scores - expected[f"llm.{mode}.step_logits"]).abs().max() <= 5e-4


def test_sampled_run_is_as_recorded(shared_model, expected, rows):
    x = prompt_of(shared_model, expected, "zero_shot")
    pick = inverse_cdf(iter(rows["uniforms"]))
    ids, _ = steps(shared_model, x, expected["llm.zero_shot.text"].shape[1], pick, 24)
    assert ids == expected["llm.ras_run.tokens"].tolist()


def test_prefill_then_steps_equals_one_full_pass(shared_model, expected):
    x = prompt_of(shared_model, expected, "cross_lingual")
    ids, scores = steps(shared_model, x, 11, greedy, 10)
    tokens = shared_model.language.speech_embedding(torch.tensor(ids[:-1]))[None]
    full = shared_model.language(torch.cat((x, tokens), dim=1))[0, x.shape[1] - 1 :]
    assert (shared_model.language.logits(full) - scores).abs().max() <= 1e-4


def flow_inputs(expected, *, is_final):
    tokens = expected["flow.token_with_lookahead"][0].long()
    tokens = tokens[:-3] if is_final else tokens
    prompt = expected["flow.prompt_token"][0].long()
    return prompt, tokens, expected["flow.prompt_feat"][0], expected["flow.embedding"][0]


@pytest.mark.parametrize("mask", ["full", "stream"])
@pytest.mark.parametrize("end", ["final", "partial"])
def test_flow_gives_the_recorded_mel(shared_model, expected, noise, mask, end):
    inputs = flow_inputs(expected, is_final=end == "final")
    mel = shared_model.flow(*inputs, noise.flow(200), chunked=mask == "stream", is_final=end == "final")
    assert (mel - expected[f"flow.{mask}.{end}.mel"][0]).abs().max() <= 2e-4


def trace(flow, inputs, noise):
    found = {}

    def sink(name, tensor):
        found.setdefault(name, tensor.clone())

    with tapped(sink):
        flow(*inputs, noise.flow(200))
    return found


def test_estimator_inputs_and_velocities_are_as_recorded(shared_model, expected, noise):
    found = trace(shared_model.flow, flow_inputs(expected, is_final=True), noise)
    for name, key in (
        ("flow.step.0.mu", "mu"),
        ("flow.step.0.cond", "cond"),
        ("flow.step.0.spks", "spks"),
    ):
        assert (found[name][:1] - expected[f"flow.full.final.{key}"]).abs().max() <= 1e-5
        assert not found[name][1].any()  # the unconditional item has none of the three
    assert (found["flow.step.0.v"] - expected["flow.full.final.v_step1"]).abs().max() <= 1e-4
    assert (found["flow.step.9.v"] - expected["flow.full.final.v_step10"]).abs().max() <= 1e-4
    times = torch.stack([found[f"flow.step.{i}.t"][0] for i in range(10)])
    assert torch.equal(times, expected["flow.full.final.t_used"])


def test_a_prompt_mel_that_is_too_loud_first_shows_in_cond(shared_model, expected, noise):
    """A mel filter bank normalised in bins instead of Hz adds about 2.5 to every value of the prompt mel.

    Mel, mu and the first x do not see it, the velocity does: in order of computation the condition is the
    first tensor that differs, and only its conditional item.
    """
    prompt, tokens, mel, speaker = flow_inputs(expected, is_final=True)
    right = trace(shared_model.flow, (prompt, tokens, mel, speaker), noise)
    wrong = trace(shared_model.flow, (prompt, tokens, mel + 2.5, speaker), noise)
    assert list(right) == list(wrong)
    different = [name for name in right if not torch.equal(right[name], wrong[name])]
    assert different[0] == "flow.step.0.cond"
    before_velocity = different[: different.index("flow.step.0.v")]
    assert not {"flow.step.0.x", "flow.step.0.mu", "flow.step.0.spks", "flow.step.0.t"} & set(before_velocity)
    v_right, v_wrong = right["flow.step.0.v"], wrong["flow.step.0.v"]
    assert (v_right[0] - v_wrong[0]).abs().mean() > 0.1
    assert torch.equal(v_right[1], v_wrong[1])


def test_only_the_first_head_knows_positions():
    x = torch.randn(1, 5, 12)
    angle = torch.arange(5.0)[:, None] * torch.ones(2)
    turned = rotate_first_head(x, angle.cos(), angle.sin())
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[:, 0], x[:, 0])
    assert not torch.equal(turned[:, 1:, :4], x[:, 1:, :4])
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))


def test_chunk_mask_shows_the_own_chunk_and_earlier_ones():
    mask = chunk_mask(torch.arange(5), 2)
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_guidance_and_steps_change_the_mel_and_zero_guidance_is_the_conditional(
    shared_model, expected, noise
):
    inputs = flow_inputs(expected, is_final=True)
    one = shared_model.flow(*inputs, noise.flow(200), steps=1, guidance=0.0)
    found = trace(shared_model.flow, inputs, noise)
    start, velocity = found["flow.step.0.x"][0], found["flow.step.0.v"][0]
    assert torch.allclose(one, (start + velocity)[:, inputs[2].shape[0] :], atol=1e-5)
    two = shared_model.flow(*inputs, noise.flow(200), steps=2)
    assert not torch.allclose(one, two, atol=1e-2)


def test_vocoder_gives_the_recorded_waveform(shared_model, expected, noise):
    source = ReferenceNoise(shared_model.config).source(0, 22)
    found = {}

    def sink(name, tensor):
        found.setdefault(name, tensor.clone())

    with tapped(sink):
        waveform = shared_model.vocoder(expected["hift.mel"][0], source)
    assert (found["vocoder.f0"] - expected["hift.final.f0"]).abs().max() <= 1e-4
    assert (found["vocoder.sines"] - expected["hift.final.f02sine"][0]).abs().max() <= 1e-3
    assert (found["vocoder.conv_pre"] - expected["hift.final.conv_pre"]).abs().max() <= 1e-3
    assert (found["vocoder.stage.0.up"] - expected["hift.final.up0"]).abs().max() <= 1e-3
    assert (waveform - expected["hift.final.wav"][0]).abs().max() <= 1e-3
    partial = shared_model.vocoder(expected["hift.mel"][0], source, is_final=False)
    assert (partial - expected["hift.partial.wav"][0]).abs().max() <= 1e-3
    assert len(partial) == (22 - 8) * 480


def test_front_end_gives_the_recorded_voice(told, shared_model, source, expected):
    assert told.tensors["tokens"].tolist() == expected["frontend.mono24k.speech_token_untrimmed"][0].tolist()
    assert (told.tensors["speaker"] - expected["frontend.mono24k.embedding"][0]).abs().max() <= 1e-3
    assert (told.tensors["mel"] - expected["frontend.mono24k.mel24_untrimmed"][0]).abs().max() <= 1e-4
    other = shared_model.encode_voice(source, None).tensors
    assert other["tokens"].tolist() == expected["frontend.mono16k.speech_token_untrimmed"][0].tolist()
