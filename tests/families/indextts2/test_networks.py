"""The other networks: recorded outputs where small enough, their definitions elsewhere."""

import math

import pytest
import torch
import torch.nn.functional as F

from sonant.errors import RequestError
from sonant.families.indextts2.campplus import CampPlusConfig, ContextGate, Head
from sonant.families.indextts2.config import W2vBertConfig
from sonant.families.indextts2.dit import reflect_pad, time_frequencies
from sonant.families.indextts2.reference import mel_config
from sonant.families.indextts2.vocoder import OversampledSnake, kaiser_sinc
from sonant.families.indextts2.w2v_bert import RelativeAttention, W2vBert, seamless_features
from sonant.nn.tap import tapped
from tests.families.indextts2.conftest import recorded


def test_dit_equals_the_recording(loaded):
    tensors = recorded("dit")
    seen = {}
    with torch.inference_mode(), tapped(lambda name, x: seen.__setitem__(name, x)):
        names = ("x", "prompt_x", "cond", "style", "t")
        out = loaded.parts.s2mel.estimator(*(tensors[name] for name in names))
    assert torch.allclose(seen["dit.layer.4.skip"], tensors["act_layer4_skip_in_linear"], atol=2e-4, rtol=0)
    assert torch.allclose(seen["dit.wavenet"], tensors["act_wavenet"], atol=2e-4, rtol=0)
    assert torch.allclose(out, tensors["out"], atol=2e-4, rtol=0)
    assert torch.allclose(time_frequencies(), tensors["t_freqs"], atol=1e-6, rtol=0)


def test_length_regulator_equals_the_recording(loaded):
    tensors = recorded("length_regulator")
    for frames in (11, 39):
        with torch.inference_mode():
            out = loaded.parts.s2mel.length_regulator(tensors["in"], frames)
        assert torch.allclose(out, tensors[f"out_{frames}"], atol=5e-5, rtol=0)


def flow(loaded, *, guidance, frames=20, known=8):
    rng = torch.Generator().manual_seed(1)
    s2mel = loaded.parts.s2mel
    content = s2mel.config.dit.content_dim
    condition = torch.randn(1, frames, content, generator=rng)
    prompt, noise = (torch.randn(1, 80, n, generator=rng) for n in (known, frames))
    style = torch.randn(1, s2mel.config.style_dim, generator=rng)
    with torch.inference_mode():
        return s2mel.generate(condition, prompt, style, noise, steps=3, guidance=guidance)


def test_flow_leaves_the_prompt_region_alone_and_guidance_matters(loaded):
    plain, guided = flow(loaded, guidance=0.0), flow(loaded, guidance=0.7)
    assert not guided[..., :8].any()
    assert guided[..., 8:].all()
    assert (plain - guided).abs().max() > 1e-3


@pytest.mark.parametrize("known", [0, 1, 5, 12, 39])
def test_velocity_of_the_speech_alone_is_that_of_the_whole(loaded, known):
    estimator, rng = loaded.parts.s2mel.estimator, torch.Generator().manual_seed(7)
    config = loaded.parts.s2mel.config
    x, prompt = torch.randn(2, 2, config.dit.in_channels, 40, generator=rng)
    condition = torch.randn(2, 40, config.dit.content_dim, generator=rng)
    style, time = torch.randn(2, config.style_dim, generator=rng), torch.tensor([0.3, 0.3])
    with torch.inference_mode():
        whole = estimator(x, prompt, condition, style, time)
        found = estimator(x, prompt, condition, style, time, known=known)
    assert found.shape == (2, config.dit.in_channels, 40 - known)
    assert (found - whole[..., known:]).abs().max() <= 1e-5
    assert estimator.wavenet.before < 39, "or nothing is left out"


def test_a_watched_flow_sees_the_prompt_too_and_gives_the_same(loaded):
    seen = {}
    plain = flow(loaded, guidance=0.7)
    with tapped(lambda name, x: seen.__setitem__(name, x)):
        watched = flow(loaded, guidance=0.7)
    assert seen["s2mel.step.0.velocity"].shape[-1] == 20
    assert (plain - watched).abs().max() <= 1e-5


def test_flow_without_guidance_is_the_limit_of_little_guidance(loaded):
    assert torch.allclose(flow(loaded, guidance=0.0), flow(loaded, guidance=1e-6), atol=1e-4, rtol=0)


def test_flow_noise_of_another_length_is_refused(loaded):
    with pytest.raises(RequestError, match="expected 20"), torch.inference_mode():
        loaded.parts.s2mel.generate(
            torch.zeros(1, 20, 48), torch.zeros(1, 80, 4), torch.zeros(1, 192), torch.zeros(1, 80, 19),
            steps=1, guidance=0.0,
        )  # fmt: skip


def test_reflection_of_a_very_short_input_extends_it_by_zeros_first():
    x = torch.tensor([[[1.0, 2.0]]])
    assert reflect_pad(x, 2, 2).tolist() == [[[0.0, 2.0, 1.0, 2.0, 0.0, 2.0]]]
    long = torch.arange(6.0).view(1, 1, 6)
    assert torch.equal(reflect_pad(long, 2, 2), F.pad(long, (2, 2), mode="reflect"))


def slow_snake(layer, x):
    """The definition: padded transposed convolution, snake, padded strided convolution."""
    channels = x.shape[1]
    up = layer.up_filter.expand(channels, -1, -1)
    wide = 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), up, stride=2, groups=channels)
    wide = wide[..., 15:-15]
    alpha, beta = layer.act.alpha.exp()[None, :, None], layer.act.beta.exp()[None, :, None]
    wide = wide + torch.sin(wide * alpha) ** 2 / (beta + 1e-9)
    down = layer.down_filter.expand(channels, -1, -1)
    return F.conv1d(F.pad(wide, (5, 6), mode="replicate"), down, stride=2, groups=channels)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_two_phase_activation_equals_its_definition(length):
    rng = torch.Generator().manual_seed(2)
    layer = OversampledSnake(5, "x").double()
    for parameter in (layer.act.alpha, layer.act.beta):
        parameter.data = 0.3 * torch.randn(5, generator=rng, dtype=torch.float64)
    layer.up_filter.copy_(kaiser_sinc() * 1.1)
    layer.down_filter.copy_(kaiser_sinc())
    x = torch.randn(2, 5, length, generator=rng, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(layer(x), slow_snake(layer, x), atol=1e-12, rtol=0)


def test_the_filter_has_unit_gain_and_is_symmetric():
    taps = kaiser_sinc()[0, 0]
    assert taps.sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(taps, taps.flip(0), atol=1e-8)


def test_vocoder_gives_256_samples_a_frame_within_full_scale(loaded):
    with torch.inference_mode():
        out = loaded.parts.vocoder(torch.randn(1, 80, 5, generator=torch.Generator().manual_seed(3)))
    assert out.shape == (1, 1, 5 * 256)
    assert out.abs().max() <= 1


def w2v_config(**given):
    sizes = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 5, "layer_norm_eps": 1e-5,
        "left_max_position_embeddings": 4, "right_max_position_embeddings": 2,
        "position_embeddings_type": "relative_key", "hidden_act": "swish",
    }  # fmt: skip
    return W2vBertConfig(**{**sizes, **given})


def test_relative_attention_equals_a_key_for_every_pair():
    torch.manual_seed(0)
    layer = RelativeAttention(w2v_config()).double()
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    out = layer(x, torch.zeros(1, 1, 1, 9, dtype=torch.float64))
    q, k, v = (f(x).view(9, 2, 8).transpose(0, 1) for f in (layer.linear_q, layer.linear_k, layer.linear_v))
    scores = torch.zeros(2, 9, 9, dtype=torch.float64)
    for i in range(9):
        for j in range(9):
            place = max(-4, min(2, j - i)) + 4
            key = k[:, j] + layer.distance_embedding.weight[place]
            scores[:, i, j] = (q[:, i] * key).sum(-1) / math.sqrt(8)
    expected = layer.linear_out((scores.softmax(-1) @ v).transpose(0, 1).reshape(1, 9, 16))
    assert torch.allclose(out, expected, atol=1e-12)


def test_a_padded_last_frame_changes_no_other():
    torch.manual_seed(0)
    network = W2vBert(w2v_config(), 2).eval()
    x = torch.randn(1, 7, 160)
    with torch.inference_mode():
        short = network(x, torch.ones(1, 7, dtype=torch.bool))
        padded = F.pad(x, (0, 0, 0, 1), value=5.0)
        whole = torch.ones(1, 8, dtype=torch.bool)
        whole[0, 7] = False
        assert torch.allclose(network(padded, whole)[:, :7], short, atol=1e-5)


def test_features_have_pairs_of_normalised_frames():
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    features, whole = seamless_features(wave)
    assert features.shape == (49, 160)
    assert whole.all()
    bins = features.reshape(98, 80)
    assert bins.mean(0).abs().max() < 1e-4
    assert torch.allclose(bins.std(0), torch.ones(80), atol=1e-3)
    odd, whole = seamless_features(wave[:-160])
    assert odd.shape == (49, 160)
    assert whole.tolist() == [True] * 48 + [False]
    assert (odd[-1, 80:] == 1).all()
    with pytest.raises(RequestError, match="longer clip"):
        seamless_features(wave[:500])


def test_context_gate_averages_the_last_segment_over_what_it_has():
    torch.manual_seed(0)
    layer = ContextGate(4, 3, 1)
    x = torch.randn(1, 4, 130)
    means = torch.cat(
        [part.mean(-1, keepdim=True).expand(-1, -1, part.shape[-1]) for part in (x[..., :100], x[..., 100:])],
        dim=-1,
    )
    context = x.mean(-1, keepdim=True) + means
    gate = torch.sigmoid(layer.linear2(F.relu(layer.linear1(context))))
    with torch.inference_mode():
        assert torch.allclose(layer(x), layer.linear_local(x) * gate, atol=1e-6)


def test_style_head_divides_the_frequencies_by_eight():
    assert Head(4).eval()(torch.randn(1, 80, 9)).shape == (1, 40, 9)
    sizes = CampPlusConfig(bins=80, head_channels=4, initial=4, growth=2, bottleneck=4, out=6)
    assert sizes.bins // 8 == 10


def test_prompt_mel_covers_everything_up_to_the_nyquist_frequency(loaded):
    config = mel_config(loaded.parts.config.s2mel)
    assert config.high is None
    assert config.padding == 384
