"""Narrow weights of the GPT: near the wide ones, the plain arithmetic in C, and a model that speaks."""

import copy

import pytest
import torch
from torch import nn

from sonant import native
from sonant.catalogue.registry import precisions
from sonant.checkpoints.modules import within
from sonant.engine.engine import Engine
from sonant.families import indextts2
from sonant.families.indextts2 import weights
from sonant.families.indextts2.gpt import Block
from sonant.families.indextts2.layout import locate
from sonant.nn.narrow_products import FixedConv1d, FixedRows, NarrowForm, narrow_form
from sonant.nn.native_conv import NativeConv1d, NativeRows
from sonant.nn.packed import PackedLinear
from sonant.nn.precision import INT8, INT12, LOSSLESS, PlainLinear, StackPlan, stack_plan
from sonant.nn.quantized import NativeLinear, PackedStore
from sonant.request.speech import Sampling, SpeechRequest
from tests.families.indextts2.conftest import clip, recorded

PLAN = stack_plan("int8", 2)


class Gpt(nn.Module):
    """The part of the network that a step reads, as wide as the kernel wants it."""

    def __init__(self, width=128):
        super().__init__()
        self.h = nn.ModuleList(Block(width, 4, f"gpt.h.{index}") for index in range(2))
        self.code_head = nn.Linear(width, 70)
        rng = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=rng) / parameter[0].numel() ** 0.5
        self.requires_grad_(False)

    def forward(self, x):
        for index, block in enumerate(self.h):
            x = block(x, None, index)
        return self.code_head(x)


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_blocks_in_c_are_those_of_the_plain_arithmetic(monkeypatch, tmp_path):
    wide = Gpt()
    quick, plain, stored = (copy.deepcopy(wide) for _ in range(3))
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1))
    weights.quantize(quick, PLAN, PackedStore(tmp_path / "w.safetensors"))
    weights.quantize(stored, PLAN, PackedStore(tmp_path / "w.safetensors"))
    monkeypatch.setattr(native, "library", lambda: None)
    weights.quantize(plain, PLAN)
    assert isinstance(quick.h[1].attn.c_attn, NativeLinear)
    assert isinstance(plain.h[1].mlp.c_proj, PlainLinear)
    assert plain.h[0].mlp.c_proj.precision == plain.h[0].attn.c_attn.precision == INT12
    assert plain.h[1].mlp.c_proj.precision == plain.code_head.precision == INT8
    assert torch.equal(quick(x), stored(x))
    assert distance(quick(x), plain(x)) < 1e-3  # an activation that rounds the other way
    assert 1e-3 < distance(quick(x), wide(x)) < 0.05


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_bfloat16_weights_are_kept_and_others_left_alone():
    wide = Gpt()
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1))
    expected = wide(x)
    weights.quantize(wide, StackPlan(rest=LOSSLESS))
    assert type(wide.code_head) is nn.Linear
    assert torch.equal(wide(x), expected)
    wide = wide.bfloat16().float()
    expected = wide(x)
    weights.quantize(wide, StackPlan(rest=LOSSLESS))
    assert isinstance(wide.h[0].mlp.c_fc, NativeLinear)
    assert distance(wide(x), expected) < 1e-6


# Measured on this network of width 48: 0.0063 in int8.
@pytest.mark.parametrize(("precision", "most"), [("int8", 0.01), ("int4", 0.6), ("lossless", 1e-5)])
def test_narrow_weights_stay_close_and_speak(loaded, checkpoint, monkeypatch, tmp_path, precision, most):
    assert precision in precisions(checkpoint)
    monkeypatch.setenv("SONANT_CACHE", str(tmp_path))
    narrow = indextts2.load(checkpoint, device=torch.device("cpu"), dtype=torch.float32, precision=precision)
    given = recorded("gpt_decode")
    ids, codes = given["text_ids"][0].tolist(), given["greedy_tokens"][0].tolist()
    latents = recorded("gpt_cond")["spk_latents"][0]
    found = []
    for gpt in (narrow.parts.gpt, loaded.parts.gpt):
        with torch.inference_mode():
            found.append(gpt.full_logits(gpt.prefix(latents, given["emovec"][0], ids), codes[:-1]))
    assert distance(*found) <= most
    assert not isinstance(narrow.parts.gpt.h[0].attn.c_attn, PackedLinear)
    with Engine(narrow) as engine:
        sampling = Sampling(max_frames=6, flow_steps=2)
        request = SpeechRequest("HI", voice=engine.clone(clip(0)), seed=4, sampling=sampling)
        assert engine.synthesize(request).seconds > 0


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_weights_that_were_packed_when_int8_had_eight_bits_everywhere_are_packed_again(tmp_path):
    former, fresh, after = (Gpt() for _ in range(3))
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "kept.safetensors"
    weights.quantize(former, StackPlan(rest=INT8), PackedStore(path))
    weights.quantize(fresh, PLAN)
    weights.quantize(after, PLAN, PackedStore(path))
    assert torch.equal(after(x), fresh(x))
    assert not torch.equal(after(x), former(x))


@pytest.mark.skipif(narrow_form() is None, reason="needs bfloat16 instructions, or AVX2 without AVX512")
def test_narrow_products_of_the_flow_stay_close(loaded, checkpoint):
    wide, config = loaded.parts.s2mel, loaded.parts.config
    path = locate(checkpoint, config).s2mel
    narrow = weights.load_s2mel(path, config, device="cpu", narrow=True)
    is_fixed = narrow_form() is NarrowForm.FIXED
    layer, convolution = (
        narrow.estimator.transformer.layers[0].feed_forward.w1,
        narrow.estimator.wavenet.in_layers[0],
    )
    assert isinstance(layer, FixedRows if is_fixed else NativeRows)
    assert isinstance(convolution, FixedConv1d if is_fixed else NativeConv1d)
    rng = torch.Generator().manual_seed(1)
    condition = torch.randn(1, 30, config.s2mel.dit.content_dim, generator=rng)
    prompt, noise = (torch.randn(1, config.s2mel.dit.in_channels, n, generator=rng) for n in (8, 30))
    style = torch.randn(1, config.s2mel.style_dim, generator=rng)
    with torch.inference_mode():
        found, expected = (
            flow.generate(condition, prompt, style, noise, steps=3, guidance=0.7) for flow in (narrow, wide)
        )
    assert 1e-5 < distance(found, expected) < (0.002 if is_fixed else 0.02)


def test_a_precision_narrows_the_matrices_that_the_estimate_of_memory_counts(monkeypatch):
    wide = Gpt()
    counted = within(wide, weights.narrowed(wide), wide.state_dict())
    monkeypatch.setattr(native, "library", lambda: None)
    weights.quantize(wide, PLAN)
    assert {name for name, m in wide.named_modules() if isinstance(m, PlainLinear)} == {
        name.removesuffix(".weight") for name in counted
    }


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_the_flow_narrows_what_the_estimate_of_memory_counts(loaded, checkpoint, monkeypatch):
    monkeypatch.setattr("sonant.nn.narrow_products.narrow_form", lambda: NarrowForm.FIXED)
    config = loaded.parts.config
    path = locate(checkpoint, config).s2mel
    narrow = weights.load_s2mel(path, config, device="cpu", narrow=True)
    wide = weights.build_s2mel(path, weights.s2mel_tensors(path), config)
    counted = within(wide, weights.narrow_parts(wide.estimator), wide.state_dict())
    assert {name for name, m in narrow.named_modules() if isinstance(m, FixedRows | FixedConv1d)} == {
        name.removesuffix(".weight") for name in counted
    }
