"""A CosyVoice3 0.5B checkpoint of the true shapes in the official layout, with random weights.

Names and shapes are those of the original's classes. It brings one voice, `bench`, as stored features of
three seconds, so the two ONNX encoders are never run; the files in their places hold one node each.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import torch
from torch import Tensor

from sonant.bench.random_weights import Noise, Shapes, recorded_shapes, spelled_vocabulary
from sonant.bench.spoken_text import FIRST_AUDIO_TEXT, TEXT, pieces

NAMES: dict[str, dict[str, str]] = {"cosyvoice3-0.5b": {}}
RIVAL = "cosyvoice"

PROMPT_SECONDS = 3
ORDINARY_IDS = 151_643
MARKERS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_PROMPT = ORDINARY_IDS + len(MARKERS)
SPEECH_TOKENS = 6561
SILENCES = [1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323]
"""Ids of which more than five in a row are dropped. Source: the original's CosyVoice3Model."""
SCORE_SPREAD = 10.0
"""Standard deviation of the ids' scores; an id without a score is then never drawn."""
IDENTITY = "CAg6OQoQCgF4EgF5IghJZGVudGl0eRIBZ1oQCgF4EgsKCQgBEgUKAxIBbmIQCgF5EgsKCQgBEgUKAxIBbkIECgAQDQ=="
"""An ONNX graph with one Identity node."""

CONFIG = """
sample_rate: 24000
llm_input_size: 896
llm_output_size: 896
spk_embed_dim: 192
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2
chunk_size: 25
num_decoding_left_chunks: -1
llm: !new:cosyvoice.llm.llm.CosyVoice3LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: 6561
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
        top_k: 25
        win_size: 10
        tau_r: 0.1
flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT
    input_size: 80
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: 6561
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    pre_lookahead_layer: !new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer
        in_channels: 80
        channels: 1024
        pre_lookahead_len: 3
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: 0.7
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.DiT.dit.DiT
            dim: 1024
            depth: 22
            heads: 16
            dim_head: 64
            ff_mult: 2
            mel_dim: 80
            mu_dim: 80
            spk_dim: 80
            out_channels: 80
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>
hift: !new:cosyvoice.hifigan.generator.CausalHiFTGenerator
    in_channels: 80
    base_channels: 512
    nb_harmonics: 8
    sampling_rate: !ref <sample_rate>
    nsf_alpha: 0.1
    nsf_sigma: 0.003
    nsf_voiced_threshold: 10
    upsample_rates: [8, 5, 3]
    upsample_kernel_sizes: [16, 11, 7]
    istft_params:
        n_fft: 16
        hop_len: 4
    resblock_kernel_sizes: [3, 7, 11]
    resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    source_resblock_kernel_sizes: [7, 7, 11]
    source_resblock_dilation_sizes: [[1, 3, 5], [1, 3, 5], [1, 3, 5]]
    lrelu_slope: 0.1
    audio_limit: 0.99
    conv_pre_look_right: 4
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.CausalConvRNNF0Predictor
        num_class: 1
        in_channels: 80
        cond_channels: 512
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
    version: cosyvoice3
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: null
    center: False
"""
QWEN = {
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": ORDINARY_IDS,
    "eos_token_id": ORDINARY_IDS + 2, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
    "intermediate_size": 4864, "max_position_embeddings": 32_768, "max_window_layers": 24,
    "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "sliding_window": 32_768, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.3", "use_cache": True,
    "use_sliding_window": False, "vocab_size": 151_936,
}  # fmt: skip


def write(folder: Path, *, shapes: Shapes | None = None) -> None:
    """Write the checkpoint, about 4.5 GB; other `shapes` than the recorded ones make another size."""
    from safetensors.torch import save_file

    noise = Noise()
    qwen = folder / "CosyVoice-BlankEN"
    qwen.mkdir(parents=True, exist_ok=True)
    (folder / "cosyvoice3.yaml").write_text(CONFIG, encoding="utf-8")
    for name in ("campplus.onnx", "speech_tokenizer_v3.onnx"):
        (folder / name).write_bytes(base64.b64decode(IDENTITY))
    (qwen / "config.json").write_text(json.dumps(QWEN, indent=1), encoding="utf-8")
    _write_tokenizer(qwen)
    torch.save({"bench": _voice(noise)}, folder / "spk2info.pt")
    for name, listed in (shapes or recorded_shapes("cosyvoice3")).items():
        tensors = {key: _tensor(key, shape, noise) for key, shape in listed.items()}
        if name == "llm.pt":
            head = tensors["llm_decoder.weight"].mul_(SCORE_SPREAD)
            head[SPEECH_TOKENS:] = 0  # the ids that end an utterance
            head[[token for token in SILENCES if token < len(head)]] = 0
            # One tensor under two names, as in the release.
            tensors["llm.model.lm_head.weight"] = tensors["llm.model.model.embed_tokens.weight"]
        if name.endswith(".safetensors"):
            narrow = {key: tensor.bfloat16() for key, tensor in tensors.items()}
            save_file(narrow, folder / name, metadata={"format": "pt"})
        else:
            torch.save(tensors, folder / name)


def _tensor(name: str, shape: list[int], noise: Noise) -> Tensor:
    if name.endswith("inv_freq"):
        return 1.0 / (10_000 ** (torch.arange(0, 2 * shape[0], 2).float() / (2 * shape[0])))
    if name.endswith(("alpha", "original0")) or (
        "norm" in name and name.endswith("weight") and len(shape) == 1
    ):
        return torch.ones(shape)
    return torch.zeros(shape) if len(shape) == 1 else noise.tensor(shape)


def _write_tokenizer(folder: Path) -> None:
    """Each word of the spoken texts is a token of its own, as nearly all are in the true vocabulary."""
    words = [*pieces(TEXT), *pieces(FIRST_AUDIO_TEXT)]
    vocabulary, merges = spelled_vocabulary(words, ORDINARY_IDS)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(ORDINARY_IDS + n): {"content": marker, **flags} for n, marker in enumerate(MARKERS)}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "errors": "replace",
        "model_max_length": 32_768,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _voice(noise: Noise) -> dict[str, Tensor]:
    """A stored speaker: text, tokens at 25 Hz, mel at 50 Hz, speaker vector."""
    count = PROMPT_SECONDS * 25
    tokens = torch.arange(100, 100 + count)[None].int()
    text = torch.tensor([[*range(1000, 1006), END_OF_PROMPT, *range(2000, 2009)]]).int()
    mel = noise.tensor((2 * count, 1)).expand(-1, 80)[None] - 5.0
    speaker = noise.tensor((192, 1)).T.contiguous()
    return {
        "prompt_text": text,
        "prompt_text_len": torch.tensor([text.shape[1]]).int(),
        "llm_prompt_speech_token": tokens,
        "llm_prompt_speech_token_len": torch.tensor([count]).int(),
        "flow_prompt_speech_token": tokens,
        "flow_prompt_speech_token_len": torch.tensor([count]).int(),
        "prompt_speech_feat": mel.contiguous(),
        "prompt_speech_feat_len": torch.tensor([2 * count]).int(),
        "llm_embedding": speaker,
        "flow_embedding": speaker,
    }
