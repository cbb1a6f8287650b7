"""The one finder of voices: what a name means to a model, a library and, for a command, the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.request.audio import Audio
from sonant.request.mixing import parse_mixture
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.voices.library import SUFFIX

MOST_PARTS = 8
"""Of a mixture of stored voices, each of which is read from the disk."""


class Shelf(Protocol):
    """Where stored voices are looked up: a VoiceLibrary, or what a client may see of one."""

    def names(self) -> list[str]:
        """Names of the voices there, sorted."""

    def has(self, name: str) -> bool:
        """Whether a voice of this name is there; False for what is no name."""

    def get(self, name: str) -> Voice:
        """The voice. Raises VoiceError."""


def own_voice(name: str, spec: ModelSpec) -> str | None:
    """The model's own spelling of one of its voices, whatever the case; None for any other name.

    With "voice_mixing" also of a mixture of them, such as af_bella:0.6+af_sky:0.4. Raises VoiceError for one
    that is written wrongly.
    """
    known = {own.lower(): own for own in spec.voices}
    if name.lower() in known or not known or not _is_mixture(name, spec):
        return known.get(name.lower())
    parts = [(known.get(voice.lower()), weight) for voice, weight in parse_mixture(name)]
    named = [f"{voice}:{weight:.6g}" for voice, weight in parts if voice is not None]
    return "+".join(named) if len(named) == len(parts) else None


def _is_mixture(name: str, spec: ModelSpec) -> bool:
    return "voice_mixing" in spec.capabilities and not set(name).isdisjoint("+:")


def stored_mixture(name: str, spec: ModelSpec, shelf: Shelf | None) -> Voice | None:
    """Stored voices by weight, such as ann:0.6+bea:0.4, as a voice of parts; None for any other name.

    Raises VoiceError for one that is written wrongly, or with a voice that is not stored.
    """
    if not spec.mixed or shelf is None or not _is_mixture(name, spec):
        return None
    parts = []
    for given, weight in parse_mixture(name):
        if (stored := stored_name(given, shelf)) is None:
            raise no_such_voice(given, spec, shelf)
        parts.append((stored, weight))
    if len(parts) > MOST_PARTS:
        raise VoiceError(f"a mixture has at most {MOST_PARTS} voices; {len(parts)} were given. Name fewer.")
    written = "+".join(f"{stored}:{weight:.6g}" for stored, weight in parts)
    return Voice(name=written, parts=tuple((shelf.get(stored), weight) for stored, weight in parts))


def can_take_voices(spec: ModelSpec) -> bool:
    """Whether a model speaks with voices that are not its own."""
    return not spec.capabilities.isdisjoint({"clone", "voice_conversion"})


def has_voice(name: str, spec: ModelSpec, shelf: Shelf) -> bool:
    """Whether a model has a voice of this name or can take it from the shelf; an equal is none."""
    if own_voice(name, spec) is not None:
        return True
    if not can_take_voices(spec):
        return False
    return stored_name(name, shelf) is not None or stored_mixture(name, spec, shelf) is not None


def stored_name(name: str, shelf: Shelf | None) -> str | None:
    """The name under which a voice is stored, as given or in lower case; None when it is not."""
    if shelf is None:
        return None
    return next((known for known in (name, name.lower()) if shelf.has(known)), None)


def find_voice(name: str, *, spec: ModelSpec, shelf: Shelf | None, equals: Sequence[str] = ()) -> Voice | str:
    """The voice of a name: the model's own, else a stored one, else an equal.

    `equals` are names of another service that mean "some voice of yours"; two stay two where possible.
    Raises UnsupportedError where the model takes no other voices, VoiceError naming what there is.
    """
    if (own := own_voice(name, spec)) is not None:
        return own
    clones = can_take_voices(spec)
    if clones and shelf is not None and (stored := stored_name(name, shelf)) is not None:
        return shelf.get(stored)
    if (mixture := stored_mixture(name, spec, shelf)) is not None:
        return mixture
    if name.lower() in equals and not spec.needs_voice:
        if name.lower() in spec.voice_aliases:
            return spec.voice_aliases[name.lower()]
        if spec.voices:
            return spec.voices[equals.index(name.lower()) % len(spec.voices)]
        if spec.default_voice is not None:
            return spec.default_voice
    raise no_such_voice(name, spec, shelf)


def no_such_voice(name: str, spec: ModelSpec, shelf: Shelf | None, more: str = "") -> VoiceError:
    """The error for a name that means nothing, with all the names that would."""
    own = ", ".join(spec.voices) or "none"
    if not can_take_voices(spec) or shelf is None:
        return VoiceError(
            f"{spec.name} has no voice {name!r}; its own voices are: {own}. "
            "Choose one of them, or give a clip to a model that clones (sonant models)."
        )
    kept = ", ".join(shelf.names()) or "none yet"
    return VoiceError(
        f"{name!r} is no voice: {spec.name} has {own}; stored are {kept}{more}. "
        "Give one of these names, or add a voice with: sonant voice add NAME CLIP"
    )


def find_voice_or_file(
    reference: str, *, spec: ModelSpec, shelf: Shelf, transcript: str | None = None
) -> Voice | str:
    """The voice a user of this machine means: a name, a voice file or a clip.

    `transcript` is what a clip says; it also replaces the one of a stored voice that keeps its clip.
    Raises RequestError, UnsupportedError, VoiceError.
    """
    if (own := own_voice(reference, spec)) is not None:
        if transcript is not None:
            raise RequestError(
                f"a transcript was given with {reference!r}, a voice of {spec.name} itself; expected one "
                "only with a clip. Leave out --transcript.",
                field="transcript",
            )
        return own
    if not can_take_voices(spec):
        known = ", ".join(spec.voices) or "none: it takes no voice"
        raise UnsupportedError(
            f"{spec.name} has no voice {reference!r} and cannot clone one; its own voices are: {known}. "
            "Choose one of them, or a model that clones (sonant models).",
            field="voice",
        )
    path = Path(reference)
    if (stored := stored_name(reference, shelf)) is not None:
        voice = shelf.get(stored)
    elif reference.endswith(SUFFIX) or path.suffix == ".safetensors":
        voice = Voice.load(path)
    elif os.path.isfile(path):  # False, not an error, for what no path can be
        clip = Audio.read(path, max_seconds=spec.max_reference_seconds)
        return Voice(name=path.stem, clip=clip, transcript=transcript, origin={"file": path.name})
    elif (mixture := stored_mixture(reference, spec, shelf)) is not None:
        voice = mixture
    else:
        raise no_such_voice(reference, spec, shelf, "; and there is no such file")
    if transcript is None:
        return voice
    if voice.clip is None:
        raise RequestError(
            f"the voice {reference!r} keeps no clip, so its transcript cannot be replaced; expected a voice "
            "with its clip. Add it again with: sonant voice add NAME CLIP --transcript ...",
            field="transcript",
        )
    return replace(voice, transcript=transcript, tensors={}, fingerprint="", family="")
