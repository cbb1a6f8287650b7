"""What inference reads of each file of an IndexTTS2 folder, by the very rules that loading uses.

Memory plans and parameter counts are made of it, and `convert` writes nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from sonant.checkpoints.files import read_json, read_tensors
from sonant.checkpoints.modules import build, used
from sonant.families.indextts2 import classifier, weights
from sonant.families.indextts2.config import (
    CONFIG_NAME,
    BigVganConfig,
    IndexConfig,
    W2vBertConfig,
    read_config,
)
from sonant.families.indextts2.layout import IndexFiles, locate
from sonant.families.indextts2.vocoder import BigVgan
from sonant.families.indextts2.w2v_bert import SEMANTIC_LAYER, W2vBert


def by_path(folder: Path) -> dict[str, dict[str, Tensor]]:
    """`tensors_read` and the small matrices, by paths relative to the folder."""
    config = read_config(folder / CONFIG_NAME)
    files = locate(folder, config)
    found = tensors_read(files, config)
    for path in (files.w2v_stats, files.speaker_matrix, files.emotion_matrix):
        data = weights.read_any(path)
        found[path] = {"": data} if isinstance(data, Tensor) else weights.flatten(data, str(path))
    return {os.path.relpath(path, folder): tensors for path, tensors in found.items()}


def tensors_read(files: IndexFiles, config: IndexConfig) -> dict[Path, dict[str, Tensor]]:
    """File -> the tensors that inference reads, under their names inside the file's wrapper.

    The small matrices are not listed.
    """
    w2v_file = files.w2v_bert / "model.safetensors"
    w2v_config = W2vBertConfig.read(read_json(files.w2v_bert / "config.json"))
    gpt = weights.gpt_tensors(files.gpt)
    s2mel = weights.s2mel_tensors(files.s2mel)
    campplus = weights.campplus_tensors(files.campplus)
    vocoder = BigVganConfig.read(read_json(files.bigvgan_config))
    found = {
        files.gpt: used(
            weights.build_gpt(files.gpt, gpt, config, w2v_config.hidden_size),
            gpt,
            rules=weights.GPT_RULES,
            ignored=weights.GPT_IGNORED,
            where=str(files.gpt),
        ),
        files.s2mel: used(
            weights.build_s2mel(files.s2mel, s2mel, config),
            s2mel,
            rules=weights.S2MEL_RULES,
            ignored=weights.s2mel_ignored(config),
            where=str(files.s2mel),
        ),
        files.codec: used(
            weights.build_codec(config),
            weights.codec_tensors(files.codec),
            rules=weights.CODEC_RULES,
            ignored=weights.codec_ignored(config),
            where=str(files.codec),
        ),
        w2v_file: used(
            build(lambda: W2vBert(w2v_config, SEMANTIC_LAYER)),
            read_tensors(w2v_file),
            rules=weights.W2V_RULES,
            ignored=weights.w2v_ignored(w2v_config),
            where=str(w2v_file),
        ),
        files.campplus: used(
            weights.build_campplus(files.campplus, campplus), campplus, where=str(files.campplus)
        ),
        files.bigvgan: used(
            build(lambda: BigVgan(vocoder)),
            weights.bigvgan_tensors(files.bigvgan),
            rules=weights.BIGVGAN_RULES,
            where=str(files.bigvgan),
        ),
    }
    if files.classifier is not None:
        found |= classifier.tensors_read(files.classifier)
    return found
