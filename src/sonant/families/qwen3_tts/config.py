"""What `config.json`, `generation_config.json` and the codec's `config.json` say, as frozen dataclasses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sonant.checkpoints.config import from_dict
from sonant.checkpoints.files import read_json
from sonant.errors import CheckpointError, ConfigError
from sonant.nn.transformer import DecoderConfig

FAMILY = "qwen3_tts"
CODEC_FOLDER = "speech_tokenizer"
MODEL_TYPE = "qwen3_tts"
CODEC_MODEL_TYPE = "qwen3_tts_tokenizer_12hz"

Kind = Literal["base", "custom_voice", "voice_design"]

# Written into every section by transformers' config classes; they name classes, precision, training
# and text-generation defaults, none of which this network reads.
_BOOKKEEPING = [
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "attention_dropout",
    "add_cross_attention",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_window_layers",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
]

_STACK_NAMES = {
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "intermediate_size": "intermediate",
    "max_position_embeddings": "max_positions",
    "rms_norm_eps": "norm_eps",
}


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """Sizes of one transformer stack; every section that has one contains these keys."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    norm_eps: float
    max_positions: int
    hidden_act: Literal["silu"] = "silu"
    attention_bias: Literal[False] = False

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ConfigError(f"{self.heads} query heads do not divide over {self.kv_heads} kv heads.")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even number.")


@dataclass(frozen=True, kw_only=True)
class PredictorConfig(StackConfig):
    """The code predictor. Source: `talker_config.code_predictor_config`."""

    vocabulary: int
    groups: int
    sliding_window: None = None
    use_sliding_window: Literal[False] = False
    rope_scaling: None = None

    @property
    def decoder(self) -> DecoderConfig:
        """The stack's config for `nn.transformer`."""
        return _decoder(self, qk_norm=True)


@dataclass(frozen=True, kw_only=True)
class TalkerConfig(StackConfig):
    """The talker and its ids. Source: `talker_config`."""

    vocabulary: int
    groups: int
    text_vocabulary: int
    text_width: int
    codec_pad_id: int
    codec_bos_id: int
    codec_eos_token_id: int
    codec_think_id: int
    codec_nothink_id: int
    codec_think_bos_id: int
    codec_think_eos_id: int
    codec_language_id: dict[str, int]
    spk_id: dict[str, int] = field(default_factory=dict)
    spk_is_dialect: dict[str, str | bool] = field(default_factory=dict)
    sliding_window: None = None
    use_sliding_window: Literal[False] = False

    @property
    def decoder(self) -> DecoderConfig:
        """The stack's config for `nn.transformer`."""
        return _decoder(self, qk_norm=True)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages a user may name; dialects are reached through their speakers only."""
        return tuple(name for name in self.codec_language_id if "dialect" not in name)


@dataclass(frozen=True, kw_only=True)
class SpeakerConfig:
    """The speaker encoder. Source: `speaker_encoder_config`; defaults are those of the release."""

    enc_dim: int
    sample_rate: int = 24_000
    mel_dim: int = 128
    enc_channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128

    def __post_init__(self) -> None:
        if not len(self.enc_channels) == len(self.enc_kernel_sizes) == len(self.enc_dilations) >= 3:
            raise ConfigError(
                "the speaker encoder's enc_channels, enc_kernel_sizes and enc_dilations differ in length"
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole model. Source: `config.json`."""

    kind: Kind
    size: str
    assistant_token_id: int
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    tokenizer_type: Literal["qwen3_tts_tokenizer_12hz"]
    talker: TalkerConfig
    predictor: PredictorConfig
    speaker: SpeakerConfig | None
    front_end: Literal["paced-phonemes"] | None = None
    """Sonant's own: what turns text into the string that the tokenizer reads. None reads the text itself."""

    @property
    def follows_instructions(self) -> bool:
        """Instructions work in VoiceDesign and in CustomVoice, except its small size."""
        # Parity: the original decides by this very substring of the size tag.
        has_learned_them = (
            self.size not in "0b6" and self.front_end is None
        )  # a front end reads phonemes only
        return self.kind == "voice_design" or (self.kind == "custom_voice" and has_learned_them)


@dataclass(frozen=True, kw_only=True)
class CodecDecoderConfig(StackConfig):
    """Codec decoder. Source: `decoder_config` of the speech tokenizer."""

    codebook_size: int
    codebook_dim: int
    quantizers: int
    latent_dim: int
    decoder_dim: int
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]
    sliding_window: int
    semantic_quantizers: int = 1

    @property
    def samples_per_frame(self) -> int:
        """Waveform samples that one frame of tokens becomes."""
        return math.prod(self.upsample_rates) * math.prod(self.upsampling_ratios)

    @property
    def decoder(self) -> DecoderConfig:
        """The pre-transformer's config for `nn.transformer`."""
        return _decoder(self, layer_scale=True, window=self.sliding_window)


@dataclass(frozen=True, kw_only=True)
class CodecEncoderConfig:
    """Codec encoder, a Mimi encoder. Source: `encoder_config` of the speech tokenizer."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope_theta: float
    norm_eps: float
    filters: int
    upsampling_ratios: tuple[int, ...]
    kernel_size: int
    last_kernel_size: int
    residual_kernel_size: int
    compress: int
    codebook_size: int
    codebook_dim: int
    quantizers: int
    semantic_quantizers: int
    sampling_rate: int
    frame_rate: float
    hidden_act: Literal["gelu"] = "gelu"
    attention_bias: Literal[False] = False
    audio_channels: Literal[1] = 1
    num_residual_layers: Literal[1] = 1
    use_causal_conv: Literal[True] = True
    use_conv_shortcut: Literal[False] = False
    pad_mode: Literal["constant"] = "constant"
    normalize: Literal[False] = False

    @property
    def downsampling(self) -> int:
        """Stride of the last convolution, from the encoder's rate to the frame rate."""
        return round(self.sampling_rate / math.prod(self.upsampling_ratios) / self.frame_rate)


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """The speech tokenizer. Source: `speech_tokenizer/config.json`."""

    decoder: CodecDecoderConfig
    encoder: CodecEncoderConfig
    encoder_valid_num_quantizers: int
    input_sample_rate: int
    output_sample_rate: int
    encode_downsample_rate: int
    decode_upsample_rate: int

    def __post_init__(self) -> None:
        if self.decoder.samples_per_frame != self.decode_upsample_rate:
            raise ConfigError(
                f"the codec's rates multiply to {self.decoder.samples_per_frame} samples a frame, but "
                f"decode_upsample_rate is {self.decode_upsample_rate}. The file is damaged."
            )


def _decoder(
    stack: StackConfig, *, qk_norm: bool = False, layer_scale: bool = False, window: int | None = None
) -> DecoderConfig:
    return DecoderConfig(
        width=stack.width,
        layers=stack.layers,
        heads=stack.heads,
        kv_heads=stack.kv_heads,
        head_dim=stack.head_dim,
        intermediate=stack.intermediate,
        rope_theta=stack.rope_theta,
        norm_eps=stack.norm_eps,
        qk_norm=qk_norm,
        layer_scale=layer_scale,
        window=window,
    )


def _section(data: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = data.get(name)
    if not isinstance(section, dict):
        raise ConfigError(f"{where} has no section {name!r}. The folder is not a complete checkpoint.")
    return dict(section)


def _ignored(*names: str) -> Iterable[str]:
    return (*_BOOKKEEPING, *names)


def read_model_config(folder: Path) -> ModelConfig:
    """The config of a model folder. Raises ConfigError, or CheckpointError when it is another model."""
    where = str(folder / "config.json")
    data = read_json(folder / "config.json")
    if data.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{where} is of model type {data.get('model_type')!r}; expected {MODEL_TYPE!r}. "
            "Give the folder of a Qwen3-TTS model."
        )
    talker = _section(data, "talker_config", where)
    predictor = _section(talker, "code_predictor_config", where)
    del talker["code_predictor_config"]
    # Three identical position rows make either multimodal layout plain rotary positions; other kinds
    # of scaling would not be.
    scaling = talker.pop("rope_scaling", None) or {}
    if not isinstance(scaling, dict):
        raise ConfigError(f"{where} has rope_scaling {scaling!r}; expected a mapping or null.")
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise ConfigError(f"{where} asks for rope scaling {scaling}; only the default is supported.")
    kinds = predictor.pop("layer_types", None) or []
    if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
        raise ConfigError(f"{where} asks for windowed attention in the code predictor; expected full.")
    kind = data.get("tts_model_type")
    speaker = None
    if kind == "base":
        speaker = from_dict(
            SpeakerConfig,
            _section(data, "speaker_encoder_config", where),
            ignored=_ignored(),
            where=f"{where}, speaker_encoder_config",
        )
    root = {
        key: value for key, value in data.items() if key not in {"talker_config", "speaker_encoder_config"}
    }
    root["talker"] = from_dict(
        TalkerConfig,
        talker,
        rename={
            **_STACK_NAMES,
            "vocab_size": "vocabulary",
            "num_code_groups": "groups",
            "text_vocab_size": "text_vocabulary",
            "text_hidden_size": "text_width",
        },
        ignored=_ignored("position_id_per_seconds", "layer_types"),
        where=f"{where}, talker_config",
    )
    root["predictor"] = from_dict(
        PredictorConfig,
        predictor,
        rename={**_STACK_NAMES, "vocab_size": "vocabulary", "num_code_groups": "groups"},
        ignored=_ignored(),
        where=f"{where}, code_predictor_config",
    )
    root["speaker"] = speaker
    config = from_dict(
        ModelConfig,
        root,
        rename={"tts_model_type": "kind", "tts_model_size": "size", "sonant_front_end": "front_end"},
        ignored=_ignored(),
        where=where,
    )
    if config.talker.groups != config.predictor.groups:
        raise ConfigError(
            f"{where} gives the talker {config.talker.groups} code groups and the code predictor "
            f"{config.predictor.groups}; expected the same number. The file is damaged."
        )
    return config


def read_codec_config(folder: Path) -> CodecConfig:
    """The config of a speech tokenizer folder."""
    where = str(folder / "config.json")
    data = read_json(folder / "config.json")
    if data.get("model_type") != CODEC_MODEL_TYPE:
        raise CheckpointError(
            f"{where} is of model type {data.get('model_type')!r}; expected {CODEC_MODEL_TYPE!r}. "
            "Give the folder of the 12 Hz speech tokenizer."
        )
    root = dict(data)
    root["decoder"] = from_dict(
        CodecDecoderConfig,
        _section(data, "decoder_config", where),
        rename={
            **_STACK_NAMES,
            "num_quantizers": "quantizers",
            "num_semantic_quantizers": "semantic_quantizers",
        },
        # The quantizers' real sizes are codebook_size and codebook_dim / 2.
        ignored=_ignored(
            "semantic_codebook_size", "vector_quantization_hidden_dimension", "layer_scale_initial_scale"
        ),
        where=f"{where}, decoder_config",
    )
    root["encoder"] = from_dict(
        CodecEncoderConfig,
        _section(data, "encoder_config", where),
        rename={
            "hidden_size": "width",
            "num_hidden_layers": "layers",
            "num_attention_heads": "heads",
            "num_key_value_heads": "kv_heads",
            "intermediate_size": "intermediate",
            "num_filters": "filters",
            "num_quantizers": "quantizers",
            "num_semantic_quantizers": "semantic_quantizers",
            "_frame_rate": "frame_rate",
        },
        # Of the rest, `sliding_window` deserves a word: the original's CPU and SDPA paths see all
        # earlier positions whatever it says, and so does Sonant.
        ignored=_ignored(
            "dilation_growth_rate",
            "layer_scale_initial_scale",
            "max_position_embeddings",
            "sliding_window",
            "trim_right_ratio",
            "upsample_groups",
            "use_streaming",
            "vector_quantization_hidden_dimension",
        ),
        where=f"{where}, encoder_config",
    )
    del root["decoder_config"], root["encoder_config"]
    return from_dict(CodecConfig, root, ignored=_ignored(), where=where)


# Source: the original's own defaults, also in its released generation_config.json.
BUILT_IN_GENERATION: Mapping[str, Any] = {
    "do_sample": True,
    "top_k": 50,
    "top_p": 1.0,
    "temperature": 0.9,
    "repetition_penalty": 1.05,
    "subtalker_dosample": True,
    "subtalker_top_k": 50,
    "subtalker_top_p": 1.0,
    "subtalker_temperature": 0.9,
    "max_new_tokens": 2048,
}


def sampling_fields(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Sampling` that say the same as the original's generation arguments.

    The last token of a run never becomes a frame, so `max_new_tokens` is one more than `max_frames`.
    """
    given = {**BUILT_IN_GENERATION, **generation}
    return {
        "greedy": not given["do_sample"],
        "temperature": given["temperature"],
        "top_k": given["top_k"],
        "top_p": given["top_p"],
        "repetition_penalty": given["repetition_penalty"],
        "predictor_greedy": not given["subtalker_dosample"],
        "predictor_temperature": given["subtalker_temperature"],
        "predictor_top_k": given["subtalker_top_k"],
        "predictor_top_p": given["subtalker_top_p"],
        "max_frames": max(1, given["max_new_tokens"] - 1),
    }


def read_generation_defaults(folder: Path) -> dict[str, Any]:
    """The original's generation arguments from `generation_config.json`, which a folder may lack."""
    path = folder / "generation_config.json"
    data = read_json(path) if path.is_file() else {}
    given = {key: value for key, value in data.items() if key in BUILT_IN_GENERATION}
    for key, value in given.items():
        if value is None and key != "max_new_tokens":
            continue  # null switches a filter off
        expected = type(BUILT_IN_GENERATION[key])
        fits = isinstance(value, (int, float)) if expected is float else isinstance(value, expected)
        if not fits or (isinstance(value, bool) and expected is not bool):
            raise ConfigError(
                f"{path} has {key} {value!r}; expected a value such as {BUILT_IN_GENERATION[key]!r}. "
                "Correct it, or download the file again."
            )
    return given
