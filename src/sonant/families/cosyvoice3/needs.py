"""About how much memory a CosyVoice3 folder takes once loaded, from the headers of its files."""

from __future__ import annotations

from pathlib import Path

import torch

from sonant import native
from sonant.checkpoints.memory import MIB, Footprint, bytes_in
from sonant.checkpoints.modules import build, within
from sonant.families.cosyvoice3.config import read_config
from sonant.families.cosyvoice3.encoders import SPEAKER_NAME, TOKENIZER_NAME
from sonant.families.cosyvoice3.flow import Flow
from sonant.families.cosyvoice3.lm import LanguageModel
from sonant.families.cosyvoice3.stream import PROMPTS, stream_bytes
from sonant.families.cosyvoice3.weights import F0_PREFIX, LANGUAGE_RULES, narrow_parts, narrowed, part_tensors
from sonant.nn.narrow_products import saved_bytes
from sonant.nn.precision import plain_bytes, stack_plan
from sonant.nn.quantized import slab_bytes, stored_bytes

TEXT_TABLE = "llm.model.model.embed_tokens.weight"
TEXT_ROWS = 16 * MIB
POSITIONS = 900
"""Of a segment of 20 seconds with its text and a reference of 10 seconds."""
WORKING, UTTERANCE = 450 * MIB, 60 * MIB


def footprint(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    precision: str | None = None,
    variant: str | None = None,
) -> Footprint:
    """The footprint of a model folder."""
    config = read_config(folder)
    plan = None if precision is None else stack_plan(precision, config.language.decoder.layers)
    itemsize = 4 if plan is not None else dtype.itemsize
    has_kernel = plan is not None and native.library() is not None
    weights = stored = 0
    language = build(lambda: LanguageModel(config.language))
    llm = part_tensors(folder, config, "llm", variant)
    narrow = within(language, narrowed(language), llm, rules=LANGUAGE_RULES)
    for name, tensor in llm.items():
        if name == TEXT_TABLE and device.type == "cpu" and tensor.dtype.itemsize == itemsize:
            weights += TEXT_ROWS
        elif plan is not None and has_kernel and name in narrow:
            stored += stored_bytes(tensor, plan.named(name))
        elif plan is not None and name in narrow:
            weights += plain_bytes(tensor, plan.named(name))
        else:
            weights += tensor.numel() * itemsize
    weights += slab_bytes(stored)
    flow = part_tensors(folder, config, "flow")
    weights += bytes_in(flow, 8 if dtype == torch.float64 else 4)
    if plan is not None and not plan.is_lossless and dtype != torch.float64:
        network = build(lambda: Flow(config.flow))
        weights -= saved_bytes(bytes_in(within(network, narrow_parts(network), flow), 1))
    vocoder = part_tensors(folder, config, "hift")
    pitch = {key: t for key, t in vocoder.items() if key.startswith(F0_PREFIX)}
    weights += bytes_in(vocoder, 4) + bytes_in(pitch, 4)  # float64
    for name in (TOKENIZER_NAME, SPEAKER_NAME):  # onnxruntime holds the graph and its weights
        weights += (folder / name).stat().st_size * 5 // 4
    decoder = config.language.decoder
    return Footprint(
        weights=weights,
        loading=weights // 10 + 64 * MIB,
        working=WORKING,
        utterance=UTTERANCE,
        position=2 * decoder.layers * decoder.kv_heads * decoder.head_dim * itemsize,
        positions=POSITIONS,
        stream=stream_bytes(config) if device.type == "cpu" else 0,
        voices=PROMPTS if device.type == "cpu" else 0,
    )
