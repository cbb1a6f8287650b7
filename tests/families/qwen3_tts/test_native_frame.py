"""The code predictor's frame in one call into C gives the tokens of the steps made one by one."""

import pytest
import torch

from sonant import native
from sonant.families.qwen3_tts.config import PredictorConfig
from sonant.families.qwen3_tts.decoding import choose_predictor, predictor_choice
from sonant.families.qwen3_tts.talker import CodePredictor
from sonant.nn.native_frame import NativeFrame
from sonant.nn.precision import INT4, INT8, LOSSLESS
from sonant.nn.quantized import quantize_decoder, quantize_linear
from sonant.nn.sampling import Choice, generator
from sonant.request.speech import Sampling

SAMPLED = Sampling(predictor_temperature=0.9, predictor_top_k=7)
GREEDY = Sampling(predictor_greedy=True)
ALL = Sampling(predictor_temperature=1.3, predictor_top_k=0)


def predictor(precision, source, width=128, groups=6, vocabulary=100):
    torch.manual_seed(1)
    config = PredictorConfig(
        width=width,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=32,
        intermediate=192,
        rope_theta=1e4,
        norm_eps=1e-6,
        max_positions=64,
        groups=groups,
        vocabulary=vocabulary,
    )
    made = CodePredictor(config, source).requires_grad_(False)
    for parameter in made.parameters():
        parameter.data.normal_(std=0.3)
        parameter.data = parameter.data.bfloat16().float()
    made.decoder = quantize_decoder(made.decoder, "predictor", precision)
    if source != width:
        made.small_to_mtp_projection = quantize_linear(made.small_to_mtp_projection, precision)
    for index, head in enumerate(made.lm_head):
        made.lm_head[index] = quantize_linear(head, precision)
    made.frame = NativeFrame.of(
        made.decoder, made.small_to_mtp_projection, list(made.lm_head), list(made.codec_embedding)
    )
    return made


@pytest.fixture(autouse=True)
def kernel():
    if native.library() is None:
        pytest.skip("no C compiler on this machine")


@pytest.mark.parametrize("precision", [INT8, INT4, LOSSLESS], ids=["int8", "int4", "lossless"])
@pytest.mark.parametrize("source", [128, 192])
@pytest.mark.parametrize("settings", [[SAMPLED], [GREEDY], [SAMPLED, GREEDY, ALL], [ALL] * 9])
def test_one_call_gives_the_tokens_of_the_steps(precision, source, settings):
    made = predictor(precision, source)
    assert made.frame is not None
    choices = [predictor_choice(sampling) for sampling in settings]
    hidden, first = torch.randn(2, len(settings), source).unbind()
    for frame in range(3):
        seeds = [100 * frame + row for row in range(len(settings))]
        slow = [generator(seed, "tokens") for seed in seeds]
        quick = [generator(seed, "tokens") for seed in seeds]
        cache = made.cache(len(settings), torch.float32, torch.device("cpu"))
        expected, total = made(
            hidden, first, cache, lambda _, logits, rngs=slow: choose_predictor(logits, choices, rngs)
        )
        found, sums = made.frame(hidden, first, cache, choices, quick)
        assert torch.equal(found, expected)
        assert torch.equal(sums, total)
        for one, other in zip(slow, quick, strict=True):
            assert torch.equal(one.get_state(), other.get_state())
        hidden, first = hidden + sums, first - sums


def test_a_row_is_the_same_alone_and_in_a_batch():
    made = predictor(INT8, 128)
    hidden, first = torch.randn(2, 5, 128).unbind()

    def run(rows):
        rngs = [generator(row, "tokens") for row in rows]
        cache = made.cache(len(rows), torch.float32, torch.device("cpu"))
        return made.frame(hidden[rows], first[rows], cache, [predictor_choice(SAMPLED)] * len(rows), rngs)[0]

    assert torch.equal(run([0, 1, 2, 3, 4]), torch.cat([run([row]) for row in range(5)]))


def test_what_c_cannot_do_is_left_to_the_steps():
    made = predictor(INT8, 128)
    assert made.frame is not None
    assert made.frame.takes([Choice()] * 32)
    assert not made.frame.takes([Choice()] * 33)
    assert not made.frame.takes([Choice(), Choice(top_p=0.8)])
    assert made.frame.takes([Choice(top_p=0.8, is_greedy=True)])
    odd = predictor(INT8, 128)
    odd.lm_head[0] = torch.nn.Linear(128, 100)
    assert NativeFrame.of(odd.decoder, odd.small_to_mtp_projection, list(odd.lm_head), []) is None
