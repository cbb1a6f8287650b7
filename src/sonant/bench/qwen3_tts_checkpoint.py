"""A Qwen3-TTS checkpoint of the true shapes in the official layout, with random weights.

Names and shapes follow the released files: 402 tensors for the 0.6B CustomVoice, 478 for its Base, 404
and 480 for the 1.7B, 496 for the speech tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.bench.random_weights import Noise, spelled_vocabulary

Shapes = Iterator[tuple[str, tuple[int, ...]]]

SIZES = {"0.6b": ("0b6", 1024, 3072), "1.7b": ("1b7", 2048, 6144)}
KINDS = ("base", "custom_voice", "voice_design")
NAMES = {
    f"qwen3-tts-{size}{kind and '-' + kind.replace('_', '')}": {"size": size, "kind": kind or "custom_voice"}
    for size in SIZES
    for kind in ("", *KINDS)
}
RIVAL = "qwen-tts"

LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069,
}  # fmt: skip
SPEAKERS = {
    "serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "aiden": 2861, "ono_anna": 2873,
    "sohee": 2864, "eric": 2875, "dylan": 2878,
}  # fmt: skip
_MARKERS = (
    "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end "
    "vision_start vision_end vision_pad image_pad video_pad"
)
ADDED = (
    *(f"<|{name}|>" for name in _MARKERS.split()),
    *("<tool_call>", "</tool_call>"),
    *(f"<|fim_{name}|>" for name in ("prefix", "middle", "suffix", "pad")),
    *("<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>", "<|audio_start|>", "<|audio_end|>"),
    *("<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>", "<|audio_pad|>"),
)
"""Tokens after the ordinary ones, in the order of their ids."""
ORDINARY_IDS = 151_643


def _tensor(name: str, shape: tuple[int, ...], noise: Noise) -> Tensor:
    if name.endswith((".initialized", "cluster_usage")):
        return torch.ones(shape)
    if name.endswith((".scale", "gamma")):
        return torch.full(shape, 0.01)
    if len(shape) == 1:  # norms; biases and Snake's logarithms
        return torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
    return noise.tensor(shape)


def _stack(prefix: str, width: int, layers: int, inner: int, kv: int, middle: int, head: int) -> Shapes:
    for index in range(layers):
        p = f"{prefix}.layers.{index}"
        yield f"{p}.self_attn.q_proj.weight", (inner, width)
        yield f"{p}.self_attn.k_proj.weight", (kv, width)
        yield f"{p}.self_attn.v_proj.weight", (kv, width)
        yield f"{p}.self_attn.o_proj.weight", (width, inner)
        if head:
            yield f"{p}.self_attn.q_norm.weight", (head,)
            yield f"{p}.self_attn.k_norm.weight", (head,)
        yield f"{p}.mlp.gate_proj.weight", (middle, width)
        yield f"{p}.mlp.up_proj.weight", (middle, width)
        yield f"{p}.mlp.down_proj.weight", (width, middle)
        yield f"{p}.input_layernorm.weight", (width,)
        yield f"{p}.post_attention_layernorm.weight", (width,)
    yield f"{prefix}.norm.weight", (width,)


def _conv(name: str, outer: int, inner: int, kernel: int) -> Shapes:
    yield f"{name}.weight", (outer, inner, kernel)
    yield f"{name}.bias", (outer,)


def model_shapes(size: str, kind: str) -> Shapes:
    """Names and shapes of `model.safetensors`."""
    _, width, middle = SIZES[size]
    yield "talker.model.text_embedding.weight", (151_936, 2048)
    yield "talker.model.codec_embedding.weight", (3072, width)
    yield "talker.text_projection.linear_fc1.weight", (2048, 2048)
    yield "talker.text_projection.linear_fc1.bias", (2048,)
    yield "talker.text_projection.linear_fc2.weight", (width, 2048)
    yield "talker.text_projection.linear_fc2.bias", (width,)
    yield from _stack("talker.model", width, 28, 2048, 1024, middle, 128)
    yield "talker.codec_head.weight", (3072, width)
    for group in range(15):
        yield f"talker.code_predictor.model.codec_embedding.{group}.weight", (2048, width)
        yield f"talker.code_predictor.lm_head.{group}.weight", (2048, 1024)
    yield from _stack("talker.code_predictor.model", 1024, 5, 2048, 1024, 3072, 128)
    if width != 1024:
        yield "talker.code_predictor.small_to_mtp_projection.weight", (1024, width)
        yield "talker.code_predictor.small_to_mtp_projection.bias", (1024,)
    if kind != "base":
        return
    yield from _conv("speaker_encoder.blocks.0.conv", 512, 128, 5)
    for block in (1, 2, 3):
        p = f"speaker_encoder.blocks.{block}"
        yield from _conv(f"{p}.tdnn1.conv", 512, 512, 1)
        yield from _conv(f"{p}.tdnn2.conv", 512, 512, 1)
        for part in range(7):
            yield from _conv(f"{p}.res2net_block.blocks.{part}.conv", 64, 64, 3)
        yield from _conv(f"{p}.se_block.conv1", 128, 512, 1)
        yield from _conv(f"{p}.se_block.conv2", 512, 128, 1)
    yield from _conv("speaker_encoder.mfa.conv", 1536, 1536, 1)
    yield from _conv("speaker_encoder.asp.tdnn.conv", 128, 4608, 1)
    yield from _conv("speaker_encoder.asp.conv", 1536, 128, 1)
    yield from _conv("speaker_encoder.fc", width, 3072, 1)


def codec_shapes() -> Shapes:
    """Names and shapes of `speech_tokenizer/model.safetensors`."""
    for place, layers in (("rvq_first", 1), ("rvq_rest", 15)):
        p = f"decoder.quantizer.{place}"
        for layer in range(layers):
            yield f"{p}.vq.layers.{layer}._codebook.embedding_sum", (2048, 256)
            yield f"{p}.vq.layers.{layer}._codebook.cluster_usage", (2048,)
        yield f"{p}.input_proj.weight", (256, 512, 1)
        yield f"{p}.output_proj.weight", (512, 256, 1)
    yield from _conv("decoder.pre_conv.conv", 1024, 512, 3)
    p = "decoder.pre_transformer"
    yield f"{p}.input_proj.weight", (512, 1024)
    yield f"{p}.input_proj.bias", (512,)
    yield f"{p}.output_proj.weight", (1024, 512)
    yield f"{p}.output_proj.bias", (1024,)
    yield from _stack(p, 512, 8, 1024, 1024, 1024, 0)
    for layer in range(8):
        yield f"{p}.layers.{layer}.self_attn_layer_scale.scale", (512,)
        yield f"{p}.layers.{layer}.mlp_layer_scale.scale", (512,)
    for stage in range(2):
        p = f"decoder.upsample.{stage}"
        yield from _conv(f"{p}.0.conv", 1024, 1024, 2)
        yield f"{p}.1.gamma", (1024,)
        yield from _conv(f"{p}.1.dwconv.conv", 1024, 1, 7)
        yield f"{p}.1.norm.weight", (1024,)
        yield f"{p}.1.norm.bias", (1024,)
        yield f"{p}.1.pwconv1.weight", (4096, 1024)
        yield f"{p}.1.pwconv1.bias", (4096,)
        yield f"{p}.1.pwconv2.weight", (1024, 4096)
        yield f"{p}.1.pwconv2.bias", (1024,)
    yield from _conv("decoder.decoder.0.conv", 1536, 1024, 7)
    for block, rate in enumerate((8, 5, 4, 3), 1):
        inner, outer = 1536 >> (block - 1), 1536 >> block
        p = f"decoder.decoder.{block}.block"
        yield f"{p}.0.alpha", (inner,)
        yield f"{p}.0.beta", (inner,)
        yield f"{p}.1.conv.weight", (inner, outer, 2 * rate)
        yield f"{p}.1.conv.bias", (outer,)
        for unit in (2, 3, 4):
            for act in ("act1", "act2"):
                yield f"{p}.{unit}.{act}.alpha", (outer,)
                yield f"{p}.{unit}.{act}.beta", (outer,)
            yield from _conv(f"{p}.{unit}.conv1.conv", outer, outer, 7)
            yield from _conv(f"{p}.{unit}.conv2.conv", outer, outer, 1)
    yield "decoder.decoder.5.alpha", (96,)
    yield "decoder.decoder.5.beta", (96,)
    yield from _conv("decoder.decoder.6.conv", 1, 96, 7)
    yield from _encoder_shapes()


def _encoder_shapes() -> Shapes:
    yield from _conv("encoder.encoder.layers.0.conv", 64, 1, 7)
    for stage, rate in enumerate((4, 5, 6, 8)):
        width, place = 64 << stage, 3 * stage + 1
        yield from _conv(f"encoder.encoder.layers.{place}.block.1.conv", width // 2, width, 3)
        yield from _conv(f"encoder.encoder.layers.{place}.block.3.conv", width, width // 2, 1)
        yield from _conv(f"encoder.encoder.layers.{place + 2}.conv", 2 * width, width, 2 * rate)
    yield from _conv("encoder.encoder.layers.14.conv", 512, 1024, 3)
    for layer in range(8):
        p = f"encoder.encoder_transformer.layers.{layer}"
        for projection in "qkvo":
            yield f"{p}.self_attn.{projection}_proj.weight", (512, 512)
        yield f"{p}.mlp.fc1.weight", (2048, 512)
        yield f"{p}.mlp.fc2.weight", (512, 2048)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{p}.{norm}.weight", (512,)
            yield f"{p}.{norm}.bias", (512,)
        yield f"{p}.self_attn_layer_scale.scale", (512,)
        yield f"{p}.mlp_layer_scale.scale", (512,)
    yield "encoder.downsample.conv.weight", (512, 512, 4)
    for part, layers in (("semantic", 1), ("acoustic", 31)):
        p = f"encoder.quantizer.{part}_residual_vector_quantizer"
        yield f"{p}.input_proj.weight", (256, 512, 1)
        yield f"{p}.output_proj.weight", (512, 256, 1)
        for layer in range(layers):
            yield f"{p}.layers.{layer}.codebook.embed_sum", (2048, 256)
            yield f"{p}.layers.{layer}.codebook.cluster_usage", (2048,)
            yield f"{p}.layers.{layer}.codebook.initialized", (1,)


def _tokenizer(folder: Path) -> int:
    """A vocabulary of the true size whose merges spell the chat roles; the id of "assistant"."""
    vocabulary, merges = spelled_vocabulary(("assistant", "user"), ORDINARY_IDS)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {
        str(ORDINARY_IDS + index): {"content": token, **flags, "special": token.startswith(("<|", "<tts"))}
        for index, token in enumerate(ADDED)
    }
    _write(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": added,
            "additional_special_tokens": [t for t in ADDED[1:] if t.startswith(("<|", "<tts"))],
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "errors": "replace",
            "model_max_length": 131_072,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    return vocabulary["assistant"]


def _write(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def _decoder_keys(width: int, middle: int, layers: int) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "attention_dropout": 0,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": middle,
        "num_attention_heads": 16,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
    }


def _config(size: str, kind: str, assistant: int) -> dict[str, Any]:
    tag, width, middle = SIZES[size]
    ids = {token: ORDINARY_IDS + index for index, token in enumerate(ADDED)}
    predictor = {
        **_decoder_keys(1024, 3072, 5),
        "model_type": "qwen3_tts_talker_code_predictor",
        "layer_types": ["full_attention"] * 5,
        "max_position_embeddings": 65_536,
        "max_window_layers": 28,
        "num_code_groups": 16,
        "rope_scaling": None,
        "vocab_size": 2048,
    }
    talker = {
        **_decoder_keys(width, middle, 28),
        "model_type": "qwen3_tts_talker",
        "code_predictor_config": predictor,
        "codec_pad_id": 2148,
        "codec_bos_id": 2149,
        "codec_eos_token_id": 2150,
        "codec_think_id": 2154,
        "codec_nothink_id": 2155,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
        "codec_language_id": LANGUAGES,
        "max_position_embeddings": 32_768,
        "num_code_groups": 16,
        "position_id_per_seconds": 13,
        "rope_scaling": {
            "interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
            "type": "default",
        },
        "spk_id": SPEAKERS if kind == "custom_voice" else {},
        "spk_is_dialect": dict.fromkeys(SPEAKERS, False) if kind == "custom_voice" else {},
        "text_hidden_size": 2048,
        "text_vocab_size": 151_936,
        "vocab_size": 3072,
    }
    config: dict[str, Any] = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": tag,
        "tts_model_type": kind,
        "assistant_token_id": assistant,
        "im_start_token_id": ids["<|im_start|>"],
        "im_end_token_id": ids["<|im_end|>"],
        "tts_pad_token_id": ids["<tts_pad>"],
        "tts_bos_token_id": ids["<tts_text_bos>"],
        "tts_eos_token_id": ids["<tts_text_eod>"],
        "talker_config": talker,
        "transformers_version": "4.57.3",
    }
    if kind == "base":
        config["speaker_encoder_config"] = {
            "enc_dim": width,
            "sample_rate": 24_000,
            "mel_dim": 128,
            "enc_channels": [512, 512, 512, 512, 1536],
            "enc_kernel_sizes": [5, 3, 3, 3, 1],
            "enc_dilations": [1, 2, 3, 4, 1],
            "enc_attention_channels": 128,
            "enc_res2net_scale": 8,
            "enc_se_channels": 128,
        }
    return config


def _codec_config() -> dict[str, Any]:
    shared = {"attention_bias": False, "attention_dropout": 0.0, "codebook_size": 2048}
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24_000,
        "output_sample_rate": 24_000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "transformers_version": "4.57.3",
        "encoder_config": {
            **shared, "_frame_rate": 12.5, "audio_channels": 1, "codebook_dim": 256, "compress": 2,
            "dilation_growth_rate": 2, "head_dim": 64, "hidden_act": "gelu", "hidden_size": 512,
            "initializer_range": 0.02, "intermediate_size": 2048, "kernel_size": 7, "last_kernel_size": 3,
            "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "norm_eps": 1e-5,
            "normalize": False, "num_attention_heads": 8, "num_filters": 64, "num_hidden_layers": 8,
            "num_key_value_heads": 8, "num_quantizers": 32, "num_residual_layers": 1,
            "num_semantic_quantizers": 1, "pad_mode": "constant", "residual_kernel_size": 3,
            "rope_theta": 10_000.0, "sampling_rate": 24_000, "sliding_window": 250, "trim_right_ratio": 1.0,
            "upsample_groups": 512, "upsampling_ratios": [8, 6, 5, 4], "use_cache": False,
            "use_causal_conv": True, "use_conv_shortcut": False, "use_streaming": False,
            "vector_quantization_hidden_dimension": 256,
        },
        "decoder_config": {
            **shared, "codebook_dim": 512, "decoder_dim": 1536, "head_dim": 64, "hidden_act": "silu",
            "hidden_size": 512, "intermediate_size": 1024, "latent_dim": 1024,
            "layer_scale_initial_scale": 0.01, "max_position_embeddings": 8000, "num_attention_heads": 16,
            "num_hidden_layers": 8, "num_key_value_heads": 16, "num_quantizers": 16,
            "num_semantic_quantizers": 1, "rms_norm_eps": 1e-5, "rope_theta": 10_000,
            "semantic_codebook_size": 4096, "sliding_window": 72, "upsample_rates": [8, 5, 4, 3],
            "upsampling_ratios": [2, 2], "vector_quantization_hidden_dimension": 512,
        },
    }  # fmt: skip


def write(folder: Path, *, size: str = "0.6b", kind: str = "custom_voice") -> None:
    """Write the checkpoint: about 2.5 GB for the 0.6B, 4.6 GB for the 1.7B."""
    from safetensors.torch import save_file

    noise = Noise()
    codec = folder / "speech_tokenizer"
    codec.mkdir(parents=True, exist_ok=True)
    assistant = _tokenizer(folder)
    _write(folder / "config.json", _config(size, kind, assistant))
    _write(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "repetition_penalty": 1.05,
            "temperature": 0.9,
            "top_p": 1.0,
            "top_k": 50,
            "subtalker_dosample": True,
            "subtalker_temperature": 0.9,
            "subtalker_top_p": 1.0,
            "subtalker_top_k": 50,
            "max_new_tokens": 8192,
        },
    )
    processor = {"padding_side": "left", "padding_value": 0.0, "processor_class": "Qwen3TTSProcessor"}
    _write(folder / "preprocessor_config.json", {**processor, "return_attention_mask": True})
    _write(codec / "config.json", _codec_config())
    _write(
        codec / "preprocessor_config.json",
        {
            "chunk_length_s": None,
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "overlap": None,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 24_000,
        },
    )
    save_file(
        {name: _tensor(name, shape, noise).bfloat16() for name, shape in model_shapes(size, kind)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    save_file(
        {name: _tensor(name, shape, noise) for name, shape in codec_shapes()},
        codec / "model.safetensors",
        metadata={"format": "pt"},
    )
