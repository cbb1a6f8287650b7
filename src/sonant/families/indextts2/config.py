"""Configs of IndexTTS2's and 2.5's networks, from `config.yaml` and the JSON files of the auxiliary models.

What the official code hard-codes (widths of w2v-bert, CAM++ and the latent projection) is not here: it is
read from the tensors themselves, see `weights.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sonant.checkpoints.config import from_dict
from sonant.errors import CheckpointError, ConfigError

CONFIG_NAME = "config.yaml"
CODEC_NAME, VOCABULARY_NAME = "codec.pth", "multilingual_zh_ja_yue_char_del.tiktoken"
"""IndexTTS-2.5's own files, whose names its original does not read from the config."""
NYQUIST = "None"


@dataclass(frozen=True, kw_only=True)
class ConditionConfig:
    """One conformer + perceiver that turns w2v-bert features into GPT conditioning."""

    output_size: int
    linear_units: int
    attention_heads: int
    num_blocks: int
    perceiver_mult: int = 2
    input_layer: Literal["conv2d2"] = "conv2d2"

    def __post_init__(self) -> None:
        if self.output_size % self.attention_heads:
            raise ConfigError(
                f"conditioning width {self.output_size} does not divide over {self.attention_heads} heads. "
                "Check sections condition_module and emo_condition_module of config.yaml."
            )


@dataclass(frozen=True, kw_only=True)
class GptConfig:
    """The autoregressive half. Source: `config.yaml`, section `gpt`."""

    model_dim: int
    heads: int
    layers: int
    max_mel_tokens: int
    max_text_tokens: int
    number_text_tokens: int
    number_mel_codes: int
    start_mel_token: int
    stop_mel_token: int
    emo_condition_module: ConditionConfig
    condition_module: ConditionConfig | None = None
    """Of the speaker; IndexTTS-2.5 projects its speaker and has no such network."""
    start_text_token: int = 0
    stop_text_token: int = 1
    condition_type: Literal["conformer_perceiver"] = "conformer_perceiver"
    use_mel_codes_as_input: bool = True

    def __post_init__(self) -> None:
        if self.model_dim % self.heads or not self.use_mel_codes_as_input:
            raise ConfigError(
                f"gpt width {self.model_dim} with {self.heads} heads, use_mel_codes_as_input "
                f"{self.use_mel_codes_as_input}: expected a whole head size and true. Check config.yaml."
            )

    @property
    def code_positions(self) -> int:
        """Rows of the code position table. Source: the original adds 2 here and 1 in the class."""
        return self.max_mel_tokens + 3

    @property
    def text_positions(self) -> int:
        """Rows of the text position table."""
        return self.max_text_tokens + 2


GPT_TRAINING = (
    "mel_length_compression",
    "train_solo_embeddings",
    "checkpointing",
    "types",
    "max_conditioning_inputs",  # rows of training
    "condition_num_latent",  # read from the tensors
    "spk_cond_mode",  # told by the tensors
)


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """The semantic codec. Source: `config.yaml`, section `semantic_codec`."""

    codebook_size: int
    hidden_size: int
    codebook_dim: int
    vocos_dim: int
    vocos_intermediate_dim: int
    vocos_num_layers: int
    num_quantizers: Literal[1] = 1
    downsample_scale: Literal[1, 2] = 1
    """Features at 50 Hz for each code: 1 in IndexTTS2, 2 in IndexTTS-2.5."""


@dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
    """The prompt mel. Source: `config.yaml`, section `s2mel.preprocess_params.spect_params`."""

    n_fft: int
    win_length: int
    hop_length: int
    n_mels: int
    fmin: float = 0.0
    fmax: str | float | None = NYQUIST

    @property
    def highest(self) -> float | None:
        """The upper edge in Hz; None is the Nyquist frequency.

        Parity: the original knows the word "None", which the official file has, and takes whatever else
        stands there, null too, for 8000 Hz.
        """
        return None if self.fmax == NYQUIST else 8000.0


@dataclass(frozen=True, kw_only=True)
class RegulatorConfig:
    """Length regulator. Source: `config.yaml`, section `s2mel.length_regulator`."""

    channels: int
    in_channels: int
    sampling_ratios: tuple[int, ...]
    is_discrete: Literal[False] = False
    vector_quantize: Literal[False] = False
    f0_condition: Literal[False] = False


REGULATOR_TRAINING = ("content_codebook_size", "n_codebooks", "quantizer_dropout", "n_f0_bins")


@dataclass(frozen=True, kw_only=True)
class DitConfig:
    """Diffusion transformer. Source: `config.yaml`, section `s2mel.DiT`. Refuses switches never released."""

    hidden_dim: int
    num_heads: int
    depth: int
    in_channels: int
    content_dim: int
    zero_prompt_speech_token: bool = False
    uvit_skip_connection: bool = True
    style_condition: Literal[True] = True
    long_skip_connection: Literal[True] = True
    final_layer_type: Literal["wavenet"] = "wavenet"
    is_causal: Literal[False] = False
    time_as_token: Literal[False] = False
    style_as_token: Literal[False] = False
    f0_condition: Literal[False] = False

    def __post_init__(self) -> None:
        if self.hidden_dim % self.num_heads:
            raise ConfigError(
                f"DiT width {self.hidden_dim} does not divide over {self.num_heads} heads. Check config.yaml."
            )


DIT_TRAINING = (  # dropout, code books of variants without continuous content, static sequence limit
    "class_dropout_prob",
    "block_size",
    "target",
    "content_codebook_size",
    "content_type",
    "n_f0_bins",
    "content_codebooks",
    "add_resblock_in_transformer",
)


@dataclass(frozen=True, kw_only=True)
class WavenetConfig:
    """WaveNet tail of the DiT. Source: `config.yaml`, section `s2mel.wavenet`."""

    hidden_dim: int
    num_layers: int
    kernel_size: int
    dilation_rate: int = 1
    style_condition: Literal[True] = True


@dataclass(frozen=True, kw_only=True)
class S2MelConfig:
    """Codes and latents -> mel. Source: `config.yaml`, section `s2mel`."""

    sample_rate: int
    spectrogram: SpectrogramConfig
    style_dim: int
    regulator: RegulatorConfig
    dit: DitConfig
    wavenet: WavenetConfig

    def __post_init__(self) -> None:
        if self.dit.hidden_dim != self.wavenet.hidden_dim:
            raise ConfigError(
                f"DiT width {self.dit.hidden_dim} and WaveNet width {self.wavenet.hidden_dim} differ; the "
                "final layer needs them equal. Check config.yaml."
            )
        if self.spectrogram.n_mels != self.dit.in_channels:
            raise ConfigError(
                f"{self.spectrogram.n_mels} mel bins but DiT channels {self.dit.in_channels}. "
                "Check config.yaml."
            )


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Everything `config.yaml` says that inference reads."""

    is_multilingual: bool
    """IndexTTS-2.5: five languages, codes at 25 Hz. False is IndexTTS2."""
    gpt: GptConfig
    codec: CodecConfig
    s2mel: S2MelConfig
    bpe_model: str
    gpt_checkpoint: str
    s2mel_checkpoint: str
    w2v_stat: str
    emo_matrix: str
    spk_matrix: str
    qwen_emo_path: str
    emo_num: tuple[int, ...]
    vocoder_name: str

    @property
    def name(self) -> str:
        """Of the release."""
        return "IndexTTS-2.5" if self.is_multilingual else "IndexTTS2"


@dataclass(frozen=True, kw_only=True)
class W2vBertConfig:
    """w2v-bert-2.0. Source: its `config.json`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    feature_projection_input_dim: int
    conv_depthwise_kernel_size: int
    layer_norm_eps: float
    left_max_position_embeddings: int
    right_max_position_embeddings: int
    position_embeddings_type: Literal["relative_key"]
    hidden_act: Literal["swish", "silu"]

    @staticmethod
    def read(data: Mapping[str, Any]) -> W2vBertConfig:
        """From the whole `config.json`, most of which is about training and other heads."""
        return from_dict(W2vBertConfig, _only(W2vBertConfig, data), where="w2v-bert config.json")


@dataclass(frozen=True, kw_only=True)
class BigVganConfig:
    """BigVGAN v2. Source: its `config.json`."""

    num_mels: int
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    sampling_rate: int
    resblock: Literal["1"] = "1"
    activation: Literal["snakebeta"] = "snakebeta"
    snake_logscale: Literal[True] = True
    use_tanh_at_final: bool = True
    use_bias_at_final: bool = True

    @staticmethod
    def read(data: Mapping[str, Any]) -> BigVganConfig:
        """From the whole `config.json`; its other keys describe training."""
        return from_dict(BigVganConfig, _only(BigVganConfig, data), where="bigvgan config.json")

    @property
    def upsampling(self) -> int:
        """Samples for each mel frame."""
        total = 1
        for rate in self.upsample_rates:
            total *= rate
        return total


def _only(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key in kind.__dataclass_fields__}  # type: ignore[attr-defined]


def describes_index(path: Path) -> bool:
    """True for a config.yaml of IndexTTS, whatever version it names."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(data, dict) and "gpt" in data and "s2mel" in data


def _version(data: Mapping[str, Any]) -> float:
    """The `version` as a number; a word, or none, is 2."""
    try:
        return float(str(data.get("version")).lstrip("vV"))
    except ValueError:
        return 2.0


def read_config(path: Path) -> IndexConfig:
    """The config of a model folder. Raises CheckpointError, ConfigError."""
    if not path.is_file():
        raise CheckpointError(
            f"{path.name} is missing in {path.parent}. The folder is not a complete checkpoint; "
            "download it again."
        )
    try:
        data = _stripped(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML ({error}). Download the checkpoint again.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; expected sections. Download it again.")
    is_multilingual = _is_multilingual(path.parent, data)
    if not is_multilingual and not 2 <= _version(data) < 3:
        raise ConfigError(
            f"{path} is IndexTTS version {data['version']}; this runtime speaks IndexTTS2 and IndexTTS-2.5. "
            "IndexTTS 1.x has other networks: use a newer checkpoint."
        )
    try:
        s2mel = data["s2mel"]
        preprocess = s2mel["preprocess_params"]
        return IndexConfig(
            is_multilingual=is_multilingual,
            gpt=from_dict(
                GptConfig,
                _gpt_section(data["gpt"], has_speaker=not is_multilingual),
                ignored=GPT_TRAINING,
                where="section gpt",
            ),
            codec=_codec(data["semantic_codec"], scale=2 if is_multilingual else 1),
            s2mel=S2MelConfig(
                sample_rate=int(preprocess["sr"]),
                spectrogram=from_dict(
                    SpectrogramConfig, preprocess["spect_params"], where="section s2mel.spect_params"
                ),
                style_dim=int(s2mel["style_encoder"]["dim"]),
                regulator=from_dict(
                    RegulatorConfig,
                    s2mel["length_regulator"],
                    ignored=REGULATOR_TRAINING,
                    where="section s2mel.length_regulator",
                ),
                dit=from_dict(DitConfig, s2mel["DiT"], ignored=DIT_TRAINING, where="section s2mel.DiT"),
                wavenet=from_dict(
                    WavenetConfig, s2mel["wavenet"], ignored=("p_dropout",), where="section s2mel.wavenet"
                ),
            ),
            bpe_model=VOCABULARY_NAME if is_multilingual else data["dataset"]["bpe_model"],
            gpt_checkpoint=data["gpt_checkpoint"],
            s2mel_checkpoint=data["s2mel_checkpoint"],
            w2v_stat=data["w2v_stat"],
            emo_matrix=data["emo_matrix"],
            spk_matrix=data["spk_matrix"],
            qwen_emo_path=data.get("qwen_emo_path", "qwen0.6bemo4-merge/"),
            emo_num=tuple(int(n) for n in data["emo_num"]),
            vocoder_name=data.get("vocoder", {}).get("name", "nvidia/bigvgan_v2_22khz_80band_256x"),
        )
    except KeyError as error:
        raise ConfigError(
            f"{path} has no key {error}; expected the sections dataset, gpt, semantic_codec, s2mel and the "
            "file names. Use the config.yaml of the checkpoint's own release."
        ) from error


def _is_multilingual(folder: Path, data: Mapping[str, Any]) -> bool:
    """True for IndexTTS-2.5: by its vocabulary, and where that is missing by its config.

    The `version` alone says nothing: released configs of 2.5 carried 2.0. Nor does a `codec.pth`, which may
    be IndexTTS2's under a name of somebody's own.
    """
    if (folder / VOCABULARY_NAME).is_file():
        return True
    section = data.get("semantic_codec")
    halves = isinstance(section, Mapping) and "downsample_scale" in section
    return halves or _version(data) == 2.5


def _gpt_section(data: Mapping[str, Any], *, has_speaker: bool) -> dict[str, Any]:
    section = dict(data)
    if not has_speaker:
        section.pop("condition_module", None)  # IndexTTS-2.5's file still describes IndexTTS2's network
    for key in ("condition_module", "emo_condition_module") if has_speaker else ("emo_condition_module",):
        section[key] = from_dict(ConditionConfig, section[key], where=f"section gpt.{key}")
    return section


def _codec(data: Mapping[str, Any], *, scale: int) -> CodecConfig:
    codec: CodecConfig = from_dict(
        CodecConfig, {"downsample_scale": scale, **data}, where="section semantic_codec"
    )
    if codec.downsample_scale != scale:
        raise ConfigError(
            f"semantic_codec.downsample_scale is {codec.downsample_scale}; expected {scale}. Use the "
            "config.yaml of the checkpoint's own release."
        )
    return codec


def _stripped(value: Any) -> Any:
    """Strings without the trailing blanks that the official file has."""
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value.strip() if isinstance(value, str) else value
