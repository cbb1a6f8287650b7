"""Loading, conversion, and files that are wrong."""

import copy
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from sonant import native
from sonant.catalogue import registry
from sonant.checkpoints.modules import build, within
from sonant.errors import CheckpointError, RequestError
from sonant.families import cosyvoice3
from sonant.families.cosyvoice3 import weights
from sonant.families.cosyvoice3.config import read_config
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.weights import folded_vocoder, read_part
from sonant.nn.cache import KVCache
from sonant.nn.narrow_products import FixedRows, NarrowForm, narrow_form
from sonant.nn.native_conv import NativeRows
from sonant.nn.precision import INT8, INT12, PlainLinear, StackPlan, stack_plan
from sonant.nn.quantized import PackedStore

from .conftest import load


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt", "spk2info.pt"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder, tmp_path, name):
    marker = tmp_path / "it-ran"
    torch.save({"a": Evil(marker)}, folder / name)
    with pytest.raises(CheckpointError, match="never does"):
        load(folder)
    (folder / name).write_bytes(pickle.dumps(Evil(marker), protocol=2))
    with pytest.raises(CheckpointError):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["llm.pt", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v3.onnx"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / "flow.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"flow\.pt"):
        load(folder)


def test_a_damaged_graph_is_refused_when_it_is_needed(folder, clip):
    (folder / "campplus.onnx").write_bytes(b"no graph")
    model = load(folder)
    with pytest.raises(CheckpointError, match="campplus"):
        model.encode_voice(clip, None)


def test_missing_unexpected_and_misshapen_keys_are_reported_together(folder):
    tensors = torch.load(folder / "flow.pt", weights_only=True)
    tensors.pop("decoder.estimator.proj_out.bias")
    tensors["novel.weight"] = torch.zeros(1)
    tensors["input_embedding.weight"] = torch.zeros(2, 2)
    torch.save(tensors, folder / "flow.pt")
    with pytest.raises(CheckpointError, match=r"(?s)proj_out\.bias.*novel\.weight.*input_embedding"):
        load(folder)


def test_a_file_of_other_content_is_refused(folder):
    torch.save([1, 2, 3], folder / "hift.pt")
    with pytest.raises(CheckpointError, match="no table of tensors"):
        load(folder)


@pytest.mark.parametrize("name", ["llm", "flow", "hift"])
@pytest.mark.parametrize(
    ("wrapper", "prefix"), [("state_dict", "module."), ("model", ""), ("generator", "_orig_mod.")]
)
def test_what_training_programs_put_around_weights_is_seen_through(folder, name, wrapper, prefix):
    plain = torch.load(folder / f"{name}.pt", weights_only=True)  # not mapped: the file is written anew
    ema = {key: tensor + 1 for key, tensor in plain.items()}
    wrapped = {wrapper: {prefix + key: tensor for key, tensor in plain.items()}, "ema": ema, "epoch": 3}
    torch.save(wrapped, folder / f"{name}.pt")
    found = read_part(folder, name)
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)
    torch.save({"state_dict": wrapped}, folder / f"{name}.pt")
    assert read_part(folder, name).keys() == plain.keys()


def test_one_tensor_under_two_names_is_told_with_its_file(folder):
    plain = torch.load(folder / "flow.pt", weights_only=True)
    key = next(iter(plain))
    torch.save({**plain, f"module.{key}": plain[key] + 1}, folder / "flow.pt")
    with pytest.raises(CheckpointError, match=r"two tensors of \S*flow\.pt map to"):
        read_part(folder, "flow")


def test_whole_numbers_in_the_vocoder_are_refused(folder):
    tensors = torch.load(folder / "hift.pt", weights_only=True)
    torch.save({key: tensor.int() for key, tensor in tensors.items()}, folder / "hift.pt")
    with pytest.raises(CheckpointError, match=r"hift\.pt does not fit Vocoder"):
        load(folder)


def test_old_weight_norm_names_and_the_generator_prefix_fold_to_the_same(checkpoint):
    tensors = read_part(checkpoint, "hift")
    expected = folded_vocoder(tensors)
    for old in (("_g", "_v"), (None, None)):
        renamed = {}
        for key, tensor in tensors.items():
            if old[0]:
                key = key.replace(".parametrizations.weight.original0", ".weight_g")
                key = key.replace(".parametrizations.weight.original1", ".weight_v")
            renamed[f"generator.{key}"] = tensor
        found = folded_vocoder(renamed)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_qwen_folders_own_weights_are_never_read(folder, shared_model):
    decoy = {"model.embed_tokens.weight": torch.zeros_like(shared_model.language.text_embedding.weight)}
    save_file(decoy, folder / "CosyVoice-BlankEN" / "model.safetensors")
    loaded = load(folder).language
    assert torch.equal(loaded.text_embedding.weight, shared_model.language.text_embedding.weight)


def test_vocoder_stays_float32_and_its_pitch_network_float64(checkpoint):
    model = load(checkpoint, torch.bfloat16)
    assert model.language.head.weight.dtype == torch.bfloat16
    assert model.flow.input_embedding.weight.dtype == torch.float32
    assert model.vocoder.conv_pre.weight.dtype == torch.float32
    assert model.vocoder.f0_predictor.classifier.weight.dtype == torch.float64


def test_a_converted_folder_holds_no_pickle_and_is_the_same_model(
    folder, tmp_path, shared_model, monkeypatch
):
    monkeypatch.setattr(weights, "library", lambda: None)  # layers in C have no state to compare
    record = {"flow_embedding": torch.ones(1, 192), "prompt_text": torch.tensor([[568, 3]])}
    record |= {
        "flow_prompt_speech_token": torch.tensor([[1, 2]]),
        "prompt_speech_feat": torch.zeros(1, 4, 80),
    }
    torch.save({"ann": record}, folder / "spk2info.pt")
    target = tmp_path / "converted"
    cosyvoice3.convert(folder, target)
    assert not list(target.rglob("*.pt"))
    assert cosyvoice3.detect(target)
    original, converted = load(folder), load(target)
    assert converted.spec.fingerprint == original.spec.fingerprint
    assert converted.spec.voices == original.spec.voices == ("ann",)
    for part in ("language", "flow", "vocoder"):
        left, right = getattr(original, part).state_dict(), getattr(converted, part).state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    for key, tensor in original.preparing.presets["ann"].items():
        assert torch.equal(tensor, converted.preparing.presets["ann"][key])
    with pytest.raises(CheckpointError, match="not empty"):
        cosyvoice3.convert(folder, target)


def test_a_checkpoint_without_its_tokenizer_is_refused(folder):
    shutil.rmtree(folder / "CosyVoice-BlankEN")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


@pytest.mark.skipif(narrow_form() is None, reason="needs bfloat16 instructions, or AVX2 without AVX512")
def test_narrow_products_of_the_flow_stay_close(checkpoint, shared_model):
    config, rng = shared_model.config, torch.Generator().manual_seed(1)
    narrow = weights.load_flow(
        checkpoint, config, device=torch.device("cpu"), dtype=torch.float32, narrow=True
    )
    layer = narrow.decoder.estimator.transformer_blocks[0].attn.to_q
    assert isinstance(layer, NativeRows if narrow_form() is NarrowForm.BFLOAT16 else FixedRows)
    prompt, tokens = (torch.randint(0, 700, (n,), generator=rng) for n in (10, 20))
    mel, speaker = torch.randn(20, 80, generator=rng) - 4, torch.randn(192, generator=rng)
    noise = torch.randn(80, 60, generator=rng)
    with torch.inference_mode():
        found, expected = (flow(prompt, tokens, mel, speaker, noise) for flow in (narrow, shared_model.flow))
    most = {NarrowForm.BFLOAT16: 0.02, NarrowForm.FIXED: 0.002}[narrow_form()]
    assert 1e-5 < (found - expected).norm() / expected.norm() < most


def test_the_variant_rl_is_spoken_with_by_name_without_renaming(folder, tmp_path):
    """The release's llm.rl.pt: alone in a folder it is the model, beside llm.pt it is asked for."""
    other = torch.load(folder / "llm.pt", weights_only=True)
    other["llm_decoder.weight"] = other["llm_decoder.weight"] + 1
    torch.save(other, folder / "llm.rl.pt")
    plain, rl = registry.load_model(folder, device="cpu"), registry.load_model(f"{folder}:rl", device="cpu")
    assert torch.equal(rl.language.head.weight, plain.language.head.weight + 1)
    assert rl.spec == registry.describe(f"{folder}:rl")
    assert rl.spec.fingerprint != plain.spec.fingerprint
    assert rl.spec.name == f"{folder.name}:rl"
    assert set(registry.numbers_read(f"{folder}:rl")) ^ set(registry.numbers_read(folder)) == {
        "llm.pt", "llm.rl.pt",
    }  # fmt: skip
    registry.convert(f"{folder}:rl", tmp_path / "converted")
    converted = registry.load_model(tmp_path / "converted", device="cpu")
    assert torch.equal(converted.language.head.weight, rl.language.head.weight)
    assert converted.spec.fingerprint == rl.spec.fingerprint
    (folder / "llm.pt").unlink()
    alone = registry.load_model(folder, device="cpu")
    assert torch.equal(alone.language.head.weight, rl.language.head.weight)


def test_a_variant_that_is_not_there_is_told(folder):
    with pytest.raises(RequestError, match=r"no variant 'rl'.*llm\.rl\.pt.*--variant rl"):
        registry.describe(f"{folder}:rl")
    with pytest.raises(RequestError, match=r"no variant 'fast'.*expected none"):
        registry.load_model(f"{folder}:fast", device="cpu")


def test_a_precision_narrows_the_matrices_that_the_estimate_of_memory_counts(checkpoint, monkeypatch):
    config = read_config(checkpoint)
    wide = build(lambda: LanguageModel(config.language))
    counted = within(wide, weights.narrowed(wide), wide.state_dict())
    monkeypatch.setattr(native, "library", lambda: None)
    cpu = torch.device("cpu")
    narrow = weights.load_language(
        checkpoint, config, device=cpu, dtype=torch.float32, plan=stack_plan("int8", 2)
    )
    assert {name for name, m in narrow.named_modules() if isinstance(m, PlainLinear)} == {
        name.removesuffix(".weight") for name in counted
    }


@pytest.fixture
def language(checkpoint):
    """A language model whose layers suit the kernel, as wide as that wants it."""
    config = read_config(checkpoint).language
    sizes = {"width": 128, "layers": 5, "heads": 4, "kv_heads": 2, "head_dim": 32, "intermediate": 192}
    torch.manual_seed(0)
    made = LanguageModel(replace(config, decoder=replace(config.decoder, **sizes))).requires_grad_(False)
    for name, parameter in made.named_parameters():
        parameter.data.uniform_(0.5, 1.5) if "norm" in name else parameter.data.normal_(std=0.1)
    return made


def scores(model):
    x = model.prompt(torch.arange(20), torch.arange(12))
    decoder = model.config.decoder
    cache = KVCache(
        layers=decoder.layers, slots=1, heads=decoder.kv_heads, head_dim=decoder.head_dim, capacity=40
    )
    with torch.inference_mode():
        return model.logits(model(x, cache.rows([0], x.shape[1])))


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_int8_has_twelve_bits_in_the_first_quarter_in_c_as_in_torch(language):
    plan, without = stack_plan("int8", 5), StackPlan(rest=INT8)
    quick, plain, less = (copy.deepcopy(language) for _ in range(3))
    weights.quantize(quick, plan)
    weights.state_plainly(plain, plan)
    weights.state_plainly(less, without)
    kept = {name: m.precision for name, m in plain.named_modules() if isinstance(m, PlainLinear)}
    assert {name for name, precision in kept.items() if precision == INT12} == {
        name for name in kept if name.startswith("decoder.layers.0.")
    }
    assert kept["head"] == kept["decoder.layers.1.mlp.up_proj"] == INT8
    expected = scores(language)
    assert distance(scores(quick), scores(plain)) < 5e-4
    assert distance(scores(quick), expected) < 0.8 * distance(scores(less), expected)


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_weights_that_were_packed_when_int8_had_eight_bits_everywhere_are_packed_again(language, tmp_path):
    path = tmp_path / "kept.safetensors"
    fresh, after, again = (copy.deepcopy(language) for _ in range(3))
    weights.quantize(copy.deepcopy(language), StackPlan(rest=INT8), PackedStore(path))
    weights.quantize(fresh, stack_plan("int8", 5))
    weights.quantize(after, stack_plan("int8", 5), PackedStore(path))
    for name, parameter in again.named_parameters():
        if "proj.weight" in name or "head" in name:
            parameter.data.zero_()  # were they read, the scores would differ
    weights.quantize(again, stack_plan("int8", 5), PackedStore(path))
    assert torch.equal(scores(after), scores(fresh))
    assert torch.equal(scores(again), scores(fresh))


def test_the_estimate_of_memory_gives_the_first_layers_twelve_bits(checkpoint):
    if native.library() is None:
        pytest.skip("without the kernels all stays wide")
    cpu, llm = torch.device("cpu"), read_part(checkpoint, "llm")

    def weighed(precision):
        return cosyvoice3.footprint(checkpoint, device=cpu, dtype=torch.float32, precision=precision).weights

    first = sum(t.numel() for name, t in llm.items() if ".layers.0." in name and t.ndim == 2)
    every = sum(t.numel() for name, t in llm.items() if ".layers." in name and t.ndim == 2)
    every += llm["llm_decoder.weight"].numel()
    scale = 2 + 1 / 12  # of small weights the slabs have more room
    expected = scale * (every * (8 - 4) / 8 + first * 4 / 8 - every * (2 / 32 - 2 / 64))
    assert weighed("int8") - weighed("int4") == pytest.approx(expected, rel=0.02)


@pytest.mark.skipif(native.library() is None, reason="needs a C compiler")
def test_the_flow_narrows_what_the_estimate_of_memory_counts(checkpoint, monkeypatch):
    monkeypatch.setattr("sonant.nn.narrow_products.narrow_form", lambda: NarrowForm.FIXED)
    config, cpu = read_config(checkpoint), torch.device("cpu")
    narrow = weights.load_flow(checkpoint, config, device=cpu, dtype=torch.float32, narrow=True)
    wide = build(lambda: Flow(config.flow))
    counted = within(wide, weights.narrow_parts(wide), read_part(checkpoint, "flow"))
    assert {name for name, m in narrow.named_modules() if isinstance(m, FixedRows)} == {
        name.removesuffix(".weight") for name in counted if name.endswith(".weight")
    }
