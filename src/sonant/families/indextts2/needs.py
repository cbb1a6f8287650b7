"""About how much memory an IndexTTS2 folder takes once loaded, from the headers of its files."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from sonant import native
from sonant.checkpoints.memory import MIB, Footprint, bytes_in
from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.layout import locate
from sonant.families.indextts2.options import SAMPLING
from sonant.families.indextts2.used import tensors_read
from sonant.nn.native_conv import multiplies_bfloat16
from sonant.nn.precision import PRECISIONS
from sonant.nn.quantized import slab_bytes, stored_bytes

POSITIONS = 700
"""Of one beam of a segment of 20 seconds, with its conditions and text."""
WORKING, UTTERANCE = 500 * MIB, 100 * MIB
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
    read = tensors_read(files, config)
    gpt, s2mel = read.pop(files.gpt), read.pop(files.s2mel)
    narrowed = {} if form is None else {key: t for key, t in gpt.items() if NARROWED.match(key)}
    weights = bytes_in(gpt, itemsize) - bytes_in(narrowed, itemsize)
    if form is not None:
        weights += slab_bytes(sum(stored_bytes(tensor, form) for tensor in narrowed.values()))
    weights += bytes_in(s2mel, 4)
    if form is not None and not form.is_lossless and multiplies_bfloat16():
        weights -= bytes_in({key: t for key, t in s2mel.items() if HALVED.search(key)}, 2)
    for path, tensors in read.items():
        weights += bytes_in(tensors, dtype.itemsize if path.parent == files.classifier else 4)
    return Footprint(
        weights=weights,
        loading=weights // 10 + 64 * MIB,
        working=WORKING,
        utterance=UTTERANCE,
        position=2 * config.gpt.layers * config.gpt.model_dim * itemsize,
        positions=POSITIONS * SAMPLING["beams"],
    )
