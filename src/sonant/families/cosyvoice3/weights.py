"""Checkpoint files -> networks: key rules, folded weight norm, strict loading.

`llm.pt`, `flow.pt` and `hift.pt` of an official folder, or `llm.safetensors`, `flow.safetensors` and
`hift.safetensors` of a converted one. The Qwen2 folder's own `model.safetensors` is never read: the
release replaces every value of it by `llm.pt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sonant.checkpoints.files import read_pickle, read_tensors
from sonant.checkpoints.modules import build, fold_weight_norm, load_strict, own_table, used, without_training
from sonant.errors import CheckpointError
from sonant.families.cosyvoice3.config import CosyVoice3Config, read_config
from sonant.families.cosyvoice3.encoders import SPEAKER_NAME, TOKENIZER_NAME
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.native_vocoder import use_native
from sonant.families.cosyvoice3.prompt import PRESETS_NAME, flattened, read_presets
from sonant.families.cosyvoice3.vocoder import Vocoder
from sonant.native import library
from sonant.nn.narrow_products import narrow_products
from sonant.nn.packed import let_go, pack, packed
from sonant.nn.precision import StackPlan, plain_linear, plain_stack
from sonant.nn.quantized import PackedStore, quantize_decoder, quantize_linear
from sonant.nn.transformer import Decoder

LANGUAGE_RULES = (
    (r"^llm\.model\.model\.embed_tokens\.", "text_embedding."),
    (r"^llm\.model\.model\.", "decoder."),
    (r"^llm_decoder\.", "head."),
)
LANGUAGE_IGNORED = (r"^llm\.model\.lm_head\.",)  # Qwen2's text head; speech has its own
VOCODER_RULES = ((r"^generator\.", ""),)
VARIANTS = ("rl",)
"""Other language models of the release, trained further by reinforcement."""
PARTS = ("llm", "flow", "hift")
F0_PREFIX = "f0_predictor."
FLOW_ROWS = 512
"""Frames of a typical run of the flow, both halves of the guidance."""


def part_file(folder: Path, name: str, variant: str | None = None) -> Path:
    """The file of one part, converted or official.

    A variant replaces the language model (`llm.rl.pt`); a folder that holds nothing but a variant's has that.
    """
    kinds = [None, *VARIANTS] if variant is None else [variant]
    stems = [name if kind is None else f"{name}.{kind}" for kind in kinds] if name == "llm" else [name]
    files = [folder / f"{stem}{suffix}" for stem in stems for suffix in (".safetensors", ".pt")]
    return next((file for file in files if file.is_file()), files[1])


def read_part(folder: Path, name: str, variant: str | None = None) -> dict[str, Tensor]:
    """Named tensors of one part ("llm", "flow" or "hift"), from safetensors or the official pickle."""
    path = part_file(folder, name, variant)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    data = read_pickle(path)
    table = own_table(data, "generator", where=str(path)) if isinstance(data, Mapping) else {}
    named = ((str(key), value) for key, value in table.items() if isinstance(value, Tensor))  # not the epoch
    tensors = without_training(named, str(path))
    if not tensors:
        raise CheckpointError(
            f"{path} holds no table of tensors; expected the weights of one network. "
            "It is another file, or damaged: download it again."
        )
    return tensors


def part_tensors(
    folder: Path, config: CosyVoice3Config, name: str, variant: str | None = None
) -> dict[str, Tensor]:
    """What inference reads of one part, under the names in its file."""
    tensors, where = read_part(folder, name, variant), str(part_file(folder, name, variant))
    if name == "llm":
        network = build(lambda: LanguageModel(config.language))
        return used(network, tensors, rules=LANGUAGE_RULES, ignored=LANGUAGE_IGNORED, where=where)
    if name == "flow":
        return used(build(lambda: Flow(config.flow)), tensors, where=where)
    return used(build(lambda: Vocoder(config.vocoder)), tensors, rules=VOCODER_RULES, where=where)


def tensors_read(folder: Path, variant: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Of each weight file of a folder, what inference reads; the two graphs are run as they are."""
    config = read_config(folder)
    found = {
        part_file(folder, name, variant).name: part_tensors(folder, config, name, variant) for name in PARTS
    }
    presets = read_presets(folder, bins=config.flow.mel_bins, speaker_dim=config.flow.speaker_dim)
    for name in (f"{PRESETS_NAME}.safetensors", f"{PRESETS_NAME}.pt"):
        if presets and (folder / name).is_file():
            found[name] = flattened(presets)
            break
    return found | {TOKENIZER_NAME: {}, SPEAKER_NAME: {}}


def folded_vocoder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the vocoder without prefix and weight norm; those of the F0 network in float64."""
    named = {key.replace("generator.", ""): tensor for key, tensor in tensors.items()}
    # The F0 network is widened before its weights are multiplied out, as the original runs it.
    dtypes = {key: torch.float64 if key.startswith(F0_PREFIX) else torch.float32 for key in named}
    wide = {key: t.to(dtypes[key]) if t.is_floating_point() else t for key, t in named.items()}
    return fold_weight_norm(wide)


def narrowed(model: LanguageModel) -> tuple[nn.Module, ...]:
    """Of the language model, what a precision narrows."""
    return model.decoder, model.head


def load_language(
    folder: Path,
    config: CosyVoice3Config,
    *,
    device: torch.device,
    dtype: torch.dtype,
    plan: StackPlan | None = None,
    store: PackedStore | None = None,
    variant: str | None = None,
) -> LanguageModel:
    """The language model in `dtype`; its layers and its head with the narrow weights of a plan."""
    model: LanguageModel = build(lambda: LanguageModel(config.language))
    load_strict(
        model,
        read_part(folder, "llm", variant),
        rules=LANGUAGE_RULES,
        ignored=LANGUAGE_IGNORED,
        dtype=dtype,
        device=device,
        where=str(part_file(folder, "llm", variant)),
    )
    if plan is not None:
        quantize(model, plan, store)
    # What keeps its float32 weights: all of it, or a lossless precision of weights that are no bfloat16.
    pack(model.decoder, rows=1)
    model.head = packed(model.head, rows=1)
    let_go(model)
    return model


def quantize(model: LanguageModel, plan: StackPlan, store: PackedStore | None = None) -> None:
    """Narrow weights for the layers and the head, in C where sizes allow it; changed in place."""
    model.decoder = quantize_decoder(model.decoder, "lm", plan, store=store)
    model.head = quantize_linear(model.head, plan.rest, name="lm.head", store=store)
    if store is not None:
        store.save()


def state_plainly(model: LanguageModel, plan: StackPlan) -> None:
    """The narrow weights of a plan in torch, where every stage can be seen; changed in place."""
    assert isinstance(model.decoder, Decoder)
    plain_stack(model.decoder, plan)
    model.head = plain_linear(model.head, plan.rest)


def narrow_parts(model: Flow) -> Iterator[nn.Module]:
    """Of the flow, what a precision with losses multiplies in the processor's narrow form."""
    estimator: Any = model.decoder.estimator
    for block in estimator.transformer_blocks:
        yield from (block.attn, block.ff)


def load_flow(
    folder: Path,
    config: CosyVoice3Config,
    *,
    device: torch.device,
    dtype: torch.dtype,
    narrow: bool = False,
) -> Flow:
    """The flow in `dtype`; `narrow`: products of the blocks in the processor's narrow form."""
    model: Flow = build(lambda: Flow(config.flow))
    load_strict(
        model, read_part(folder, "flow"), dtype=dtype, device=device, where=str(part_file(folder, "flow"))
    )
    estimator: Any = model.decoder.estimator
    for block in estimator.transformer_blocks:
        pack(block.attn_norm, rows=2)  # the time, once for each half of the guidance
    if narrow:
        narrow_products(*narrow_parts(model))
    pack(estimator.transformer_blocks, rows=FLOW_ROWS)
    let_go(model)
    return model


def load_vocoder(folder: Path, config: CosyVoice3Config, *, device: torch.device) -> Vocoder:
    """The vocoder, always in float32 with its F0 network in float64."""
    if device.type == "mps":
        device = torch.device("cpu")  # that device has no float64, which the F0 network needs
    model: Vocoder = build(lambda: Vocoder(config.vocoder))
    tensors = folded_vocoder(read_part(folder, "hift"))
    load_strict(model, tensors, device=device, where=str(part_file(folder, "hift")))
    found = library() if device.type == "cpu" else None
    if found is not None:
        use_native(model, found)
    return model
