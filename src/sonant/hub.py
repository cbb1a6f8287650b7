"""Known checkpoints, where they lie on disk, and fetching them from a hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sonant.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A released checkpoint: its name here, its repository on the hub and what it is for."""

    name: str
    repository: str
    family: str
    about: str
    licence: str


KNOWN: tuple[KnownModel, ...] = (
    KnownModel(
        name="qwen3-tts-0.6b-base",
        repository="Qwen/Qwen3-TTS-12Hz-0.6B-Base",
        family="qwen3_tts",
        about="clones a voice from a clip",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-base",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-Base",
        family="qwen3_tts",
        about="clones a voice from a clip",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-0.6b-customvoice",
        repository="Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice",
        family="qwen3_tts",
        about="nine named voices",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-customvoice",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice",
        family="qwen3_tts",
        about="nine named voices, style instructions",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="qwen3-tts-1.7b-voicedesign",
        repository="Qwen/Qwen3-TTS-12Hz-1.7B-VoiceDesign",
        family="qwen3_tts",
        about="makes a voice from a description",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="cosyvoice3-0.5b",
        repository="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
        family="cosyvoice3",
        about="zero-shot, cross-lingual, instruct, voice conversion",
        licence="Apache-2.0",
    ),
    KnownModel(
        name="indextts2",
        repository="IndexTeam/IndexTTS-2",
        family="indextts2",
        about="cloning with emotion from audio, numbers or words",
        licence="bilibili Model Use License",
    ),
)


def models_folder() -> Path:
    """Where fetched checkpoints lie: SONANT_MODELS, or the user's data folder."""
    given = os.environ.get("SONANT_MODELS")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_data_dir("sonant")) / "models"


def known(name: str) -> KnownModel:
    """The released checkpoint of this name. Raises CheckpointError listing the names."""
    for model in KNOWN:
        if model.name == name.lower() or model.repository.lower() == name.lower():
            return model
    names = ", ".join(model.name for model in KNOWN)
    raise CheckpointError(
        f"{name!r} is neither a folder on this machine nor a known model. Known models: builtin, {names}."
    )


def local(name: str) -> Path:
    """Folder of a known model on disk. Raises CheckpointError when it was not fetched yet."""
    model = known(name)
    path = models_folder() / model.name
    if not path.is_dir():
        raise CheckpointError(
            f"{model.name} is not on this machine (looked in {path}). Fetch it with: sonant pull {model.name}"
        )
    return path
