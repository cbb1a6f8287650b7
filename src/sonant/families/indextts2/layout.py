"""Where the files of an IndexTTS2 folder are: the flat `hf_cache`, hub snapshots, or converted files.

Auxiliary models kept elsewhere are named in a file `auxiliary.yaml` beside `config.yaml`, such as
`w2v_bert: /models/w2v-bert-2.0`; relative paths start at the folder. Nothing is opened here but small text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from sonant.checkpoints.hub_cache import hub_snapshots, user_hub_cache
from sonant.errors import CheckpointError, ConfigError
from sonant.families.indextts2.config import CONFIG_NAME, IndexConfig

CACHES = ("hf_cache", "cache", ".")
AUXILIARY = "auxiliary.yaml"
AUXILIARIES = ("w2v_bert", "codec", "campplus", "bigvgan")
CONVERTED_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class IndexFiles:
    """The files of one checkpoint; each may be a pickle of the release or its safetensors conversion."""

    config: Path
    bpe: Path
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

    def own(name: str) -> Path:
        return need(folder / name, (folder / name).with_suffix(CONVERTED_SUFFIX))

    vocoder = need(
        *explicit["bigvgan"],
        *_under(folder, "bigvgan", "bigvgan_generator.pt"),
        *_under(folder, "bigvgan", "bigvgan_generator.safetensors"),
        *_hub(folder, config.vocoder_name, "bigvgan_generator.pt"),
    )
    classifier = folder / config.qwen_emo_path
    files = IndexFiles(
        config=folder / CONFIG_NAME,
        bpe=need(folder / config.bpe_model),
        gpt=own(config.gpt_checkpoint),
        s2mel=own(config.s2mel_checkpoint),
        w2v_stats=own(config.w2v_stat),
        speaker_matrix=own(config.spk_matrix),
        emotion_matrix=own(config.emo_matrix),
        classifier=classifier if (classifier / "config.json").is_file() else None,
        w2v_bert=need(
            *(path / "model.safetensors" for path in explicit["w2v_bert"]),
            *_under(folder, "w2v-bert-2.0", "model.safetensors"),
            *_hub(folder, "facebook/w2v-bert-2.0", "model.safetensors"),
        ).parent,
        codec=need(
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
        raise CheckpointError(
            f"{folder} is an IndexTTS2 folder, but these files are missing:\n{listing}\n"
            "Download IndexTeam/IndexTTS-2 whole, and the auxiliary models into its hf_cache folder "
            "(facebook/w2v-bert-2.0, amphion/MaskGCT, funasr/campplus, nvidia/bigvgan_v2_22khz_80band_256x)."
        )
    return files


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
    """The file in any snapshot of a hub repository: inside the folder's caches, then the user's own."""
    roots = [folder / cache for cache in CACHES] + [folder / "hf_cache" / "hub", user_hub_cache()]
    return [snapshot / file for root in roots for snapshot in hub_snapshots(root, repository)]
