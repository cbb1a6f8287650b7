"""A checkpoint folder -> a model that speaks, or what it would be and can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sonant import native
from sonant.checkpoints.files import fingerprint, read_json
from sonant.checkpoints.hub_cache import model_name
from sonant.engine.model import SpeechModel
from sonant.errors import CheckpointError
from sonant.families.qwen3_tts import prompt as prompts
from sonant.families.qwen3_tts.codec import CodecDecoder
from sonant.families.qwen3_tts.config import (
    CODEC_FOLDER,
    CODEC_MODEL_TYPE,
    FAMILY,
    CodecConfig,
    ModelConfig,
    read_codec_config,
    read_generation_defaults,
    read_model_config,
    sampling_fields,
)
from sonant.families.qwen3_tts.model import Qwen3TTS
from sonant.families.qwen3_tts.plans import plan_of
from sonant.families.qwen3_tts.speech_tokenizer import CodecOnly, SpeechTokenizer, codec_spec
from sonant.families.qwen3_tts.weights import (
    Codec,
    has_bfloat16,
    identity,
    load_codec,
    load_network,
    weight_names,
)
from sonant.nn.quantized import PackedStore
from sonant.request.settings import options_of
from sonant.request.speech import ModelSpec
from sonant.text.paced_phonemes import PacedPhonemes
from sonant.text.tokenizer import BytePairTokenizer

OPTIONS = options_of("codec_chunks")
BASE_OPTIONS = options_of("speaker_vector_only")


def _spec(folder: Path, config: ModelConfig, codec: CodecConfig, generation: Mapping[str, Any]) -> ModelSpec:
    talker, kind = config.talker, config.kind
    capabilities = {"text_layout", "frame_streaming", "seed"}
    if kind == "base":
        capabilities |= {"clone", "clone_in_context", "voice_mixing"}
    elif kind == "custom_voice":
        capabilities |= {"preset_voice"}
    else:
        capabilities |= {"voice_design"}
    if config.follows_instructions:
        capabilities |= {"instruction"}
    if config.front_end is not None:
        capabilities = (capabilities | {"speed"}) - {"text_layout"}
    else:
        capabilities |= {"text_stream"}
    voices = tuple(sorted(name.lower() for name in talker.spk_id)) if kind == "custom_voice" else ()
    return ModelSpec(
        family=FAMILY,
        name=model_name(folder),
        fingerprint=fingerprint(
            folder,
            [
                *("config.json", *weight_names(folder), f"{CODEC_FOLDER}/config.json"),
                *(f"{CODEC_FOLDER}/{name}" for name in weight_names(folder / CODEC_FOLDER)),
            ],
        ),
        sample_rate=codec.output_sample_rate,
        frame_rate=codec.output_sample_rate / codec.decode_upsample_rate,
        languages=talker.languages,
        voices=voices,
        default_voice=voices[0] if len(voices) == 1 else None,
        capabilities=frozenset(capabilities),
        sampling=sampling_fields(generation),
        options={**OPTIONS, **BASE_OPTIONS} if kind == "base" else OPTIONS,
        front_ends=("sonant", "original", "off") if config.front_end is None else ("sonant", "original"),
        text_marks=r"<\|[^<>|\n]{1,60}\|>",
        needs_voice=kind == "base",
        mixed=("xvector",) if kind == "base" else (),
        needs_instruction=kind == "voice_design",
        max_reference_seconds=60.0,
        min_reference_seconds=0.5,
        streams_by="frame",
        licence="Apache-2.0",
        note=f"Qwen3-TTS, {kind.replace('_', ' ')}, size {config.size}",
    )


def describe_folder(folder: Path) -> ModelSpec:
    """The spec of a folder, from its configs."""
    folder = folder.resolve()
    if read_json(folder / "config.json").get("model_type") == CODEC_MODEL_TYPE:
        return codec_spec(folder, read_codec_config(folder))
    codec = read_codec_config(folder / CODEC_FOLDER)
    return _spec(folder, read_model_config(folder), codec, read_generation_defaults(folder))


def load_folder(
    folder: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> SpeechModel:
    """A model folder, or a speech tokenizer's folder, as a SpeechModel.

    `precision` "int8", "mixed" or "int4" quantises the weights of talker and code predictor (see plans.py),
    and runs the codec's decoder on bfloat16 inputs where the processor has instructions for it. "lossless"
    keeps them as wide as the checkpoint has them, and the codec in float32. None is plain torch throughout.
    """
    folder = folder.resolve()
    codec_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    if read_json(folder / "config.json").get("model_type") == CODEC_MODEL_TYPE:
        codec_config = read_codec_config(folder)
        return CodecOnly(
            folder, codec_config, load_codec(folder, codec_config, device=device, dtype=codec_dtype)
        )
    config = read_model_config(folder)
    codec_folder = folder / CODEC_FOLDER
    codec_config = read_codec_config(codec_folder)
    generation = read_generation_defaults(folder)
    tokenizer = BytePairTokenizer.load(folder)
    _check_tokenizer(folder, config, tokenizer)
    _check_codec(folder, config, codec_config)
    plan = None if precision is None else plan_of(precision, config)
    if plan is not None:
        dtype = torch.float32  # activations and cache of the quantised networks
    codec: Codec = load_codec(codec_folder, codec_config, device=device, dtype=codec_dtype)
    reduces = plan is not None and not plan.is_lossless
    if plan is not None:
        _quicken(codec.decoder, narrow=reduces)
    store: PackedStore | None = None
    if precision is not None and reduces:
        store = PackedStore.of(identity(folder), precision)
    network = load_network(folder, config, device=device, dtype=dtype, plan=plan, store=store)
    front_end = None if config.front_end is None else PacedPhonemes.load(folder)
    speech_tokenizer = SpeechTokenizer(codec_config, codec)
    spec = _spec(folder, config, codec_config, generation)
    return Qwen3TTS(spec, config, network, tokenizer, speech_tokenizer, front_end)


def _quicken(decoder: CodecDecoder, *, narrow: bool) -> None:
    """The codec's products in C where that is possible; `narrow`: on bfloat16 where the processor can."""
    library = native.library()
    if library is not None and not (narrow and has_bfloat16() and not library.sonant_conv_has_bfloat16()):
        decoder.use_native(library, narrow=narrow and has_bfloat16())
    elif narrow and has_bfloat16():
        decoder.narrow(torch.bfloat16)


def _check_tokenizer(folder: Path, config: ModelConfig, tokenizer: BytePairTokenizer) -> None:
    role = tokenizer.encode(prompts.ROLE)
    after = tokenizer.encode(prompts.AFTER_TEXT)
    expected = [config.im_start_token_id, config.assistant_token_id]
    fits = (
        len(role) == prompts.ROLE_IDS
        and len(after) == prompts.AFTER_TEXT_IDS
        and role[:2] == expected
        and after[0] == config.im_end_token_id
        and len(tokenizer) <= config.talker.text_vocabulary
    )
    if not fits:
        raise CheckpointError(
            f"the tokenizer in {folder} has {len(tokenizer)} ids and gives {role} for the chat markers; the "
            f"config expects at most {config.talker.text_vocabulary} ids and {expected} first. "
            "The files are of different checkpoints; download it again."
        )


def _check_codec(folder: Path, config: ModelConfig, codec: CodecConfig) -> None:
    if codec.decoder.quantizers != config.talker.groups:
        raise CheckpointError(
            f"the speech tokenizer in {folder / CODEC_FOLDER} has {codec.decoder.quantizers} codebooks; the "
            f"model speaks {config.talker.groups}. The files are of different checkpoints."
        )
