"""A release folder -> a folder with the same files, every pickle as safetensors.

Names inside the files stay as they are, so that both forms load by the same rules; weight norm stays
unfolded. Only what inference reads is written: no optimizer states, no heads of training. The text-to-emotion
model and w2v-bert are safetensors already and are copied.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

from sonant.checkpoints.tensors import write_tensors
from sonant.errors import CheckpointError
from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.layout import locate
from sonant.families.indextts2.used import tensors_read
from sonant.families.indextts2.weights import flatten, read_any


def convert_folder(source: Path, target: Path) -> None:
    """Write `target`, which must not exist. Raises CheckpointError; a failure leaves nothing behind."""
    if target.exists():
        raise CheckpointError(f"{target} exists already; expected a new folder. Choose another name.")
    config = read_config(source / CONFIG_NAME)
    files = locate(source, config)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as made:
        new = Path(made) / "checkpoint"
        cache = new / "hf_cache"
        (cache / "bigvgan").mkdir(parents=True)
        shutil.copyfile(files.config, new / CONFIG_NAME)
        shutil.copyfile(files.bpe, new / config.bpe_model)
        if files.glossary.is_file():
            shutil.copyfile(files.glossary, new / files.glossary.name)
        if files.classifier is not None:
            shutil.copytree(files.classifier, new / config.qwen_emo_path)
        shutil.copytree(files.w2v_bert, cache / "w2v-bert-2.0")
        shutil.copyfile(files.bigvgan_config, cache / "bigvgan" / "config.json")
        read = tensors_read(files, config)
        _write(new / config.gpt_checkpoint, read[files.gpt])
        _write(new / config.s2mel_checkpoint, read[files.s2mel])
        _write(new / config.w2v_stat, _tensors(files.w2v_stats))
        _write(new / config.spk_matrix, _tensors(files.speaker_matrix))
        _write(new / config.emo_matrix, _tensors(files.emotion_matrix))
        _write(cache / "semantic_codec_model.safetensors", read[files.codec])
        _write(cache / "campplus_cn_common.bin", read[files.campplus])
        _write(cache / "bigvgan" / "bigvgan_generator.pt", read[files.bigvgan])
        os.replace(new, target)


def _tensors(path: Path) -> dict[str, Tensor]:
    data = read_any(path)
    if isinstance(data, Tensor):
        return {"matrix": data}
    return flatten(data)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Tensors under the official file's name with the suffix .safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path.with_suffix(".safetensors"), tensors)
