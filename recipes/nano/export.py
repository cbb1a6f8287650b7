"""Write the checkpoint in the official layout, bfloat16, and hold it against the training networks.

model/: config.json, generation_config.json, model.safetensors, vocab.json, merges.txt, tokenizer_config.json,
preprocessor_config.json, front_end.{json,safetensors}, speech_tokenizer/{config.json, model.safetensors, ...}
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.nano import decoder as decoder_stage
from recipes.nano import encoder as encoder_stage
from recipes.nano.codec_net import CodecDecoder, transformer_config
from recipes.nano.codes import Codes
from recipes.nano.progress import resume
from recipes.nano.settings import FRAME, SAMPLE_RATE, Settings
from recipes.nano.talker_net import SPEAKER, SPECIALS, TalkerNet, predictor_stack, talker_stack
from sonant.nn.transformer import DecoderConfig
from sonant.text.paced_phonemes import SYMBOLS, PacedPhonemes

ADDED = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
)
GENERATION = {
    "do_sample": False,
    "temperature": 0.6,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "subtalker_dosample": False,
    "subtalker_temperature": 0.6,
    "subtalker_top_k": 50,
    "subtalker_top_p": 1.0,
    "max_new_tokens": 2048,
}


def byte_letters() -> dict[int, str]:
    """The printable stand-in of every byte in a byte-level vocabulary, as GPT-2 defined it."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(b for b in range(256) if b not in letters)}
    return letters


def tokenizer() -> tuple[dict[str, int], list[tuple[str, str]], dict[str, tuple[int, int]]]:
    """Vocabulary, merges, and which piece is which pair of sounds.

    Every pair " ab" is one piece, reached by joining its bytes from the left. The chain of "assistant" comes
    last, so that it never gets in the way.
    """
    letters = byte_letters()
    vocabulary = {letters[byte]: byte for byte in range(256)}
    merges: list[tuple[str, str]] = []

    def chain(text: str) -> str:
        pieces = [letters[byte] for byte in text.encode()]
        whole = pieces[0]
        for piece in pieces[1:]:
            if whole + piece not in vocabulary:
                merges.append((whole, piece))
                vocabulary[whole + piece] = len(vocabulary)
            whole += piece
        return whole

    pairs: dict[str, tuple[int, int]] = {}
    for a, first in enumerate(SYMBOLS):
        pairs[chain(f" {first}")] = (a, a)
    for a, first in enumerate(SYMBOLS):
        for b, second in enumerate(SYMBOLS):
            pairs[chain(f" {first}{second}")] = (a, b)
    chain("assistant")
    return vocabulary, merges, pairs


def _stack(config: DecoderConfig, positions: int) -> dict[str, Any]:
    c = asdict(config)
    return {
        "hidden_size": c["width"],
        "num_hidden_layers": c["layers"],
        "num_attention_heads": c["heads"],
        "num_key_value_heads": c["kv_heads"],
        "head_dim": c["head_dim"],
        "intermediate_size": c["intermediate"],
        "rope_theta": c["rope_theta"],
        "rms_norm_eps": c["norm_eps"],
        "max_position_embeddings": positions,
        "hidden_act": "silu",
        "attention_bias": False,
    }


def _stack_tensors(net: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    return {
        prefix + name: tensor
        for name, tensor in net.state_dict().items()
        if name.startswith(("layers.", "norm."))
    }


def talker_tensors(
    net: TalkerNet, vocabulary: dict[str, int], pairs: dict[str, tuple[int, int]]
) -> dict[str, Tensor]:
    """`model.safetensors`."""
    s = net.s
    table = torch.zeros(len(vocabulary) + len(ADDED), s.text_width)
    for piece, (a, b) in pairs.items():
        table[vocabulary[piece]] = net.first.weight[a] + net.second.weight[b]
    rows = {**vocabulary, **{name: len(vocabulary) + n for n, name in enumerate(ADDED)}}
    for n, name in enumerate(SPECIALS):
        table[rows[{"\n": "Ċ"}.get(name, name)]] = net.special.weight[n]
    head = torch.zeros(net.ids.rows, s.talker_width)
    head[: s.codebook] = net.codec_head.weight[: s.codebook]
    head[net.ids.eos] = net.codec_head.weight[s.codebook]
    tensors = {
        "talker.model.text_embedding.weight": table,
        "talker.model.codec_embedding.weight": net.codec_embedding.weight,
        "talker.text_projection.linear_fc1.weight": net.fc1.weight,
        "talker.text_projection.linear_fc1.bias": net.fc1.bias,
        "talker.text_projection.linear_fc2.weight": net.fc2.weight,
        "talker.text_projection.linear_fc2.bias": net.fc2.bias,
        "talker.codec_head.weight": head,
        "talker.code_predictor.small_to_mtp_projection.weight": net.to_predictor.weight,
        "talker.code_predictor.small_to_mtp_projection.bias": net.to_predictor.bias,
        **_stack_tensors(net.decoder, "talker.model."),
        **_stack_tensors(net.predictor, "talker.code_predictor.model."),
    }
    for k, code_table in enumerate(net.code_tables):
        tensors[f"talker.code_predictor.model.codec_embedding.{k}.weight"] = code_table.weight
        tensors[f"talker.code_predictor.lm_head.{k}.weight"] = net.heads[k]
    return tensors


def decoder_tensors(net: CodecDecoder, fit: Codes) -> dict[str, Tensor]:
    """The decoder's half of `speech_tokenizer/model.safetensors`."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        if name.startswith("mel."):
            continue
        for ours, part in (("semantic_out.weight", "first"), ("acoustic_out.weight", "rest")):
            if name == ours:
                tensors[f"decoder.quantizer.rvq_{part}.output_proj.weight"] = tensor[..., None]
                # Never used for decoding; the layout has it.
                unused = torch.zeros(tensor.shape[1], tensor.shape[0], 1)
                tensors[f"decoder.quantizer.rvq_{part}.input_proj.weight"] = unused
                break
        else:
            tensors[f"decoder.{name}"] = tensor
    for k, book in enumerate(fit.books):
        place = "rvq_first.vq.layers.0" if k == 0 else f"rvq_rest.vq.layers.{k - 1}"
        tensors[f"decoder.quantizer.{place}._codebook.embedding_sum"] = book
        tensors[f"decoder.quantizer.{place}._codebook.cluster_usage"] = torch.ones(len(book))
    return tensors


def encoder_tensors(net: torch.nn.Module, fit: Codes) -> dict[str, Tensor]:
    """The encoder's half, from Sonant's own module names."""
    tensors: dict[str, Tensor] = {}
    blocks = len(encoder_stage.RATIOS)
    for name, tensor in net.state_dict().items():
        part, _, rest = name.partition(".")
        if part in ("semantic", "acoustic"):
            continue
        if part in ("semantic_in", "acoustic_in"):
            kind = part.removesuffix("_in")
            place = f"encoder.quantizer.{kind}_residual_vector_quantizer."
            tensors[place + "input_proj.weight"] = tensor
            tensors[place + "output_proj.weight"] = torch.zeros_like(tensor.transpose(0, 1))
        elif part == "downsample":
            tensors[f"encoder.downsample.conv.{rest}"] = tensor
        elif part == "layers":
            index, _, leaf = rest.partition(".")
            group = {"q": "self_attn.", "k": "self_attn.", "v": "self_attn.", "o": "self_attn.", "f": "mlp."}
            inner = (
                group[leaf[0]]
                if leaf.split(".")[0] in {"q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"}
                else ""
            )
            tensors[f"encoder.encoder_transformer.layers.{index}.{inner}{leaf}"] = tensor
        else:
            kind, _, leaf = rest.partition(".")
            if kind == "first":
                place = "0"
            elif kind == "last":
                place = str(3 * blocks + 2)
            else:
                index, _, leaf = leaf.partition(".")
                if kind == "strided":
                    place = str(3 * int(index) + 3)
                else:
                    which, _, leaf = leaf.partition(".")
                    place = f"{3 * int(index) + 1}.block.{1 if which == 'first' else 3}"
            tensors[f"encoder.encoder.layers.{place}.conv.{leaf}"] = tensor
    for k, book in enumerate(fit.books):
        kind, place = ("semantic", 0) if k == 0 else ("acoustic", k - 1)
        stem = f"encoder.quantizer.{kind}_residual_vector_quantizer.layers.{place}.codebook."
        tensors[stem + "embed_sum"] = book
        tensors[stem + "cluster_usage"] = torch.ones(len(book))
        tensors[stem + "initialized"] = torch.ones(1)
    return tensors


def configs(s: Settings, net: TalkerNet, vocabulary: dict[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.json` and `speech_tokenizer/config.json`."""
    ids = net.ids
    added = {name: len(vocabulary) + n for n, name in enumerate(ADDED)}
    half = s.talker_width // s.talker_heads // 2
    model = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "nano",
        "tts_model_type": "custom_voice",
        "sonant_front_end": PacedPhonemes.name,
        "assistant_token_id": vocabulary["assistant"],
        "im_start_token_id": added["<|im_start|>"],
        "im_end_token_id": added["<|im_end|>"],
        "tts_pad_token_id": added["<tts_pad>"],
        "tts_bos_token_id": added["<tts_text_bos>"],
        "tts_eos_token_id": added["<tts_text_eod>"],
        "talker_config": {
            "model_type": "qwen3_tts_talker",
            **_stack(talker_stack(s), 4096),
            "vocab_size": ids.rows,
            "num_code_groups": s.groups,
            "text_vocab_size": len(vocabulary) + len(ADDED),
            "text_hidden_size": s.text_width,
            "rope_scaling": {
                "interleaved": True,
                "mrope_section": [half - 2 * (half // 3), half // 3, half // 3],
                "rope_type": "default",
                "type": "default",
            },
            "codec_pad_id": ids.pad,
            "codec_bos_id": ids.bos,
            "codec_eos_token_id": ids.eos,
            "codec_think_id": ids.think,
            "codec_nothink_id": ids.nothink,
            "codec_think_bos_id": ids.think_bos,
            "codec_think_eos_id": ids.think_eos,
            "codec_language_id": {"english": ids.english},
            "spk_id": {SPEAKER: ids.speaker},
            "spk_is_dialect": {SPEAKER: False},
            "code_predictor_config": {
                "model_type": "qwen3_tts_talker_code_predictor",
                **_stack(predictor_stack(s), 4096),
                "vocab_size": s.codebook,
                "num_code_groups": s.groups,
                "layer_types": ["full_attention"] * s.predictor_layers,
            },
        },
    }
    e = encoder_stage.config(s)
    codec = {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": s.groups,
        "input_sample_rate": SAMPLE_RATE,
        "output_sample_rate": SAMPLE_RATE,
        "decode_upsample_rate": FRAME,
        "encode_downsample_rate": FRAME,
        "decoder_config": {
            **_stack(transformer_config(s), 8000),
            "codebook_size": s.codebook,
            "codebook_dim": 2 * s.features,
            "num_quantizers": s.groups,
            "num_semantic_quantizers": 1,
            "latent_dim": s.latent,
            "decoder_dim": s.decoder_width,
            "upsample_rates": [8, 5, 4, 3],
            "upsampling_ratios": [2, 2],
            "sliding_window": s.decoder_window,
        },
        "encoder_config": {
            "_frame_rate": e.frame_rate,
            "attention_bias": False,
            "audio_channels": 1,
            "codebook_size": e.codebook_size,
            "codebook_dim": e.codebook_dim,
            "compress": e.compress,
            "head_dim": e.head_dim,
            "hidden_act": "gelu",
            "hidden_size": e.width,
            "intermediate_size": e.intermediate,
            "kernel_size": e.kernel_size,
            "last_kernel_size": e.last_kernel_size,
            "norm_eps": e.norm_eps,
            "normalize": False,
            "num_attention_heads": e.heads,
            "num_filters": e.filters,
            "num_hidden_layers": e.layers,
            "num_key_value_heads": e.kv_heads,
            "num_quantizers": e.quantizers,
            "num_residual_layers": 1,
            "num_semantic_quantizers": 1,
            "pad_mode": "constant",
            "residual_kernel_size": e.residual_kernel_size,
            "rope_theta": e.rope_theta,
            "sampling_rate": e.sampling_rate,
            "upsampling_ratios": list(e.upsampling_ratios),
            "use_causal_conv": True,
            "use_conv_shortcut": False,
            "max_position_embeddings": 8000,
        },
    }
    return model, codec


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    narrow = {name: t.detach().to(torch.bfloat16).contiguous().clone() for name, t in tensors.items()}
    save_file(narrow, path, metadata={"format": "pt"})


def make(s: Settings) -> None:
    """Write model/ and check that Sonant's family gives what the training networks give."""
    fit = Codes.load(s)
    found = {name: resume(s.work / name / "state.pt") for name in ("talker", "decoder", "encoder")}
    missing = [name for name, state in found.items() if state is None]
    if missing:
        raise SystemExit(f"no training state of: {', '.join(missing)}. Run these stages first.")
    net = TalkerNet(s).eval()
    net.load_state_dict(found["talker"]["net"])  # type: ignore[index]
    voice = decoder_stage.build(s, fit).eval()
    voice.load_state_dict(found["decoder"]["net"])  # type: ignore[index]
    encoder = encoder_stage.build(s).eval()
    encoder.load_state_dict(found["encoder"]["net"])  # type: ignore[index]
    vocabulary, merges, pairs = tokenizer()
    folder = s.folder("model")
    codec_folder = s.folder("model/speech_tokenizer")
    model, codec = configs(s, net, vocabulary)
    _json(folder / "config.json", model)
    _json(codec_folder / "config.json", codec)
    _json(folder / "generation_config.json", GENERATION)
    _json(folder / "vocab.json", vocabulary)
    lines = "\n".join(f"{a} {b}" for a, b in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
    added = {
        str(len(vocabulary) + n): {
            "content": name,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for n, name in enumerate(ADDED)
    }
    _json(
        folder / "tokenizer_config.json", {"added_tokens_decoder": added, "tokenizer_class": "Qwen2Tokenizer"}
    )
    _json(folder / "preprocessor_config.json", {"padding_side": "left", "padding_value": 0.0})
    _json(codec_folder / "preprocessor_config.json", {"feature_size": 1, "sampling_rate": SAMPLE_RATE})
    for name in ("front_end.json", "front_end.safetensors"):
        shutil.copyfile(s.work / "pace" / name, folder / name)
    _save(folder / "model.safetensors", talker_tensors(net, vocabulary, pairs))
    _save(
        codec_folder / "model.safetensors", {**decoder_tensors(voice, fit), **encoder_tensors(encoder, fit)}
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"export: {folder}, {size / 1e6:.1f} MB")
    check(s, net, voice, fit, folder)


@torch.inference_mode()
def check(s: Settings, net: TalkerNet, voice: CodecDecoder, fit: Codes, folder: Path) -> None:
    """The exported files, loaded by Sonant, against the training networks rounded to bfloat16."""
    from recipes.nano.codec_net import Snake
    from sonant.families.qwen3_tts import prompt as prompts
    from sonant.families.qwen3_tts.loading import load_folder

    Snake.compiled = False
    loaded: Any = load_folder(folder, device=torch.device("cpu"), dtype=torch.float32)
    for module in (net, voice):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(torch.bfloat16).float()
    fit.books = fit.books.to(torch.bfloat16).float()
    codes = torch.randint(s.codebook, (12, s.groups), generator=torch.Generator().manual_seed(s.seed))
    ours = voice(fit.books[0][codes[None, :, 0]], fit.chain(codes[None]))[0].clamp(-1, 1)
    theirs = loaded.decode_tokens(codes)
    gap = float((ours - theirs).abs().max())
    text = [(1, 2), (2, 2), (5, 9)]
    ids = prompts.text_ids(loaded.tokenizer, "".join(f" {SYMBOLS[a]}{SYMBOLS[b]}" for a, b in text))
    inputs = prompts.build_inputs(
        loaded.network,
        loaded.config,
        text=ids,
        layout="progressive",
        language=net.ids.english,
        speaker=net.ids.speaker,
    )
    said = net.pairs(torch.tensor([text]))
    prefix_gap = float((net.prefix(said[:, 0], True)[0] - inputs.embeds).abs().max())
    trailing_gap = float((said[0, 1:] - inputs.trailing[:2]).abs().max())
    hidden = loaded.network.talker(inputs.embeds[None])
    state_gap = float((net.decoder(net.prefix(said[:, 0], True)) - hidden).abs().max())
    print(f"export: largest differences: waveform {gap:.1e}, prompt {prefix_gap:.1e}, state {state_gap:.1e}")
    # bfloat16 rounding of the pairs' sums against the sum of rounded halves is the only true difference.
    assert gap < 1e-3, "the exported codec differs from the trained one"
    assert max(prefix_gap, trailing_gap) < 0.05, "the exported prompt differs from the trained one"
    assert len(ids) == len(text) + prompts.ROLE_IDS + prompts.AFTER_TEXT_IDS, "a pair is not one token"
