"""A release folder -> a folder with the same files, every pickle as safetensors.

Names inside the files stay as they are, so that both forms load by the same rules; weight norm stays
unfolded. Only what inference reads is written: no optimizer states, no heads of training, no late layers of
w2v-bert.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from sonant.checkpoints.files import write_tensors
from sonant.errors import CheckpointError
from sonant.families.indextts2.config import CODEC_NAME, CONFIG_NAME, read_config
from sonant.families.indextts2.layout import IndexFiles, locate
from sonant.families.indextts2.used import tensors_read
from sonant.families.indextts2.weights import flatten, read_any

SMALL = (".json", ".jinja", ".txt")
"""Suffixes of what lies beside the weights of a model that is a folder."""


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
        shutil.copyfile(files.vocabulary, new / files.vocabulary.name)
        if files.glossary.is_file():
            shutil.copyfile(files.glossary, new / files.glossary.name)
        read = tensors_read(files, config)
        for source_folder, target_folder in _folders(files, new):
            target_folder.mkdir(parents=True)
            for path in source_folder.iterdir():
                if path in read:
                    _write(target_folder / path.name, read[path])
                elif path.suffix in SMALL and path.is_file():
                    shutil.copyfile(path, target_folder / path.name)
        shutil.copyfile(files.bigvgan_config, cache / "bigvgan" / "config.json")
        _write(new / files.gpt.name, read[files.gpt])
        _write(new / files.s2mel.name, read[files.s2mel])
        for path in (files.w2v_stats, files.speaker_matrix, files.emotion_matrix):
            _write(new / path.name, _tensors(path))
        codec = new / CODEC_NAME if config.is_multilingual else cache / "semantic_codec_model.safetensors"
        _write(codec, read[files.codec])
        _write(cache / "campplus_cn_common.bin", read[files.campplus])
        _write(cache / "bigvgan" / "bigvgan_generator.pt", read[files.bigvgan])
        os.replace(new, target)


def _folders(files: IndexFiles, new: Path) -> Iterator[tuple[Path, Path]]:
    """The models that are folders, and where they go."""
    yield files.w2v_bert, new / "hf_cache" / "w2v-bert-2.0"
    if files.classifier is not None:
        yield files.classifier, new / files.classifier.name


def _tensors(path: Path) -> dict[str, Tensor]:
    data = read_any(path)
    if isinstance(data, Tensor):
        return {"matrix": data}
    return flatten(data, str(path))


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Tensors under the official file's name with the suffix .safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path.with_suffix(".safetensors"), tensors)
