"""Official tensor names -> this package's modules, and loading them strictly."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sonant.checkpoints.files import fingerprint, read_json, read_tensors, read_weights, weight_files
from sonant.checkpoints.modules import build, load_strict, used
from sonant.families.qwen3_tts.codec import CodecDecoder
from sonant.families.qwen3_tts.codec_encoder import CodecEncoder
from sonant.families.qwen3_tts.config import (
    CODEC_FOLDER,
    CODEC_MODEL_TYPE,
    CodecConfig,
    ModelConfig,
    read_codec_config,
    read_model_config,
)
from sonant.families.qwen3_tts.plans import PrecisionPlan, quantize
from sonant.families.qwen3_tts.talker import Network
from sonant.nn.channel_last import arrange
from sonant.nn.mapped import give_back
from sonant.nn.quantized import PackedStore

WEIGHTS = "model.safetensors"

MODEL_RULES = (
    (r"^talker\.code_predictor\.model\.(layers|norm)\b", r"predictor.decoder.\1"),
    (r"^talker\.code_predictor\.(model\.)?", "predictor."),
    (r"^talker\.model\.(layers|norm)\b", r"talker.decoder.\1"),
    (r"^talker\.model\.", "talker."),
)

CODEC_RULES = (
    # decoder
    (r"^decoder\.quantizer\.rvq_first\.vq\.layers", "decoder.quantizer.semantic.layers"),
    (r"^decoder\.quantizer\.rvq_rest\.vq\.layers", "decoder.quantizer.acoustic.layers"),
    (r"^decoder\.quantizer\.rvq_first\.output_proj", "decoder.quantizer.semantic_out"),
    (r"^decoder\.quantizer\.rvq_rest\.output_proj", "decoder.quantizer.acoustic_out"),
    (r"\._codebook\.embedding_sum$", ".sums"),
    (r"\._codebook\.cluster_usage$", ".usage"),
    (r"^decoder\.pre_transformer\.(layers|norm)\b", r"decoder.pre_transformer.stack.\1"),
    (r"^(decoder\..*)\.conv\.(weight|bias)$", r"\1.\2"),
    # encoder
    (r"^encoder\.quantizer\.semantic_residual_vector_quantizer\.input_proj", "encoder.semantic_in"),
    (r"^encoder\.quantizer\.acoustic_residual_vector_quantizer\.input_proj", "encoder.acoustic_in"),
    (r"^encoder\.quantizer\.(semantic|acoustic)_residual_vector_quantizer\.layers", r"encoder.\1.layers"),
    (r"\.codebook\.embed_sum$", ".sums"),
    (r"\.codebook\.cluster_usage$", ".usage"),
    (r"^encoder\.encoder_transformer\.layers\.(\d+)\.(?:self_attn|mlp)\.", r"encoder.layers.\1."),
    (r"^encoder\.encoder_transformer\.layers\.", "encoder.layers."),
    (r"^encoder\.downsample\.conv\.", "encoder.downsample."),
)

CODEC_IGNORED = (
    # Only training and encoding project into the decoder's quantizer, or out of the encoder's.
    r"^decoder\.quantizer\.rvq_(first|rest)\.input_proj\.",
    r"^encoder\.quantizer\.\w+_residual_vector_quantizer\.output_proj\.",
    r"\.codebook\.initialized$",  # a training flag
)


def _convolution_rules(blocks: int) -> tuple[tuple[str, str], ...]:
    """Names of the encoder's flat list: conv, then residual, ELU and conv for each ratio, ELU, conv."""
    rules = [
        (r"^encoder\.encoder\.layers\.0\.conv\.", "encoder.convolutions.first."),
        (
            rf"^encoder\.encoder\.layers\.{3 * blocks + 2}\.conv\.",
            "encoder.convolutions.last.",
        ),
    ]
    for index in range(blocks):
        place = 3 * index + 1
        residual = f"encoder.convolutions.residuals.{index}."
        rules += [
            (rf"^encoder\.encoder\.layers\.{place}\.block\.1\.conv\.", residual + "first."),
            (rf"^encoder\.encoder\.layers\.{place}\.block\.3\.conv\.", residual + "second."),
            (rf"^encoder\.encoder\.layers\.{place + 2}\.conv\.", f"encoder.convolutions.strided.{index}."),
        ]
    return tuple(rules)


def codec_rules(config: CodecConfig) -> tuple[tuple[str, str], ...]:
    """All rules for the speech tokenizer of this config."""
    return (*_convolution_rules(len(config.encoder.upsampling_ratios)), *CODEC_RULES)


class Codec(nn.Module):
    """Both halves of the speech tokenizer, float32 always (float64 for tests)."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = CodecDecoder(config.decoder)
        self.encoder = CodecEncoder(config.encoder)


def network_tensors(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """What `load_network` reads of the folder's weights, under the names in the files."""
    network: Network = build(lambda: Network(config))
    return used(network, read_weights(folder, WEIGHTS), rules=MODEL_RULES, where=str(folder / WEIGHTS))


def codec_tensors(folder: Path, config: CodecConfig) -> dict[str, Tensor]:
    """What `load_codec` reads of the folder's weights, under the names in the files."""
    return used(
        build(lambda: Codec(config)),
        read_weights(folder, WEIGHTS),
        rules=codec_rules(config),
        ignored=CODEC_IGNORED,
        where=str(folder / WEIGHTS),
    )


def tensors_read(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Of each weight file of a model's folder, or of a speech tokenizer's, what inference reads."""
    if read_json(folder / "config.json").get("model_type") == CODEC_MODEL_TYPE:
        return _by_file(folder, "", codec_tensors(folder, read_codec_config(folder)))
    codec = folder / CODEC_FOLDER
    return {
        **_by_file(folder, "", network_tensors(folder, read_model_config(folder))),
        **_by_file(codec, f"{CODEC_FOLDER}/", codec_tensors(codec, read_codec_config(codec))),
    }


def _by_file(folder: Path, prefix: str, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {
        prefix + path.name: {key: tensors[key] for key in read_tensors(path) if key in tensors}
        for path in weight_files(folder, WEIGHTS)
    }


def dtype_of(name: str, dtype: torch.dtype) -> torch.dtype:
    """What a parameter is kept in, the text table aside; the speaker encoder is never narrow."""
    return torch.float32 if name.startswith("speaker_encoder.") and dtype.itemsize < 4 else dtype


def load_network(
    folder: Path,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    plan: PrecisionPlan | None = None,
    store: PackedStore | None = None,
) -> Network:
    """Talker, code predictor and speaker encoder with the weights of `folder`.

    The speaker encoder is float32 whatever `dtype`; the text table, by far the largest tensor, stays in
    the file's dtype when that is the narrower one. With a `plan` the layers of talker and code predictor
    and their heads are quantised matrix by matrix, so the wide weights are never all in memory.
    """
    network: Network = build(lambda: Network(config))
    tensors = read_weights(folder, WEIGHTS)
    load_strict(network, tensors, rules=MODEL_RULES, device=device, where=str(folder / WEIGHTS))
    del tensors
    if plan is not None:
        quantize(network, plan, store)
    text = network.talker.text_embedding.weight
    keeps_text = text.dtype.itemsize < dtype.itemsize
    for name, parameter in network.named_parameters():
        if keeps_text and parameter is text:
            continue
        stored = parameter.data
        parameter.data = stored.to(dtype_of(name, dtype))
        if parameter.data is not stored:
            give_back(stored)
    return network


def identity(folder: Path) -> str:
    """The fingerprint of talker and config, which decide what a precision packs."""
    return fingerprint(folder, ["config.json", *weight_names(folder)])


def weight_names(folder: Path) -> list[str]:
    """Names of the folder's weight files, as a fingerprint takes them."""
    return [path.name for path in weight_files(folder, WEIGHTS)]


def has_bfloat16() -> bool:
    """True where the processor multiplies bfloat16 matrices itself."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def load_codec(
    folder: Path, config: CodecConfig, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Codec:
    """The speech tokenizer of `folder`."""
    codec: Codec = build(lambda: Codec(config))
    load_strict(
        codec,
        read_weights(folder, WEIGHTS),
        rules=codec_rules(config),
        ignored=CODEC_IGNORED,
        dtype=dtype,
        device=device,
        where=str(folder / WEIGHTS),
    )
    arrange(codec)
    return codec
