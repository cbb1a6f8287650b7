"""Sizes and constants of a CosyVoice3 checkpoint, from `cosyvoice3.yaml` and the Qwen2 `config.json`.

Unknown keys are skipped, as the release's own reader must skip them, except where a known switch has a
value that these networks do not implement: that is a ConfigError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sonant.checkpoints.config import from_dict
from sonant.checkpoints.files import read_json
from sonant.errors import ConfigError
from sonant.families.cosyvoice3.yaml_reader import Node, read_yaml
from sonant.nn.transformer import DecoderConfig

FAMILY = "cosyvoice3"
YAML_NAME = "cosyvoice3.yaml"
QWEN_FOLDER = "CosyVoice-BlankEN"

SILENT_TOKENS = frozenset((1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323))
"""Speech tokens of silence and breath. Source: the original's CosyVoice3Model."""
MAX_SILENT_RUN = 5
SPECIAL_SPEECH_ROWS = 200
"""Rows of the speech table and head above the speech tokens; every one of these ids stops."""
MIN_TOKEN_RATIO, MAX_TOKEN_RATIO = 2, 20
"""Speech tokens for each text token. Source: defaults of the original's LM inference."""
MAX_SECONDS = 300
"""What the original's fixed noise covers, prompt included."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Repetition-aware sampling. Source: `llm.sampling` in the yaml."""

    top_p: float = 0.8
    top_k: int = 25
    win_size: int = 10
    """How many of the last tokens are searched for a repetition."""
    tau_r: float = 0.1
    """Share of the window that may repeat."""


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """The language model: a Qwen2 decoder, a speech table and a speech head."""

    decoder: DecoderConfig
    text_vocabulary: int
    speech_tokens: int
    sampler: SamplerConfig
    mix_ratio: tuple[int, int] = (5, 15)
    """Text tokens and speech tokens that alternate while text is fed in."""

    @property
    def start(self) -> int:
        """Id of the first position."""
        return self.speech_tokens

    @property
    def end(self) -> int:
        """Id that ends an utterance."""
        return self.speech_tokens + 1

    @property
    def task(self) -> int:
        """Id between text and speech."""
        return self.speech_tokens + 2

    @property
    def fill(self) -> int:
        """Id by which the model asks for more text."""
        return self.speech_tokens + 3


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The flow's estimator. Source: `flow.decoder.estimator` in the yaml."""

    dim: int
    depth: int
    heads: int
    dim_head: int
    ff_mult: int
    mel_dim: int
    mu_dim: int
    spk_dim: int
    static_chunk_size: int
    """Frames of a chunk of the streaming mask."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Speech tokens to mel. Source: `flow` in the yaml."""

    transformer: TransformerConfig
    speech_tokens: int
    mel_bins: int
    speaker_dim: int
    lookahead: int
    """Tokens that the look-ahead block sees in advance."""
    lookahead_channels: int
    frames_per_token: int
    guidance: float
    cosine_times: bool
    steps: int = 10


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Mel to waveform. Source: `hift` in the yaml."""

    in_channels: int
    base_channels: int
    nb_harmonics: int
    sampling_rate: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    n_fft: int
    hop: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    conv_pre_look_right: int
    f0_channels: int
    f0_lookahead: int = 3

    def __post_init__(self) -> None:
        stages = len(self.upsample_rates)
        if not (stages == len(self.upsample_kernel_sizes) == len(self.source_resblock_kernel_sizes)):
            raise ConfigError(
                f"hift has {stages} upsample_rates, {len(self.upsample_kernel_sizes)} kernels and "
                f"{len(self.source_resblock_kernel_sizes)} source kernels; expected one of each for a stage. "
                "Use the official cosyvoice3.yaml."
            )

    @property
    def columns(self) -> int:
        """Columns of the short-time Fourier transform for one mel frame."""
        return prod(self.upsample_rates)

    @property
    def samples(self) -> int:
        """Samples of one mel frame."""
        return self.columns * self.hop

    @property
    def harmonics(self) -> int:
        """The fundamental and its overtones."""
        return self.nb_harmonics + 1

    @property
    def lookahead(self) -> int:
        """Frames that are given but not yet spoken before the end: F0 3, first layer 4, transform 1."""
        return self.f0_lookahead + self.conv_pre_look_right + 1


@dataclass(frozen=True, kw_only=True)
class CosyVoice3Config:
    """Everything a loaded checkpoint needs to know of itself."""

    sample_rate: int
    token_rate: int
    """Speech tokens in a second."""
    chunk_tokens: int
    """Tokens of a chunk of the streaming mask, and of the first hop."""
    language: LanguageConfig
    flow: FlowConfig
    vocoder: VocoderConfig


def read_config(folder: Path) -> CosyVoice3Config:
    """The config of a checkpoint folder. Raises ConfigError or CheckpointError."""
    data = read_yaml(folder / YAML_NAME)
    where = str(folder / YAML_NAME)
    language = _object(data, "llm", "CosyVoice3LM", where)
    flow = _object(data, "flow", "CausalMaskedDiffWithDiT", where)
    vocoder = _object(data, "hift", "CausalHiFTGenerator", where)
    rate = _number(data, "sample_rate", where)
    config = CosyVoice3Config(
        sample_rate=rate,
        token_rate=_number(data, "token_frame_rate", where),
        chunk_tokens=_number(data, "chunk_size", where),
        language=_language(language, read_json(folder / QWEN_FOLDER / "config.json"), where),
        flow=_flow(flow, where),
        vocoder=_vocoder(vocoder, where),
    )
    frames = config.token_rate * config.flow.frames_per_token
    if frames * config.vocoder.samples != rate or config.vocoder.sampling_rate != rate:
        raise ConfigError(
            f"{where}: {config.token_rate} tokens x {config.flow.frames_per_token} frames x "
            f"{config.vocoder.samples} samples do not make sample_rate {rate}. Use the official file."
        )
    if config.flow.speech_tokens != config.language.speech_tokens:
        raise ConfigError(
            f"{where}: llm has {config.language.speech_tokens} speech tokens, flow "
            f"{config.flow.speech_tokens}; expected the same. Use the official file."
        )
    return config


def _object(data: Mapping[str, Any], key: str, name: str, where: str) -> dict[str, Any]:
    """Arguments of an object, whose class must be the known one; it is compared, never imported."""
    node = data.get(key)
    if not isinstance(node, Node) or node.kind != "new" or not isinstance(node.value, dict):
        raise ConfigError(f"{where} has no object {key!r}; expected !new:...{name}. Use the official file.")
    if node.path.rpartition(".")[2] != name:
        raise ConfigError(
            f"{where}: {key} is a {node.path!r}; Sonant knows {name} here and builds nothing else. "
            "Use the file of an official CosyVoice3 release."
        )
    return node.value


def _plain(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Arguments of a nested partial or settings object, whatever its class."""
    node = data.get(key)
    value = node.value if isinstance(node, Node) else node
    return value if isinstance(value, dict) else {}


def _number(data: Mapping[str, Any], key: str, where: str) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: {key} is {value!r}; expected a positive whole number.")
    return value


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in kind.__dataclass_fields__}


def _refuse(data: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], where: str) -> None:
    for key, values in allowed.items():
        if key in data and data[key] not in values:
            raise ConfigError(
                f"{where}: {key} is {data[key]!r}; Sonant implements {' or '.join(map(repr, values))}. "
                "This is another model variant; use an official CosyVoice3 release."
            )


def _language(data: Mapping[str, Any], qwen: Mapping[str, Any], where: str) -> LanguageConfig:
    source = f"{QWEN_FOLDER}/config.json"
    _refuse(
        qwen,
        {
            "model_type": ("qwen2",),
            "hidden_act": ("silu",),
            "rope_scaling": (None,),
            "use_sliding_window": (False, None),
        },
        source,
    )
    rope = qwen.get("rope_parameters") or {}
    width, heads = _number(qwen, "hidden_size", source), _number(qwen, "num_attention_heads", source)
    decoder = from_dict(
        DecoderConfig,
        {
            "width": width,
            "layers": qwen.get("num_hidden_layers"),
            "heads": heads,
            "kv_heads": qwen.get("num_key_value_heads", heads),
            "head_dim": qwen.get("head_dim") or width // heads,
            "intermediate": qwen.get("intermediate_size"),
            "rope_theta": qwen.get("rope_theta", rope.get("rope_theta", 10_000.0)),
            "norm_eps": qwen.get("rms_norm_eps", 1e-6),
            "qkv_bias": True,
        },
        where=source,
    )
    ratio = data.get("mix_ratio", [5, 15])
    return LanguageConfig(
        decoder=decoder,
        text_vocabulary=_number(qwen, "vocab_size", source),
        speech_tokens=_number(data, "speech_token_size", where),
        sampler=from_dict(
            SamplerConfig, _known(SamplerConfig, _plain(data, "sampling")), where=f"{where}: llm.sampling"
        ),
        mix_ratio=(int(ratio[0]), int(ratio[1])),
    )


def _flow(data: Mapping[str, Any], where: str) -> FlowConfig:
    where = f"{where}: flow"
    decoder = _plain(data, "decoder")
    estimator = _object(decoder, "estimator", "DiT", where)
    _refuse(estimator, {"long_skip_connection": (False, None)}, where)
    left = estimator.get("num_decoding_left_chunks", -1)
    _refuse({"num_decoding_left_chunks": left}, {"num_decoding_left_chunks": (-1,)}, where)
    solver = _plain(_plain(decoder, "cfm_params"), "content")
    _refuse(solver, {"solver": ("euler",), "t_scheduler": ("cosine", "linear")}, where)
    lookahead = _plain(data, "pre_lookahead_layer")
    return from_dict(
        FlowConfig,
        {
            "transformer": from_dict(
                TransformerConfig, _known(TransformerConfig, estimator), where=f"{where}.decoder.estimator"
            ),
            "speech_tokens": data.get("vocab_size"),
            "mel_bins": data.get("output_size"),
            "speaker_dim": data.get("spk_embed_dim"),
            "lookahead": lookahead.get("pre_lookahead_len", data.get("pre_lookahead_len")),
            "lookahead_channels": lookahead.get("channels"),
            "frames_per_token": data.get("token_mel_ratio"),
            "guidance": solver.get("inference_cfg_rate"),
            "cosine_times": solver.get("t_scheduler", "cosine") == "cosine",
        },
        where=where,
    )


def _vocoder(data: Mapping[str, Any], where: str) -> VocoderConfig:
    where = f"{where}: hift"
    predictor = _object(data, "f0_predictor", "CausalConvRNNF0Predictor", where)
    transform = _plain(data, "istft_params")
    return from_dict(
        VocoderConfig,
        {
            **_known(VocoderConfig, data),
            "n_fft": transform.get("n_fft"),
            "hop": transform.get("hop_len"),
            "f0_channels": predictor.get("cond_channels"),
        },
        where=where,
    )
