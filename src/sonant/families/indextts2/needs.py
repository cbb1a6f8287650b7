"""About how much memory an IndexTTS2 folder takes once loaded, from the headers of its files."""

from __future__ import annotations

from pathlib import Path

import torch

from sonant import native
from sonant.checkpoints.files import read_json
from sonant.checkpoints.memory import MIB, Footprint, bytes_in
from sonant.checkpoints.modules import within
from sonant.families.indextts2.config import CONFIG_NAME, W2vBertConfig, read_config
from sonant.families.indextts2.layout import locate
from sonant.families.indextts2.options import SAMPLING
from sonant.families.indextts2.used import tensors_read
from sonant.families.indextts2.weights import (
    GPT_RULES,
    S2MEL_RULES,
    build_gpt,
    build_s2mel,
    narrow_parts,
    narrowed,
)
from sonant.nn.narrow_products import saved_bytes
from sonant.nn.precision import plain_bytes, stack_plan
from sonant.nn.quantized import slab_bytes, stored_bytes

POSITIONS = 700
"""Of one beam of a segment of 20 seconds, with its conditions and text."""
WORKING, UTTERANCE = 500 * MIB, 100 * MIB


def footprint(
    folder: Path, *, device: torch.device, dtype: torch.dtype, precision: str | None = None
) -> Footprint:
    """The footprint of a model folder."""
    config = read_config(folder / CONFIG_NAME)
    files = locate(folder, config)
    plan = None if precision is None else stack_plan(precision, config.gpt.layers)
    itemsize = dtype.itemsize if precision is None else 4
    read = tensors_read(files, config)
    gpt, s2mel = read.pop(files.gpt), read.pop(files.s2mel)
    weights = bytes_in(gpt, itemsize)
    if plan is not None:
        hidden = W2vBertConfig.read(read_json(files.w2v_bert / "config.json")).hidden_size
        network = build_gpt(files.gpt, gpt, config, hidden)
        narrow = within(network, narrowed(network), gpt, rules=GPT_RULES)
        weights -= bytes_in(narrow, itemsize)
        if native.library() is None:
            weights += sum(plain_bytes(t, plan.named(name)) for name, t in narrow.items())
        else:
            weights += slab_bytes(sum(stored_bytes(t, plan.named(name)) for name, t in narrow.items()))
    weights += bytes_in(s2mel, 4)
    if plan is not None and not plan.is_lossless:
        mel = build_s2mel(files.s2mel, s2mel, config)
        narrow = within(mel, narrow_parts(mel.estimator), s2mel, rules=S2MEL_RULES)
        weights -= saved_bytes(bytes_in(narrow, 1))
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
