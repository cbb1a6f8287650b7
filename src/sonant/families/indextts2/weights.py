"""Tensors of an IndexTTS2 checkpoint -> networks: key rules, ignored keys with reasons, sizes from shapes.

Each `load_*` accepts the release's pickle or a safetensors file with the same names, see `conversion.py`.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonant.checkpoints.files import read_json, read_pickle, read_tensors
from sonant.checkpoints.modules import build, fold_weight_norm, load_strict, own_table, without_training
from sonant.checkpoints.unread import leave_unread
from sonant.errors import CheckpointError
from sonant.families.indextts2.campplus import CampPlus, CampPlusConfig
from sonant.families.indextts2.config import (
    CODEC_NAME,
    VOCABULARY_NAME,
    BigVganConfig,
    IndexConfig,
    W2vBertConfig,
)
from sonant.families.indextts2.dit import Block, Dit
from sonant.families.indextts2.gpt import ConditionSizes, IndexGpt
from sonant.families.indextts2.native_vocoder import use_native
from sonant.families.indextts2.s2mel import S2Mel
from sonant.families.indextts2.semantic_codec import HalfRateCodec, SemanticCodec
from sonant.families.indextts2.vocoder import BigVgan, kaiser_sinc
from sonant.families.indextts2.w2v_bert import SEMANTIC_LAYER, W2vBert
from sonant.native import library
from sonant.nn.narrow_products import narrow_convolution, narrow_products
from sonant.nn.native_conv import NativeConv1d
from sonant.nn.packed import PackedLinear, let_go, pack, packed
from sonant.nn.precision import StackPlan, plain_linear
from sonant.nn.quantized import PackedStore, is_bfloat16, quantize_linear

Device = torch.device | str
BEAMS = 3
"""Rows of a step as the original speaks by default."""
FLOW_ROWS = 512
"""Frames of a typical run of the flow, both halves of the guidance."""

GPT_WRAPPER = "model"
"""Of `gpt.pth` and `codec.pth` as training saves them."""
GPT_RULES = (
    (r"^conditioning_encoder\.embed\.pos_enc\.pe$", "speaker.conditioner.conformer.position_table"),
    (r"^emo_conditioning_encoder\.embed\.pos_enc\.pe$", "emotion.conformer.position_table"),
    (r"^conditioning_encoder\.", "speaker.conditioner.conformer."),
    (r"^emo_conditioning_encoder\.", "emotion.conformer."),
    (r"^perceiver_encoder\.", "speaker.conditioner.perceiver."),
    (r"^emo_perceiver_encoder\.", "emotion.perceiver."),
    (r"\.perceiver\.layers\.(\d+)\.0\.", r".perceiver.layers.\1.attention."),
    (r"\.perceiver\.layers\.(\d+)\.1\.0\.", r".perceiver.layers.\1.feed_forward.up."),
    (r"\.perceiver\.layers\.(\d+)\.1\.2\.", r".perceiver.layers.\1.feed_forward.down."),
    (r"\.perceiver\.norm\.gamma$", ".perceiver.gamma"),
    (r"^speed_emb\.", "speaker.speeds."),
    (r"^spk_emb_proj\.", "speaker.projection."),
    (r"^lang_embedding\.", "languages."),
    (r"^gpt\.h\.", "h."),
    (r"^gpt\.ln_f\.", "ln_f."),
    (r"^text_pos_embedding\.emb\.", "text_positions."),
    (r"^mel_pos_embedding\.emb\.", "code_positions."),
    (r"^mel_embedding\.", "code_embedding."),
    (r"^mel_head\.", "code_head."),
)
GPT_IGNORED = (
    r"^text_head\.",  # predicts text in training
    r"^gpt\.wte\.",  # replaced by the code embedding; some exports keep it
    r"^gpt\.h\.\d+\.attn\.(bias|masked_bias)$",  # causal mask buffers of old transformers
    r"^inference_model\.",  # the same weights again, left by saving after generation was set up
)
S2MEL_RULES = (
    (r"^cfm\.estimator\.", "estimator."),
    (r"\.conv\.conv\.", "."),  # a convolution wrapped twice
    (r"^estimator\.(t_embedder2?\.mlp\.\d)\.", r"estimator.\1."),
)
S2MEL_IGNORED = (
    r"\.input_pos$",  # 0, 1, 2, ...
    r"\.x_embedder\.",  # of variants without the merged input
    r"\.cond_embedder\.",  # of variants with discrete content
    r"\.content_mask_embedder\.",  # training
    r"\.t_embedder2?\.freqs$",  # computed
    r"\.freqs_cis$",  # computed
    r"\.causal_mask$",  # computed
    r"^length_regulator\.embedding\.",  # of variants with discrete content
    r"^length_regulator\.mask_token$",  # training
    r"^length_regulator\.(f0_|vq\.)",  # of variants with pitch or quantised content
)
CODEC_RULES = ((r"^quantizer\.quantizers\.0\.", "quantiser."),)
CODEC_IGNORED = (r"^decoder\.",)  # IndexTTS2: codes are never turned back into w2v-bert features
HALF_RATE_IGNORED = (r"^encoder\.", r"^down\.")  # IndexTTS-2.5: features are never turned into codes
W2V_RULES = ((r"^wav2vec2_bert\.", ""), (r"^encoder\.layers\.", "layers."))
BIGVGAN_RULES = (
    (r"^ups\.(\d+)\.0\.", r"ups.\1."),
    (r"^(activation_post|.*\.activations\.\d+)\.upsample\.filter$", r"\1.up_filter"),
    (r"^(activation_post|.*\.activations\.\d+)\.downsample\.lowpass\.filter$", r"\1.down_filter"),
)


def read_any(path: Path) -> Any:
    """Content of a release file: tensors of a safetensors file, or a pickle of plain tensors."""
    return read_tensors(path) if path.suffix == ".safetensors" else read_pickle(path)


def flatten(tree: Mapping[str, Any], where: str = "the checkpoint") -> dict[str, Tensor]:
    """Nested dictionaries of tensors as one, keys joined with dots, without prefixes of training.

    Two tensors that are then of one name raise CheckpointError.
    """
    return without_training(_leaves(tree), where)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in tree.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")


def _table(path: Path, data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}; expected named tensors. Use the official file."
        )
    return data


def _unwrapped(path: Path, wrapper: str) -> dict[str, Tensor]:
    """The file's tensors, plain or inside {wrapper: ...}, without what lies beside it (optimizer states)."""
    where = str(path)
    tensors = flatten(own_table(_table(path, read_any(path)), wrapper, where=where), where)
    within = {key: t for key, t in tensors.items() if key.startswith(f"{wrapper}.")}
    if not within:
        return tensors
    leave_unread(where, {key: t for key, t in tensors.items() if key not in within})
    return {key.removeprefix(f"{wrapper}."): t for key, t in within.items()}


def gpt_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of `gpt.pth`."""
    return _unwrapped(path, GPT_WRAPPER)


def s2mel_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of `s2mel.pth`, weight norm unfolded."""
    return _unwrapped(path, "net")


def codec_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of the semantic codec, weight norm unfolded."""
    return _unwrapped(path, GPT_WRAPPER)


def bigvgan_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of the vocoder, weight norm unfolded."""
    return _unwrapped(path, "generator")


def campplus_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of CAM++."""
    return _unwrapped(path, GPT_WRAPPER)


@contextmanager
def _sized(path: Path, advice: str) -> Iterator[None]:
    """Sizes are taken from the tensors of a file, which may be another's."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path} lacks {error}; {advice}") from error
    except (IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"the tensors of {path} have shapes of no such network; {advice}") from error


def build_gpt(path: Path, tensors: Mapping[str, Tensor], config: IndexConfig, features: int) -> IndexGpt:
    """The autoregressive half on `meta`, sized by its tensors; `features` is w2v-bert's width."""
    advice = (
        "it is not the gpt.pth of IndexTTS2 or IndexTTS-2.5 (IndexTTS 1.x has another network). Use the "
        "checkpoint of one release."
    )
    with _sized(path, advice):
        sizes = ConditionSizes.from_tensors(tensors, features)
    if bool(sizes.languages) != config.is_multilingual:
        found, other = ("IndexTTS-2.5", "IndexTTS2") if sizes.languages else ("IndexTTS2", "IndexTTS-2.5")
        raise CheckpointError(
            f"{path} is the network of {found}, and the other files of the folder are {other}'s. "
            f"IndexTTS-2.5 has {CODEC_NAME} and {VOCABULARY_NAME} beside it; use the files of one release."
        )
    return build(lambda: IndexGpt(config.gpt, sizes))


def build_s2mel(path: Path, tensors: Mapping[str, Tensor], config: IndexConfig) -> S2Mel:
    """The mel half on `meta`, sized by its tensors."""
    widths: list[int] = []
    with _sized(path, f"it is not the s2mel.pth of {config.name}. Use the checkpoint of one release."):
        if not config.is_multilingual:
            linears = [tensors[f"gpt_layer.{index}.weight"].shape for index in range(3)]
            widths = [linears[0][1], *(shape[0] for shape in linears)]
        intermediate = tensors["cfm.estimator.transformer.layers.0.feed_forward.w1.weight"].shape[0]
    return build(lambda: S2Mel(config.s2mel, latent_widths=widths, intermediate=intermediate))


def build_codec(config: IndexConfig) -> SemanticCodec | HalfRateCodec:
    """The codec of the release on `meta`."""
    return build(lambda: (HalfRateCodec if config.is_multilingual else SemanticCodec)(config.codec))


def codec_ignored(config: IndexConfig) -> tuple[str, ...]:
    """Keys of the codec that inference never reads."""
    return HALF_RATE_IGNORED if config.is_multilingual else CODEC_IGNORED


def s2mel_ignored(config: IndexConfig) -> tuple[str, ...]:
    """Keys of `s2mel.pth` that inference never reads."""
    unread: tuple[str, ...] = S2MEL_IGNORED
    if not config.s2mel.dit.uvit_skip_connection:
        unread = (*unread, r"\.skip_in_linear\.")
    return (*unread, r"^gpt_layer\.") if config.is_multilingual else unread  # 2.5 has no latents


def w2v_ignored(config: W2vBertConfig, layers: int = SEMANTIC_LAYER) -> tuple[str, ...]:
    """Keys of w2v-bert behind the layer that is used, and of training."""
    late = [rf"^(wav2vec2_bert\.)?encoder\.layers\.{i}\." for i in range(layers, config.num_hidden_layers)]
    return (
        *late,
        r"masked_spec_embed$",  # training
        r"^(wav2vec2_bert\.)?adapter\.",  # behind the encoder
    )


def build_campplus(path: Path, tensors: Mapping[str, Tensor]) -> CampPlus:
    """CAM++ on `meta`, sized by its tensors."""
    with _sized(path, "it is not CAM++. Use campplus_cn_common.bin of funasr/campplus."):
        config = CampPlusConfig.from_tensors(tensors)
    return build(lambda: CampPlus(config))


def load_gpt(
    path: Path,
    config: IndexConfig,
    features: int,
    *,
    device: Device,
    dtype: torch.dtype,
    plan: StackPlan | None = None,
    store: PackedStore | None = None,
) -> IndexGpt:
    """The autoregressive half in `dtype`; `features` is w2v-bert's width.

    With a plan the layers of the blocks and the head have narrow weights.
    """
    tensors = gpt_tensors(path)
    network = build_gpt(path, tensors, config, features)
    for name, tensor in tensors.items():
        if re.match(r"^gpt\.h\.\d+\.(attn|mlp)\.c_\w+\.weight$", name) and tensor.ndim == 2:  # [in, out]
            # A view: no copy of 1.9 GB, and for a few rows a third faster than the turned weights.
            tensors[name] = tensor.t()
    load_strict(
        network, tensors, rules=GPT_RULES, ignored=GPT_IGNORED, dtype=dtype, device=device, where=str(path)
    )
    if plan is not None:
        quantize(network, plan, store)
        network.join_steps()
    # What keeps its float32 weights: all of it, or a lossless precision of weights that are no bfloat16.
    pack(network.h, rows=BEAMS)
    network.code_head = packed(network.code_head, rows=BEAMS)
    let_go(network)
    return network


def narrowed(network: IndexGpt) -> tuple[nn.Module, ...]:
    """Of the GPT, what a precision narrows."""
    return network.h, network.code_head


def narrow_parts(network: Dit) -> Iterator[nn.Module]:
    """Of the velocity network, what a precision with losses multiplies in the processor's narrow form."""
    yield from (network.wavenet.in_layers, network.wavenet.res_skip_layers)
    for block in network.transformer.layers:
        assert isinstance(block, Block)
        yield from (block.attention, block.feed_forward)


def quantize(network: IndexGpt, plan: StackPlan, store: PackedStore | None = None) -> None:
    """Narrow weights for what a step reads; all of it stays as it is where not even the head is bfloat16."""
    head = network.code_head
    assert isinstance(head, nn.Linear)
    if plan.is_lossless and not is_bfloat16(head.weight):
        return
    for name in _step_layers(network):
        layer, stored = network.get_submodule(name), f"gpt.{name}"
        network.set_submodule(name, quantize_linear(layer, plan.named(name), name=stored, store=store))
    if store is not None:
        store.save()


def state_plainly(network: IndexGpt, plan: StackPlan) -> None:
    """The narrow weights of a plan in torch, where every stage can be seen; changed in place."""
    for name in _step_layers(network):
        network.set_submodule(name, plain_linear(network.get_submodule(name), plan.named(name)))


def _step_layers(network: IndexGpt) -> list[str]:
    """Names of the linear layers in what a precision narrows."""
    narrow = {id(part) for top in narrowed(network) for part in top.modules()}
    return [
        name
        for name, part in network.named_modules()
        if id(part) in narrow and isinstance(part, nn.Linear | PackedLinear)
    ]


def load_s2mel(path: Path, config: IndexConfig, *, device: Device, narrow: bool = False) -> S2Mel:
    """The mel half, float32; `narrow`: products of the velocity network in the processor's narrow form."""
    tensors = fold_weight_norm(s2mel_tensors(path))
    network = build_s2mel(path, tensors, config)
    load_strict(
        network,
        tensors,
        rules=S2MEL_RULES,
        ignored=s2mel_ignored(config),
        dtype=torch.float32,
        device=device,
        where=str(path),
    )
    found = library() if torch.device(device).type == "cpu" else None
    if found is not None:
        _quicken(network.estimator, found, narrow=narrow)
    pack(network.estimator, rows=FLOW_ROWS)
    let_go(network)
    return network


def _quicken(network: Dit, found: ctypes.CDLL, *, narrow: bool) -> None:
    """The WaveNet's convolutions in C; `narrow`: in the narrow form, like the transformer's products."""
    for layers in (network.wavenet.in_layers, network.wavenet.res_skip_layers):
        for index, layer in enumerate(layers):
            assert isinstance(layer, nn.Conv1d)
            layers[index] = narrow_convolution(found, layer) if narrow else NativeConv1d(found, layer)
    if narrow:
        narrow_products(*narrow_parts(network))


def load_codec(path: Path, config: IndexConfig, *, device: Device) -> SemanticCodec | HalfRateCodec:
    """The semantic codec as far as the release needs it, float32."""
    network = build_codec(config)
    load_strict(
        network,
        fold_weight_norm(codec_tensors(path)),
        rules=CODEC_RULES,
        ignored=codec_ignored(config),
        dtype=torch.float32,
        device=device,
        where=str(path),
    )
    return network


def load_w2v_bert(
    folder: Path, *, device: Device, layers: int = SEMANTIC_LAYER
) -> tuple[W2vBert, W2vBertConfig]:
    """w2v-bert up to the layer that is used, float32, and its config; later layers are not read."""
    config = W2vBertConfig.read(read_json(folder / "config.json"))
    if config.num_hidden_layers < layers:
        raise CheckpointError(
            f"{folder} is a w2v-bert of {config.num_hidden_layers} layers; IndexTTS2 needs {layers}. "
            "Use facebook/w2v-bert-2.0."
        )
    network: W2vBert = build(lambda: W2vBert(config, layers))
    file = folder / "model.safetensors"
    load_strict(
        network,
        read_tensors(file),
        rules=W2V_RULES,
        ignored=w2v_ignored(config, layers),
        dtype=torch.float32,
        device=device,
        where=str(file),
    )
    return network, config


def load_campplus(path: Path, *, device: Device) -> CampPlus:
    """CAM++, float32."""
    tensors = campplus_tensors(path)
    network = build_campplus(path, tensors)
    for name in network.state_dict():
        if name.endswith(".num_batches_tracked"):  # only training reads it; some exports drop it
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
    load_strict(network, tensors, dtype=torch.float32, device=device, where=str(path))
    return network


def load_bigvgan(path: Path, config_file: Path, *, device: Device) -> BigVgan:
    """The vocoder, float32, from weight-normed pairs or merged weights, with or without its filters."""
    config = BigVganConfig.read(read_json(config_file))
    network: BigVgan = build(lambda: BigVgan(config))
    tensors = fold_weight_norm(bigvgan_tensors(path))
    rule = re.compile(r"^(.*)\.act\.alpha$")
    for name in [key for key in tensors if rule.match(key)]:
        stem = name[: -len(".act.alpha")]
        for key in ("upsample.filter", "downsample.lowpass.filter"):
            tensors.setdefault(f"{stem}.{key}", kaiser_sinc())
    load_strict(network, tensors, rules=BIGVGAN_RULES, dtype=torch.float32, device=device, where=str(path))
    found = library() if torch.device(device).type == "cpu" else None
    if found is not None:
        use_native(network, found)
    return network


def load_tensor(path: Path, name: str) -> Tensor:
    """The one matrix of a `feat*.pt` file, float32."""
    data = read_any(path)
    if isinstance(data, Mapping):
        data = data.get(name, next(iter(data.values()), None))
    if not isinstance(data, Tensor) or data.ndim != 2:
        raise CheckpointError(f"{path} holds no matrix. Use the official file.")
    return data.float()


def load_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [H] of w2v-bert's features."""
    data = _table(path, read_any(path))
    try:
        return data["mean"].float(), torch.sqrt(data["var"].float())
    except KeyError as error:
        raise CheckpointError(
            f"{path} lacks {error}; expected mean and var. Use the official file."
        ) from error
