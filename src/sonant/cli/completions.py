"""What the shell offers after an option: names of models, voices and formats."""

from __future__ import annotations

import typer


def model_names(incomplete: str) -> list[str]:
    """Known models; folders are completed by the shell."""
    from sonant.catalogue.hub import KNOWN
    from sonant.catalogue.registry import installed

    names = (*installed(), *(model.name for model in KNOWN))
    return [name for name in names if name.startswith(incomplete)]


def voice_names(incomplete: str) -> list[str]:
    """Voices of the library."""
    from sonant.voices.library import VoiceLibrary

    return [name for name in VoiceLibrary().names() if name.startswith(incomplete)]


def voices_to_speak_with(ctx: typer.Context, incomplete: str) -> list[str]:
    """Voices of the model that the command names, then those of the library."""
    from sonant.catalogue.registry import DEFAULT_MODEL, describe
    from sonant.errors import SonantError

    try:
        own = describe(ctx.params.get("model") or DEFAULT_MODEL).voices
    except SonantError:  # not on this machine: there is nothing to offer
        own = ()
    return [*(name for name in own if name.startswith(incomplete)), *voice_names(incomplete)]


def format_names(incomplete: str) -> list[str]:
    """Audio formats."""
    from sonant.audio.encode import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]
