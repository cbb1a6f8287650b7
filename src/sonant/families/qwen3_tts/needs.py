"""About how much memory a Qwen3-TTS folder takes once loaded, from the headers of its files."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sonant import native
from sonant.checkpoints.files import read_json
from sonant.checkpoints.memory import MIB, Footprint, bytes_in
from sonant.checkpoints.modules import build, within
from sonant.families.qwen3_tts.config import (
    CODEC_FOLDER,
    CODEC_MODEL_TYPE,
    CodecConfig,
    read_codec_config,
    read_model_config,
)
from sonant.families.qwen3_tts.plans import narrowed, plan_of
from sonant.families.qwen3_tts.talker import Network
from sonant.families.qwen3_tts.weights import (
    MODEL_RULES,
    codec_tensors,
    dtype_of,
    has_bfloat16,
    network_tensors,
)
from sonant.nn.precision import plain_bytes
from sonant.nn.quantized import slab_bytes, stored_bytes

TEXT_TABLE = "talker.model.text_embedding.weight"
TEXT_ROWS = 16 * MIB
"""What is read of the text table while it stays mapped: some hundred rows, by pages."""
POSITIONS = 384
"""Of a segment of 20 seconds with its prompt."""
# Measured on the 0.6B shapes: what a process grew by while it spoke, for one utterance and for four.
WORKING, UTTERANCE = 145 * MIB, 50 * MIB


def footprint(
    folder: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> Footprint:
    """The footprint of a model folder, or of a speech tokenizer's folder."""
    folder = folder.resolve()
    wide = 8 if dtype == torch.float64 else 4
    if read_json(folder / "config.json").get("model_type") == CODEC_MODEL_TYPE:
        weights = _codec(folder, read_codec_config(folder), wide, encodes=True, is_narrow=False)
        return Footprint(weights=weights, loading=0, working=WORKING + UTTERANCE + weights)
    config = read_model_config(folder)
    plan = None if precision is None else plan_of(precision, config)
    itemsize = 4 if plan is not None else dtype.itemsize
    has_kernel = plan is not None and native.library() is not None
    weights = stored = 0
    network: Network = build(lambda: Network(config))
    tensors = network_tensors(folder, config)
    narrow = within(network, narrowed(network), tensors, rules=MODEL_RULES)
    for name, tensor in tensors.items():
        if name == TEXT_TABLE and tensor.dtype.itemsize <= itemsize:
            weights += TEXT_ROWS if device.type == "cpu" else tensor.nbytes
        elif plan is not None and has_kernel and name in narrow:
            stored += sum(stored_bytes(tensor, form) for form in plan.forms(name))
        elif plan is not None and name in narrow:
            weights += sum(plain_bytes(tensor, form) for form in plan.forms(name))
        else:
            weights += tensor.numel() * dtype_of(name, dtype if plan is None else torch.float32).itemsize
    codec = folder / CODEC_FOLDER
    is_narrow = plan is not None and not plan.is_lossless and has_bfloat16()
    encodes = config.kind == "base"
    coding = _codec(codec, read_codec_config(codec), wide, encodes=encodes, is_narrow=is_narrow)
    weights += slab_bytes(stored + coding) if has_kernel else coding
    talker = config.talker
    return Footprint(
        weights=weights,
        loading=weights // 10 + 64 * MIB,
        # Frames on their way through the codec; in torch its convolutions also copy their weights.
        working=WORKING + coding // 5 + (0 if has_kernel else 2 * coding // 3),
        utterance=UTTERANCE,
        position=2 * talker.layers * talker.kv_heads * talker.head_dim * itemsize,
        positions=POSITIONS,
    )


def _codec(folder: Path, config: CodecConfig, wide: int, *, encodes: bool, is_narrow: bool) -> int:
    """Both halves of the codec; the encoder stays mapped until a clip is encoded."""
    tensors = codec_tensors(folder, config)
    whole = bytes_in(tensors, wide, ignored=() if encodes else (r"^encoder\.",))
    half = {key: t for key, t in tensors.items() if re.match(r"^decoder\.(upsample|decoder)\.", key)}
    return whole - (bytes_in(half, 2) if is_narrow else 0)
