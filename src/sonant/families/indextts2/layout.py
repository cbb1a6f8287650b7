"""Where the files of an IndexTTS2 or IndexTTS-2.5 folder are: flat, in hub snapshots, or converted.

Auxiliary models kept elsewhere are named in a file `auxiliary.yaml` beside `config.yaml`, such as
`w2v_bert: /models/w2v-bert-2.0`; relative paths start at the folder. Nothing is opened here but small text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath

import yaml

from sonant.checkpoints.hub_cache import hub_snapshots, user_hub_cache
from sonant.errors import CheckpointError, ConfigError
from sonant.families.indextts2.config import CODEC_NAME, CONFIG_NAME, VOCABULARY_NAME, IndexConfig

CACHES = ("hf_cache", "cache", ".")
AUXILIARY = "auxiliary.yaml"
AUXILIARIES = ("w2v_bert", "codec", "campplus", "bigvgan")
AUXILIARY_REPOSITORIES = (
    "facebook/w2v-bert-2.0",
    "funasr/campplus",
    "nvidia/bigvgan_v2_22khz_80band_256x",
)
CLASSIFIER = "qwen0.6bemo4-merge"
CONVERTED_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class IndexFiles:
    """The files of one checkpoint; each may be a pickle of the release or its safetensors conversion."""

    config: Path
    vocabulary: Path
    gpt: Path
    s2mel: Path
    w2v_stats: Path
    speaker_matrix: Path
    emotion_matrix: Path
    classifier: Path | None
    """Folder of the text-to-emotion model; None where the release was unpacked without it."""
    w2v_bert: Path
    """Folder with config.json and model.safetensors."""
    codec: Path
    campplus: Path
    bigvgan: Path
    bigvgan_config: Path
    glossary: Path

    def fingerprint_names(self) -> tuple[str, ...]:
        """Paths relative to the folder of what decides the sound."""
        root = self.config.parent
        paths = [getattr(self, field.name) for field in fields(self)]
        files = [p for p in paths if isinstance(p, Path) and p.is_file() and p != self.glossary]
        files.append(self.w2v_bert / "model.safetensors")
        return tuple(os.path.relpath(path, root) for path in files)


def locate(folder: Path, config: IndexConfig) -> IndexFiles:
    """Every file of the checkpoint. Raises CheckpointError naming all that are missing."""
    missing: list[str] = []

    def need(*candidates: Path) -> Path:
        for path in candidates:
            if path.exists():
                return path
        missing.append(" or ".join(os.path.relpath(path, folder) for path in candidates[:3]))
        return candidates[0]

    explicit = _explicit(folder / AUXILIARY)

    def own(name: str, usual: str) -> Path:
        """A file of the release; a config that names a place on its author's disk means the usual name."""
        places = [folder / each for each in dict.fromkeys((name, _last_part(name), usual))]
        if _is_absolute(name) and not places[0].exists():
            places = places[1:]
        return need(*(form for path in places for form in (path, path.with_suffix(CONVERTED_SUFFIX))))

    vocoder = need(
        *explicit["bigvgan"],
        *_under(folder, "bigvgan", "bigvgan_generator.pt"),
        *_under(folder, "bigvgan", "bigvgan_generator.safetensors"),
        *_hub(folder, config.vocoder_name, "bigvgan_generator.pt"),
    )
    classifier = next(
        (
            folder / name
            for name in (config.qwen_emo_path, _last_part(config.qwen_emo_path), CLASSIFIER)
            if (folder / name / "config.json").is_file()
        ),
        None,
    )
    files = IndexFiles(
        config=folder / CONFIG_NAME,
        vocabulary=own(config.bpe_model, VOCABULARY_NAME if config.is_multilingual else "bpe.model"),
        gpt=own(config.gpt_checkpoint, "gpt.pth"),
        s2mel=own(config.s2mel_checkpoint, "s2mel.pth"),
        w2v_stats=own(config.w2v_stat, "wav2vec2bert_stats.pt"),
        speaker_matrix=own(config.spk_matrix, "feat1.pt"),
        emotion_matrix=own(config.emo_matrix, "feat2.pt"),
        classifier=classifier,
        w2v_bert=need(
            *(path / "model.safetensors" for path in explicit["w2v_bert"]),
            *_under(folder, "w2v-bert-2.0", "model.safetensors"),
            *_hub(folder, "facebook/w2v-bert-2.0", "model.safetensors"),
        ).parent,
        codec=own(CODEC_NAME, CODEC_NAME)
        if config.is_multilingual
        else need(
            *explicit["codec"],
            *_under(folder, "semantic_codec_model.safetensors"),
            *_under(folder, "semantic_codec", "model.safetensors"),
            *_hub(folder, "amphion/MaskGCT", "semantic_codec/model.safetensors"),
        ),
        campplus=need(
            *explicit["campplus"],
            *_under(folder, "campplus_cn_common.bin"),
            *_under(folder, "campplus_cn_common.safetensors"),
            *_under(folder, "campplus", "campplus_cn_common.bin"),  # index-tts-vllm's layout
            *_hub(folder, "funasr/campplus", "campplus_cn_common.bin"),
        ),
        bigvgan=vocoder,
        bigvgan_config=need(vocoder.parent / "config.json"),
        glossary=folder / "glossary.yaml",
    )
    if missing:
        listing = "\n".join(f"  {name}" for name in missing)
        auxiliary = (*(() if config.is_multilingual else ("amphion/MaskGCT",)), *AUXILIARY_REPOSITORIES)
        raise CheckpointError(
            f"{folder} is an {config.name} folder, but these files are missing:\n{listing}\n"
            f"Download IndexTeam/{'IndexTTS-2.5' if config.is_multilingual else 'IndexTTS-2'} whole, and the "
            f"auxiliary models into its hf_cache folder ({', '.join(auxiliary)}), or let it be done: "
            f"sonant pull {'indextts2.5' if config.is_multilingual else 'indextts2'}"
        )
    return files


def _is_absolute(name: str) -> bool:
    """On any system: the author's need not be the reader's."""
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _last_part(name: str) -> str:
    return PureWindowsPath(name).name  # it takes both kinds of slashes


def _explicit(path: Path) -> dict[str, list[Path]]:
    """Paths of `auxiliary.yaml`: a folder for w2v_bert, files for codec, campplus and bigvgan."""
    found: dict[str, list[Path]] = {name: [] for name in AUXILIARIES}
    if not path.is_file():
        return found
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not readable YAML ({error}). Mend or remove it.") from error
    for name, value in (data if isinstance(data, dict) else {"": data}).items():
        if name not in found or not isinstance(value, str):
            raise ConfigError(
                f"{path} says {name!r}: {value!r}; expected paths under the names {', '.join(AUXILIARIES)}."
            )
        given = path.parent / value
        if not given.exists():
            raise CheckpointError(f"{path} names {given}, which does not exist. Mend the path.")
        found[name] = [given]
    return found


def _under(folder: Path, *parts: str) -> list[Path]:
    return [folder.joinpath(cache, *parts) for cache in CACHES]


def _hub(folder: Path, repository: str, file: str) -> list[Path]:
    """Where a hub repository's file may be: fetched whole into the folder, in a snapshot of its caches or of
    the user's own.
    """
    names = repository, repository.rpartition("/")[2]
    plain = [path for name in names for path in _under(folder, name, file)]
    roots = [folder / cache for cache in CACHES] + [folder / "hf_cache" / "hub", user_hub_cache()]
    return plain + [snapshot / file for root in roots for snapshot in hub_snapshots(root, repository)]
