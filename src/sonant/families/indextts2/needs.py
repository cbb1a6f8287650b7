"""About how much memory an IndexTTS2 folder takes once loaded, from the headers of its files."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sonant import native
from sonant.checkpoint import read_tensors
from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.layout import locate
from sonant.families.indextts2.options import SAMPLING
from sonant.families.indextts2.w2v_bert import SEMANTIC_LAYER
from sonant.families.indextts2.weights import (
    CODEC_IGNORED,
    GPT_IGNORED,
    S2MEL_IGNORED,
    flatten,
    gpt_tensors,
    read_any,
)
from sonant.memory import MIB, Footprint, bytes_in
from sonant.nn.native_conv import multiplies_bfloat16
from sonant.nn.precision import PRECISIONS
from sonant.nn.quantized import slab_bytes, stored_bytes

POSITIONS = 700
"""Of one beam of a segment of 20 seconds, with its conditions and text."""
WORKING, UTTERANCE = 500 * MIB, 100 * MIB
LATE_LAYERS = rf"encoder\.layers\.({'|'.join(str(i) for i in range(SEMANTIC_LAYER, 100))})\."


NARROWED = re.compile(r"^(mel_head|gpt\.h\.\d+\.(attn|mlp)\.c_\w+)\.weight$")
"""Matrices that a precision narrows."""
HALVED = re.compile(
    r"estimator\.(transformer\.layers\.\d+\.(attention|feed_forward)\.|wavenet\.(in|res_skip)_layers\.)"
)
"""Of the flow, what int8 and int4 keep in bfloat16."""


def footprint(
    folder: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> Footprint:
    """The footprint of a model folder."""
    config = read_config(folder / CONFIG_NAME)
    files = locate(folder, config)
    form = None if precision is None or native.library() is None else PRECISIONS[precision]
    itemsize = dtype.itemsize if precision is None else 4
    gpt = gpt_tensors(files.gpt)
    narrowed = {} if form is None else {key: t for key, t in gpt.items() if NARROWED.match(key)}
    weights = bytes_in(gpt, itemsize, ignored=GPT_IGNORED) - bytes_in(narrowed, itemsize)
    if form is not None:
        weights += slab_bytes(sum(stored_bytes(tensor, form) for tensor in narrowed.values()))
    s2mel = flatten(read_any(files.s2mel))
    weights += bytes_in(s2mel, 4, ignored=S2MEL_IGNORED)
    if form is not None and not form.is_lossless and multiplies_bfloat16():
        weights -= bytes_in({key: t for key, t in s2mel.items() if HALVED.search(key)}, 2)
    weights += bytes_in(flatten(read_any(files.codec)), 4, ignored=CODEC_IGNORED)
    weights += bytes_in(read_tensors(files.w2v_bert / "model.safetensors"), 4, ignored=(LATE_LAYERS,))
    weights += bytes_in(flatten(read_any(files.campplus)), 4)
    weights += bytes_in(flatten(read_any(files.bigvgan)), 4)
    if files.classifier is not None:
        for part in files.classifier.glob("*.safetensors"):
            weights += bytes_in(read_tensors(part), dtype.itemsize)
    return Footprint(
        weights=weights,
        loading=weights // 10 + 64 * MIB,
        working=WORKING,
        utterance=UTTERANCE,
        position=2 * config.gpt.layers * config.gpt.model_dim * itemsize,
        positions=POSITIONS * SAMPLING["beams"],
    )
