"""IndexTTS2 and IndexTTS-2.5 checkpoints of the true shapes in the official layout, with random weights.

Names and shapes are those of the originals' classes. The text-to-emotion model is left out, and the
vocabularies know only the words of the spoken texts.
"""

from __future__ import annotations

import base64
import io
import json
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sonant.bench.random_weights import Noise, Shapes, recorded_shapes
from sonant.bench.spoken_text import FIRST_AUDIO_TEXT, TEXT, pieces

NAMES = {release: {"release": release} for release in ("indextts2", "indextts2.5")}
RIVAL = "indextts"

START = 8192
"""It and the stop code, the last one, are never chosen: the length is decided by who measures."""
RANKS = 58836
"""Tokens of IndexTTS-2.5's vocabulary before the special ones."""
EMOTIONS = 73
"""Rows of both emotion matrices, the sum of `emo_num`."""
CONFIG = """
dataset:
  bpe_model: bpe.model
  sample_rate: 24000
  squeeze: false
  mel: {sample_rate: 24000, n_fft: 1024, hop_length: 256, win_length: 1024, n_mels: 100, mel_fmin: 0,
    normalize: false}
gpt:
  model_dim: 1280
  max_mel_tokens: 1815
  max_text_tokens: 600
  heads: 20
  use_mel_codes_as_input: true
  mel_length_compression: 1024
  layers: 24
  number_text_tokens: 12000
  number_mel_codes: 8194
  start_mel_token: 8192
  stop_mel_token: 8193
  start_text_token: 0
  stop_text_token: 1
  train_solo_embeddings: false
  condition_type: conformer_perceiver
  condition_module: {output_size: 512, linear_units: 2048, attention_heads: 8, num_blocks: 6,
    input_layer: conv2d2, perceiver_mult: 2}
  emo_condition_module: {output_size: 512, linear_units: 1024, attention_heads: 4, num_blocks: 4,
    input_layer: conv2d2, perceiver_mult: 2}
semantic_codec: {codebook_size: 8192, hidden_size: 1024, codebook_dim: 8, vocos_dim: 384,
  vocos_intermediate_dim: 2048, vocos_num_layers: 12}
s2mel:
  preprocess_params:
    sr: 22050
    spect_params: {n_fft: 1024, win_length: 1024, hop_length: 256, n_mels: 80, fmin: 0, fmax: "None"}
  dit_type: DiT
  reg_loss_type: l1
  style_encoder: {dim: 192}
  length_regulator: {channels: 512, is_discrete: false, in_channels: 1024, content_codebook_size: 2048,
    sampling_ratios: [1, 1, 1, 1], vector_quantize: false, n_codebooks: 1, quantizer_dropout: 0.0,
    f0_condition: false, n_f0_bins: 512}
  DiT: {hidden_dim: 512, num_heads: 8, depth: 13, class_dropout_prob: 0.1, block_size: 8192,
    in_channels: 80, style_condition: true, final_layer_type: wavenet, target: mel, content_dim: 512,
    content_codebook_size: 1024, content_type: discrete, f0_condition: false, n_f0_bins: 512,
    content_codebooks: 1, is_causal: false, long_skip_connection: true, zero_prompt_speech_token: false,
    time_as_token: false, style_as_token: false, uvit_skip_connection: true,
    add_resblock_in_transformer: false}
  wavenet: {hidden_dim: 512, num_layers: 8, kernel_size: 5, dilation_rate: 1, p_dropout: 0.2,
    style_condition: true}
gpt_checkpoint: gpt.pth
w2v_stat: wav2vec2bert_stats.pt
s2mel_checkpoint: s2mel.pth
emo_matrix: feat2.pt
spk_matrix: feat1.pt
emo_num: [3, 17, 2, 8, 4, 5, 10, 24]
qwen_emo_path: qwen0.6bemo4-merge/
vocoder: {type: bigvgan, name: nvidia/bigvgan_v2_22khz_80band_256x}
version: 2.0
"""
_CHANGED = (
    ("bpe_model: bpe.model", "bpe_model: multilingual_zh_ja_yue_char_del.tiktoken"),
    ("number_text_tokens: 12000", "number_text_tokens: 60509"),
    ("vocos_num_layers: 12}", "vocos_num_layers: 12, downsample_scale: 2}"),
    ("version: 2.0", "version: 2.5"),
)
"""IndexTTS-2.5's config where it differs."""
W2V_BERT = {
    "add_adapter": False, "architectures": ["Wav2Vec2BertModel"], "conv_depthwise_kernel_size": 31,
    "feature_projection_input_dim": 160, "hidden_act": "swish", "hidden_size": 1024,
    "intermediate_size": 4096, "layer_norm_eps": 1e-5, "left_max_position_embeddings": 64,
    "max_source_positions": 5000, "model_type": "wav2vec2-bert", "num_attention_heads": 16,
    "num_hidden_layers": 24, "position_embeddings_type": "relative_key",
    "right_max_position_embeddings": 8, "use_intermediate_ffn_before_adapter": False,
}  # fmt: skip
FEATURES = {
    "feature_extractor_type": "SeamlessM4TFeatureExtractor", "feature_size": 80, "num_mel_bins": 80,
    "padding_side": "right", "padding_value": 1, "return_attention_mask": True, "sampling_rate": 16_000,
    "stride": 2,
}  # fmt: skip
BIGVGAN = {
    "resblock": "1", "upsample_rates": [4, 4, 2, 2, 2, 2], "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
    "upsample_initial_channel": 1536, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "use_tanh_at_final": False,
    "use_bias_at_final": False, "activation": "snakebeta", "snake_logscale": True, "num_mels": 80,
    "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 22_050, "fmin": 0, "fmax": None,
}  # fmt: skip


def shapes_of(release: str) -> Shapes:
    """Names and shapes of each file of "indextts2" or "indextts2.5"."""
    found = recorded_shapes("indextts2")
    if release == "indextts2.5":
        del found["hf_cache/semantic_codec_model.safetensors"]
        found |= recorded_shapes(release)
    return found


def write(folder: Path, release: str = "indextts2", *, shapes: Shapes | None = None) -> None:
    """Write the checkpoint, about 7 GB; other `shapes` than the recorded ones make another size."""
    from safetensors.torch import save_file

    noise = Noise()
    cache = folder / "hf_cache"
    for name, config in (
        ("w2v-bert-2.0/config.json", W2V_BERT),
        ("w2v-bert-2.0/preprocessor_config.json", FEATURES),
        ("bigvgan/config.json", BIGVGAN),
    ):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(json.dumps(config, indent=1), encoding="utf-8")
    config_text = CONFIG
    if release == "indextts2.5":
        for old, new in _CHANGED:
            config_text = config_text.replace(old, new)
        _write_ranks(folder / "multilingual_zh_ja_yue_char_del.tiktoken")
    else:
        (folder / "bpe.model").write_bytes(_piece_model())
    (folder / "config.yaml").write_text(config_text, encoding="utf-8")
    torch.save(noise.tensor((EMOTIONS, 192)), folder / "feat1.pt")
    torch.save(noise.tensor((EMOTIONS, 1280)), folder / "feat2.pt")
    for name, listed in (shapes or shapes_of(release)).items():
        tensors = {key: _tensor(key, shape, noise) for key, shape in listed.items()}
        if name == "gpt.pth":
            tensors["mel_head.bias"][START:] = -1e4
        if name.endswith(".safetensors"):
            save_file(tensors, folder / name, metadata={"format": "pt"})
        else:
            torch.save(_nested(name, tensors), folder / name)


def _nested(name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The table as the file of this name holds it."""
    if "bigvgan" in name:
        return {"generator": tensors}
    if name == "codec.pth":
        return {"model": tensors}
    if name != "s2mel.pth":
        return tensors
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, rest = key.split(".", 1)
        parts.setdefault(part, {})[rest] = tensor
    return {"net": parts}


def _tensor(name: str, shape: list[int], noise: Noise) -> Tensor:
    if name.endswith(("num_batches_tracked", "input_pos")):
        return torch.zeros(shape, dtype=torch.int64)
    is_gain = ("norm" in name and "bias" not in name) or (len(shape) == 1 and name.endswith(".weight"))
    if is_gain or name.endswith(("running_var", "weight_g", "var", "gamma")):
        return torch.ones(shape)
    if len(shape) == 1 or name.endswith("running_mean"):
        return torch.zeros(shape)
    return noise.tensor(shape)


def _write_ranks(file: Path) -> None:
    """A vocabulary in tiktoken's form that takes each word of the spoken texts whole; filled up."""
    words = [word.encode() for text in (TEXT, FIRST_AUDIO_TEXT) for word in pieces(text.lower())]
    tokens = dict.fromkeys([*(bytes((value,)) for value in range(256)), *words])
    filler = (f"filler{number}".encode() for number in count())
    tokens |= dict.fromkeys(islice(filler, RANKS - len(tokens)))
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    file.write_text("\n".join(lines) + "\n", encoding="ascii")


def _piece_model() -> bytes:
    """A SentencePiece model trained on the spoken texts, in capitals as the front end gives them."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((TEXT.upper(), FIRST_AUDIO_TEXT.upper(), TEXT, FIRST_AUDIO_TEXT)),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        hard_vocab_limit=False,
        bos_id=0,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    return model.getvalue()
