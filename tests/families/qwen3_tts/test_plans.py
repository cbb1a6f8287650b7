"""What each precision narrows: in C as in torch, and no more than it says."""

import json
from dataclasses import replace

import pytest
import torch

from sonant import native
from sonant.catalogue.registry import load_model, precisions
from sonant.checkpoints.modules import within
from sonant.errors import UnsupportedError
from sonant.families.qwen3_tts import automatic_precision
from sonant.families.qwen3_tts.config import read_model_config
from sonant.families.qwen3_tts.decoding import predictor_choice
from sonant.families.qwen3_tts.plans import narrowed, plan_of, quantize, state_plainly
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.cache import KVCache
from sonant.nn.precision import INT4, INT8, INT12, PlainLinear
from sonant.nn.quantized import NativeDecoder, NativeLinear, PackedStore
from sonant.nn.sampling import generator
from sonant.request.speech import Sampling
from tests.families.qwen3_tts.conftest import DATA

NARROW = ("int8", "mixed", "int4")
SIZES = {"width": 128, "layers": 5, "heads": 4, "kv_heads": 2, "head_dim": 32, "intermediate": 192}
GREEDY = Sampling(predictor_greedy=True)


@pytest.fixture(scope="module")
def config():
    read = read_model_config(DATA / "checkpoints" / "base_1p7b")
    talker = replace(read.talker, **SIZES, text_vocabulary=8, text_width=16)
    predictor = replace(read.predictor, **{**SIZES, "layers": 2})
    return replace(read, talker=talker, predictor=predictor, speaker=None)


def network(config):
    torch.manual_seed(0)
    made = Network(config).requires_grad_(False)
    for name, parameter in made.named_parameters():
        spread = 0.1 if name.endswith("proj.weight") else 0.3
        parameter.data.uniform_(0.5, 1.5) if "norm" in name else parameter.data.normal_(std=spread)
        parameter.data = parameter.data.bfloat16().float()
    return made


def stated(config, precision):
    made = network(config)
    state_plainly(made, plan_of(precision, config))
    return made


def in_c(config, precision, store=None):
    if native.library() is None:
        pytest.skip("no C compiler on this machine")
    made = network(config)
    quantize(made, plan_of(precision, config), store)
    return made


def logits(made, config):
    """Logits [1 + groups - 1, V] of one frame after a prompt, with given tokens."""
    torch.manual_seed(1)
    c = config.talker
    x, first = torch.randn(1, 21, c.width), torch.randn(1, c.width)
    cache = KVCache(
        layers=c.layers, slots=1, heads=c.kv_heads, head_dim=c.head_dim, capacity=32, dtype=torch.float32
    )
    found = []

    def choose(group, scores):
        found.append(scores)
        return torch.tensor([3 * group + 1])

    with torch.inference_mode():
        made.talker(x[:, :20], rows=cache.rows([0], 20))
        hidden = made.talker(x[:, 20:], rows=cache.rows([0], 1))[:, -1]
        found.append(made.talker.logits(hidden))
        made.predictor(hidden, first, made.predictor.cache(1, torch.float32, torch.device("cpu")), choose)
    return found


def distance(found, expected):
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("precision", NARROW)
def test_the_network_in_c_gives_what_torch_states(config, precision):
    quick = in_c(config, precision)
    assert isinstance(quick.talker.decoder, NativeDecoder)
    assert isinstance(quick.talker.codec_head, NativeLinear)
    # Sums in another order move codes of activations by one, until that is as much as rounding them loses:
    # little with 16 bits, more with the 8 that meet int4, a part of what the precision loses itself.
    expected = logits(stated(config, precision), config)
    loss = distance(expected, logits(network(config), config))
    assert distance(logits(quick, config), expected) < (5e-4 if precision == "int8" else loss / 4)


def test_the_precisions_lose_more_and_more(config):
    expected = logits(network(config), config)
    losses = [distance(logits(stated(config, precision), config), expected) for precision in NARROW]
    assert 0 < 2 * losses[0] < losses[1] < losses[2]
    assert losses[0] < 0.03


def test_mixed_is_int8_until_the_last_groups(config):
    int8, mixed = (logits(stated(config, precision), config) for precision in ("int8", "mixed"))
    late = plan_of("mixed", config).late_from
    assert 1 < late < config.talker.groups
    assert [torch.equal(a, b) for a, b in zip(int8, mixed, strict=True)] == [
        group < late for group in range(config.talker.groups)
    ]


def test_one_call_in_c_gives_the_tokens_of_the_steps_on_both_sides_of_the_change(config):
    predictor = in_c(config, "mixed").predictor
    assert predictor.frame is not None
    hidden, first = torch.randn(2, 2, config.talker.width).unbind()
    cache = predictor.cache(2, torch.float32, torch.device("cpu"))
    with torch.inference_mode():
        expected, total = predictor(hidden, first, cache, lambda _, scores: scores.argmax(dim=-1))
        generators = [generator(row, "tokens") for row in range(2)]
        found, sums = predictor.frame(hidden, first, cache, [predictor_choice(GREEDY)] * 2, generators)
    assert torch.equal(found, expected)
    assert torch.equal(sums, total)


def test_the_first_layers_are_kept_with_more_care(config):
    made = stated(config, "int8")
    kept = {name: m.precision for name, m in made.named_modules() if isinstance(m, PlainLinear)}
    careful = {name for name, precision in kept.items() if precision == INT12}
    assert careful == {
        *(name for name in kept if name.startswith("talker.decoder.layers.0.")),
        *(name for name in kept if name.startswith("predictor.decoder.layers.0.self_attn.")),
    }
    assert len(careful) == 7 + 4
    assert set(kept.values()) == {INT12, INT8}
    late = stated(config, "mixed").predictor.late
    assert {m.precision for m in late.modules() if isinstance(m, PlainLinear)} == {INT4}


def test_both_forms_of_a_mixed_predictor_are_kept_on_disk(config, tmp_path):
    path = tmp_path / "kept.safetensors"
    expected = logits(in_c(config, "mixed", PackedStore(path)), config)
    again = network(config)
    for name, parameter in again.named_parameters():
        if name.endswith("proj.weight") or "head" in name:
            parameter.data.zero_()  # were they read, the outputs would differ
    quantize(again, plan_of("mixed", config), PackedStore(path))
    assert all(torch.equal(a, b) for a, b in zip(logits(again, config), expected, strict=True))


@pytest.mark.parametrize(
    ("width", "front_end", "expected"),
    [
        (1024, None, "int8"),
        (2048, None, "int8"),
        (512, None, "lossless"),
        (1024, "paced-phonemes", "lossless"),
    ],
)
def test_auto_is_int8_for_talkers_of_the_released_sizes(tmp_path, width, front_end, expected):
    config = {"model_type": "qwen3_tts", "talker_config": {"hidden_size": width}}
    if front_end is not None:
        config["sonant_front_end"] = front_end
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert automatic_precision(tmp_path) == expected


def test_auto_of_a_small_checkpoint_loses_nothing(kit):
    assert automatic_precision(kit / "checkpoints" / "custom_voice_1p7b") == "lossless"
    assert automatic_precision(kit / "checkpoints" / "base_1p7b" / "speech_tokenizer") == "lossless"


def test_a_checkpoint_offers_mixed_and_cosyvoice_does_not(kit):
    folder = kit / "checkpoints" / "custom_voice_1p7b"
    assert precisions(folder) == ("auto", "full", "lossless", "int8", "mixed", "int4")
    made = load_model(folder, device="cpu", precision="mixed")
    assert made.network.predictor.late is not None
    with pytest.raises(UnsupportedError, match="mixed"):
        load_model(DATA.parent / "cosyvoice3" / "checkpoint", device="cpu", precision="mixed")


def test_a_plan_narrows_the_matrices_that_the_estimate_of_memory_counts(config):
    wide, narrow = network(config), stated(config, "int8")
    counted = within(wide, narrowed(wide), wide.state_dict())
    assert {name for name, m in narrow.named_modules() if isinstance(m, PlainLinear)} == {
        name.removesuffix(".weight") for name in counted
    }
