"""Qwen3-TTS at full size with random weights: write the checkpoint, load it, speak, report time and memory.

    python benchmarks/full_size_qwen3_tts.py FOLDER [--size 0b6|1b7] [--kind custom_voice|base|voice_design]

The folder has the official layout (bfloat16 weights, float32 codec, a tokenizer of the true size) and is
written once; it takes 2.5 GB (0b6) or 4.5 GB (1b7). Nothing in it was trained, so what is spoken is noise.
"""

import argparse
import json
import re
import resource
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

# Source for every number below: the released configurations.
TALKER = {
    "0b6": {"hidden_size": 1024, "intermediate_size": 3072},
    "1b7": {"hidden_size": 2048, "intermediate_size": 6144},
}
STACK = {
    "attention_bias": False,
    "hidden_act": "silu",
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "num_code_groups": 16,
    "sliding_window": None,
}
LANGUAGES = {
    "chinese": 2055, "english": 2050, "german": 2053, "italian": 2070, "portuguese": 2071, "spanish": 2054,
    "japanese": 2058, "korean": 2064, "french": 2061, "russian": 2069,
}  # fmt: skip
ADDED = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
]
ORDINARY = 151_643
ASSISTANT = 77_091


def model_config(size, kind):
    width = TALKER[size]["hidden_size"]
    predictor = {
        **STACK,
        "model_type": "qwen3_tts_talker_code_predictor",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 5,
        "layer_types": ["full_attention"] * 5,
        "max_position_embeddings": 65536,
        "rope_scaling": None,
        "use_sliding_window": False,
        "vocab_size": 2048,
    }
    talker = {
        **STACK,
        **TALKER[size],
        "model_type": "qwen3_tts_talker",
        "num_hidden_layers": 28,
        "max_position_embeddings": 32768,
        "position_id_per_seconds": 13,
        "rope_scaling": {
            "interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
            "type": "default",
        },
        "text_hidden_size": 2048,
        "text_vocab_size": 151936,
        "vocab_size": 3072,
        "codec_pad_id": 2148,
        "codec_bos_id": 2149,
        "codec_eos_token_id": 2150,
        "codec_think_id": 2154,
        "codec_nothink_id": 2155,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
        "codec_language_id": LANGUAGES,
        "spk_id": {"ryan": 3061, "vivian": 3065} if kind == "custom_voice" else {},
        "spk_is_dialect": {"ryan": False, "vivian": False} if kind == "custom_voice" else {},
        "code_predictor_config": predictor,
    }
    config = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "assistant_token_id": ASSISTANT,
        "im_start_token_id": 151644,
        "im_end_token_id": 151645,
        "tts_pad_token_id": 151671,
        "tts_bos_token_id": 151672,
        "tts_eos_token_id": 151673,
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": size,
        "tts_model_type": kind,
        "talker_config": talker,
        "transformers_version": "4.57.3",
    }
    if kind == "base":
        config["speaker_encoder_config"] = {"enc_dim": width, "sample_rate": 24000}
    return config


CODEC_CONFIG = {
    "architectures": ["Qwen3TTSTokenizerV2Model"],
    "model_type": "qwen3_tts_tokenizer_12hz",
    "encoder_valid_num_quantizers": 16,
    "input_sample_rate": 24000,
    "output_sample_rate": 24000,
    "encode_downsample_rate": 1920,
    "decode_upsample_rate": 1920,
    "decoder_config": {
        "codebook_dim": 512,
        "codebook_size": 2048,
        "num_quantizers": 16,
        "latent_dim": 1024,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
        "max_position_embeddings": 8000,
        "sliding_window": 72,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "decoder_dim": 1536,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
    },
    "encoder_config": {
        "_frame_rate": 12.5,
        "codebook_dim": 256,
        "codebook_size": 2048,
        "compress": 2,
        "head_dim": 64,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "kernel_size": 7,
        "last_kernel_size": 3,
        "residual_kernel_size": 3,
        "norm_eps": 1e-05,
        "num_attention_heads": 8,
        "num_filters": 64,
        "num_hidden_layers": 8,
        "num_key_value_heads": 8,
        "num_quantizers": 32,
        "num_semantic_quantizers": 1,
        "rope_theta": 10000.0,
        "sampling_rate": 24000,
        "sliding_window": 250,
        "upsampling_ratios": [8, 6, 5, 4],
    },
}

# This package's module names -> official names, the reverse of its rules for loading.
TO_OFFICIAL = (
    (r"^predictor\.decoder\.", "talker.code_predictor.model."),
    (r"^predictor\.codec_embedding\.", "talker.code_predictor.model.codec_embedding."),
    (r"^predictor\.", "talker.code_predictor."),
    (r"^talker\.decoder\.", "talker.model."),
    (r"^talker\.(text|codec)_embedding\.", r"talker.model.\1_embedding."),
)
CODEC_TO_OFFICIAL = (
    (r"^decoder\.quantizer\.semantic\.layers\.", "decoder.quantizer.rvq_first.vq.layers."),
    (r"^decoder\.quantizer\.acoustic\.layers\.", "decoder.quantizer.rvq_rest.vq.layers."),
    (r"^(decoder\..*)\.sums$", r"\1._codebook.embedding_sum"),
    (r"^(decoder\..*)\.usage$", r"\1._codebook.cluster_usage"),
    (r"^decoder\.quantizer\.semantic_out", "decoder.quantizer.rvq_first.output_proj"),
    (r"^decoder\.quantizer\.acoustic_out", "decoder.quantizer.rvq_rest.output_proj"),
    (r"^decoder\.pre_transformer\.stack\.", "decoder.pre_transformer."),
    (r"^(decoder\.(?:pre_conv|decoder\.[06]|upsample\.\d+\.0|upsample\.\d+\.1\.dwconv))\.", r"\1.conv."),
    (r"^(decoder\.decoder\.\d+\.block\.(?:1|\d+\.conv[12]))\.(weight|bias)", r"\1.conv.\2"),
    (r"^encoder\.(semantic|acoustic)\.layers\.", r"encoder.quantizer.\1_residual_vector_quantizer.layers."),
    (r"^(encoder\..*)\.sums$", r"\1.codebook.embed_sum"),
    (r"^(encoder\..*)\.usage$", r"\1.codebook.cluster_usage"),
    (r"^encoder\.(semantic|acoustic)_in", r"encoder.quantizer.\1_residual_vector_quantizer.input_proj"),
    (r"^encoder\.layers\.(\d+)\.([qkvo]_proj)", r"encoder.encoder_transformer.layers.\1.self_attn.\2"),
    (r"^encoder\.layers\.(\d+)\.(fc\d)", r"encoder.encoder_transformer.layers.\1.mlp.\2"),
    (r"^encoder\.layers\.", "encoder.encoder_transformer.layers."),
    (r"^encoder\.downsample\.", "encoder.downsample.conv."),
    (r"^encoder\.convolutions\.first\.", "encoder.encoder.layers.0.conv."),
    (r"^encoder\.convolutions\.last\.", "encoder.encoder.layers.14.conv."),
)


def official(name, rules):
    place = re.match(r"^encoder\.convolutions\.(residuals|strided)\.(\d)\.(first|second)?\.?(\w+)$", name)
    if place:
        kind, index, part, leaf = place.groups()
        layer = 3 * int(index) + (1 if kind == "residuals" else 3)
        inside = {"first": "block.1.conv", "second": "block.3.conv", None: "conv"}[part]
        return f"encoder.encoder.layers.{layer}.{inside}.{leaf}"
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def shapes_of_model(folder):
    """Official name -> shape of every tensor of `model.safetensors`, from the config."""
    from sonant.checkpoint import build
    from sonant.families.qwen3_tts.config import read_model_config
    from sonant.families.qwen3_tts.talker import Network

    config = read_model_config(folder)
    state = build(lambda: Network(config)).state_dict()
    return {official(name, TO_OFFICIAL): tuple(tensor.shape) for name, tensor in state.items()}


def shapes_of_codec(folder):
    """The same for the speech tokenizer, with the tensors that inference never reads."""
    from sonant.checkpoint import build
    from sonant.families.qwen3_tts.config import read_codec_config
    from sonant.families.qwen3_tts.weights import Codec

    config = read_codec_config(folder)
    state = build(lambda: Codec(config)).state_dict()
    shapes = {official(name, CODEC_TO_OFFICIAL): tuple(tensor.shape) for name, tensor in state.items()}
    for name, shape in list(shapes.items()):
        if name.endswith("codebook.embed_sum"):
            shapes[name.replace("embed_sum", "initialized")] = (1,)
        if "rvq_" in name and name.endswith("output_proj.weight"):
            shapes[name.replace("output_proj", "input_proj")] = (shape[1], shape[0], 1)
        if "vector_quantizer" in name and name.endswith("input_proj.weight"):
            shapes[name.replace("input_proj", "output_proj")] = (shape[1], shape[0], 1)
    return shapes


def random_tensor(name, shape, generator):
    """Values that keep signals at a sane size; the end token's logit is 0, so it is never drawn."""
    if name.endswith(("norm.weight", "layernorm.weight", "cluster_usage", "initialized", "gamma")):
        return torch.ones(shape)
    if name.endswith((".alpha", ".beta")) or name.endswith(".bias"):
        return torch.zeros(shape)
    if name.endswith(".scale"):
        return torch.full(shape, 0.1)
    if len(shape) == 1:
        return torch.ones(shape)
    inputs = (
        shape[0] if "embedding" in name or "_sum" in name else shape[1] * (shape[2] if len(shape) == 3 else 1)
    )
    size = 1.0 if "embedding_sum" in name or "embed_sum" in name else inputs**-0.5
    size = 0.02 if "embedding.weight" in name or "codec_embedding" in name else size
    tensor = torch.randn(shape, generator=generator) * size
    if name == "talker.codec_head.weight":
        tensor[2150] = 0
    return tensor


def byte_pieces():
    """The 256 byte-level pieces of GPT-2's alphabet, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def write_tokenizer(folder):
    """A byte-level BPE of the true size; only "assistant" and "user" are real words."""
    pieces = byte_pieces()
    known, merges = set(pieces), []
    for word in ("assistant", "user"):
        for end in range(2, len(word) + 1):
            if word[:end] not in known:
                merges.append((word[: end - 1], word[end - 1]))
                known.add(word[:end])
    letters, order = list(pieces), [*pieces, *(left + right for left, right in merges)]
    for left in (piece for source in (letters, None) for piece in (source or list(order[256:]))):
        for right in letters:
            if len(order) == ORDINARY:
                break
            if left + right not in known:
                merges.append((left, right))
                known.add(left + right)
                order.append(left + right)
    place = order.index("assistant")
    order[place], order[ASSISTANT] = order[ASSISTANT], order[place]
    vocabulary = {piece: index for index, piece in enumerate(order)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    added = {
        str(ORDINARY + index): {
            "content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": token not in {"<tool_call>", "</tool_call>", "<think>", "</think>"},
        }
        for index, token in enumerate(ADDED)
    }  # fmt: skip
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "model_max_length": 131072,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


GENERATION = {
    "do_sample": True,
    "top_k": 50,
    "top_p": 1.0,
    "temperature": 0.9,
    "repetition_penalty": 1.05,
    "subtalker_dosample": True,
    "subtalker_top_k": 50,
    "subtalker_top_p": 1.0,
    "subtalker_temperature": 0.9,
    "max_new_tokens": 8192,
}
PREPROCESSOR = {
    "processor_class": "Qwen3TTSProcessor",
    "padding_side": "left",
    "padding_value": 0.0,
    "return_attention_mask": True,
}
CODEC_PREPROCESSOR = {
    "feature_extractor_type": "EncodecFeatureExtractor",
    "feature_size": 1,
    "sampling_rate": 24000,
    "chunk_length_s": None,
    "overlap": None,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
}


def write_checkpoint(folder, size, kind):
    """Everything of an official folder, weights last, so that a half-written one is not taken for whole."""
    codec_folder = folder / "speech_tokenizer"
    codec_folder.mkdir(parents=True, exist_ok=True)
    for path, data in (
        (folder / "config.json", model_config(size, kind)),
        (folder / "generation_config.json", GENERATION),
        (folder / "preprocessor_config.json", PREPROCESSOR),
        (codec_folder / "config.json", CODEC_CONFIG),
        (codec_folder / "preprocessor_config.json", CODEC_PREPROCESSOR),
    ):
        path.write_text(json.dumps(data, indent=2))
    write_tokenizer(folder)
    generator = torch.Generator().manual_seed(0)
    for place, shapes, dtype in (
        (codec_folder, shapes_of_codec(codec_folder), torch.float32),
        (folder, shapes_of_model(folder), torch.bfloat16),
    ):
        tensors = {
            name: random_tensor(name, shape, generator).to(dtype) for name, shape in sorted(shapes.items())
        }
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


def peak_gib():
    """Largest resident memory so far, mapped weight files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=sorted(TALKER), default="0b6")
    parser.add_argument("--kind", choices=["custom_voice", "base", "voice_design"], default="custom_voice")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only-write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not (arguments.folder / "model.safetensors").is_file():
        write_checkpoint(arguments.folder, arguments.size, arguments.kind)
        print("written; run again to measure in a fresh process")
        return
    if arguments.only_write:
        return

    from sonant.registry import load
    from sonant.speech import Audio, Sampling, SpeechRequest, Style

    before = peak_gib()
    began, busy = time.perf_counter(), time.process_time()
    engine = load(arguments.folder, device="cpu", dtype=arguments.dtype, slots=1)
    loaded, loading = time.perf_counter() - began, time.process_time() - busy
    after_load = peak_gib()
    frames = round(arguments.seconds * engine.spec.frame_rate)
    voice = None
    if engine.spec.voices:
        voice = engine.spec.voices[0]
    elif engine.spec.needs_voice:
        noise = torch.randn(24_000 * 5, generator=torch.Generator().manual_seed(0)) * 0.1
        voice = engine.clone(Audio(noise.numpy(), 24_000))
    style = Style(instruction="calm") if engine.spec.needs_instruction else Style()
    request = SpeechRequest(
        "The quick brown fox jumps over the lazy dog, and then it does so once more, because it can.",
        voice=voice, style=style, seed=1, sampling=Sampling(max_frames=frames),
    )  # fmt: skip
    busy = time.process_time()
    speech = engine.synthesize(request)
    busy = time.process_time() - busy
    times = speech.timings
    print(f"Qwen3-TTS {arguments.size} {arguments.kind}, {arguments.dtype}, {arguments.threads} threads, CPU")
    print(f"load            {loaded:8.2f} s, {loading:.2f} s of one processor")
    print(
        f"peak memory     {before:8.2f} GiB before, {after_load:.2f} after loading, {peak_gib():.2f} at end"
    )
    print(f"audio           {speech.seconds:8.2f} s, {int(times['frames'])} frames")
    print(f"processor time  {busy * 1000 / times['frames']:8.1f} ms a frame, all of it")
    print(f"prefill         {times['prefill'] * 1000:8.1f} ms")
    print(f"talker, 15 more {times['generate'] * 1000 / times['frames']:8.1f} ms a frame")
    print(f"codec           {times['decode'] * 1000 / times['frames']:8.1f} ms a frame")
    engine.close()


if __name__ == "__main__":
    main()
