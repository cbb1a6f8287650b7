"""The codec's decoder in C, held to the one in torch: on the fixture's random weights and on trained ones."""

import pytest
import torch

from sonant import native
from sonant.catalogue.registry import load_model
from sonant.families.qwen3_tts import load
from sonant.nn.native_conv import NativeTimeConv
from sonant.request.speech import SpeechRequest

pytestmark = pytest.mark.skipif(native.library() is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def spoken():
    """The tokens [frames, G] of a sentence that Sonant Nano speaks, and its decoder in torch."""
    model = load_model("nano", device="cpu")
    model.allocate(1, 512)
    with torch.inference_mode():
        prompt = model.prepare(SpeechRequest("Would you like some tea with lemon?", voice="sona", seed=1))[0]
        utterance = model.start(prompt, [0])
        frames = []
        while not (step := model.step([utterance])[0]).is_final:
            frames.append(step.tokens)
    tokens = torch.cat(frames)
    assert len(tokens) > 15
    return tokens, model.speech_tokenizer.codec.decoder


def distance(found, expected):
    """Relative L2."""
    return float((found - expected).norm() / expected.norm())


def decoded(decoder, tokens):
    with torch.inference_mode():
        return decoder.decode(tokens)


def test_float32_products_in_c_change_nothing_but_rounding(spoken):
    tokens, plain = spoken
    quick = load_model("nano", device="cpu").speech_tokenizer.codec.decoder
    quick.use_native(native.library(), narrow=False)
    assert isinstance(quick.pre_conv, NativeTimeConv)
    assert distance(decoded(quick, tokens), decoded(plain, tokens)) < 3e-6


def test_bfloat16_products_stay_45_decibels_away_from_speech(spoken):
    if not native.library().sonant_conv_has_bfloat16():
        pytest.skip("no bfloat16 instructions here")
    tokens, plain = spoken
    quick = load_model("nano", device="cpu").speech_tokenizer.codec.decoder
    quick.use_native(native.library(), narrow=True)
    assert 1e-4 < distance(decoded(quick, tokens), decoded(plain, tokens)) < 10 ** (-45 / 20)


@pytest.mark.parametrize("precision", ["lossless", "int8"])
def test_narrow_precisions_decode_in_c_and_the_plain_one_does_not(kit, precision):
    folder = kit / "checkpoints" / "base_1p7b"
    device = torch.device("cpu")
    plain = load(folder, device=device, dtype=torch.float32).speech_tokenizer.codec.decoder
    quick = load(
        folder, device=device, dtype=torch.float32, precision=precision
    ).speech_tokenizer.codec.decoder
    assert not isinstance(plain.pre_conv, NativeTimeConv)
    assert isinstance(quick.pre_conv, NativeTimeConv)
    count = plain.config.quantizers
    tokens = torch.randint(
        0, plain.config.codebook_size, (9, count), generator=torch.Generator().manual_seed(3)
    )
    error = distance(decoded(quick, tokens), decoded(plain, tokens))
    assert error < (1e-5 if precision == "lossless" else 0.1)
