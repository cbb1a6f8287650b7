"""The voice of a request, found where it is kept and encoded for the loaded model."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import torch

from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.request.audio import Audio
from sonant.request.checks import check_clip
from sonant.request.speech import GuardEvent, ModelSpec
from sonant.request.voice import Voice
from sonant.voices.library import VoiceLibrary

log = logging.getLogger(__name__)

VOICES_KEPT = 16
"""Encoded voices remembered by their content."""

DESIGNED_SECONDS = 15.0
"""What is kept of a designed voice that came to no end: the longest clip that is of use."""


def designed_clip(audio: Audio, guards: Iterable[GuardEvent]) -> Audio:
    """The clip that a designed voice keeps: the whole, unless the model was stopped."""
    if not any(guard.kind == "length_ceiling" for guard in guards):
        return audio
    log.warning(
        "the designed voice spoke on for %.0f s without an end; at most %g s of it are kept. Listen to it, "
        "and design it again with another seed if it is garbled.",
        audio.seconds,
        DESIGNED_SECONDS,
    )
    return Audio(audio.samples[: int(DESIGNED_SECONDS * audio.sample_rate)], audio.sample_rate)


class Encoder(Protocol):
    """The part of a model that turns a clip into a voice it can speak with."""

    spec: ModelSpec

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """The clip as a voice of this model. Raises UnsupportedError, RequestError."""
        ...


class Casting:
    """Voices for one loaded model, from its own speakers, a library or a clip."""

    def __init__(self, model: Encoder, library: VoiceLibrary | None) -> None:
        self.model = model
        self.spec: ModelSpec = model.spec
        self.library = library
        self._encoded: OrderedDict[str, Voice] = OrderedDict()
        self._lock = threading.RLock()

    def encode(self, audio: Audio, *, transcript: str | None = None, name: str = "") -> Voice:
        """A voice from a clip. Raises UnsupportedError or RequestError for what cannot be cloned."""
        if "clone" not in self.spec.capabilities:
            raise UnsupportedError(
                f"{self.spec.name} cannot clone voices. Use a model that can: see sonant models.",
                field="voice",
            )
        check_clip(audio, self.spec, field="voice", what="reference clip")
        with self._lock, torch.inference_mode():
            voice = self.model.encode_voice(audio, transcript)
        return replace(voice, name=name) if name else voice

    def find(self, voice: Voice | str | None) -> Voice | str | None:
        """What the model takes: a preset speaker's name, an encoded voice, or None where it needs neither.

        Raises RequestError or VoiceError.
        """
        spec = self.spec
        if voice is None:
            if spec.default_voice is not None:
                return spec.default_voice
            if spec.needs_voice:
                raise RequestError(
                    f"{spec.name} speaks only with a voice. Pass a clip or a stored voice "
                    "(sonant voice add NAME CLIP).",
                    field="voice",
                )
            return None
        if isinstance(voice, str):
            is_preset = voice.lower() in (name.lower() for name in spec.voices)
            if self.library is not None and "clone" in spec.capabilities and not is_preset:
                return self._fit(self.library.get(voice))
            return self._preset(voice)
        return self._fit(voice)

    def _preset(self, name: str) -> str:
        known = {own.lower(): own for own in self.spec.voices}
        if name.lower() not in known:
            names = ", ".join(self.spec.voices) or "none"
            raise VoiceError(
                f"{self.spec.name} has no voice {name!r}; its own voices are: {names}. "
                "Choose one of them, or give a clip to a model that clones."
            )
        return known[name.lower()]

    def _fit(self, voice: Voice) -> Voice | str:
        spec = self.spec
        if voice.family == spec.family and voice.fingerprint == spec.fingerprint and voice.tensors:
            return voice
        if not voice.tensors and voice.clip is None:
            return self._preset(voice.name)
        if voice.clip is None:
            raise VoiceError(
                f"voice {voice.name!r} was made by {voice.family} ({voice.fingerprint}) and keeps no clip; "
                f"this model is {spec.family} ({spec.fingerprint}). "
                "Encode the reference again with: sonant voice add NAME CLIP"
            )
        key = voice.digest()
        with self._lock:  # encoding includes: two who ask for one voice at once encode it once
            if key not in self._encoded:
                log.info("encoding voice %s for %s", voice.name or key, spec.name)
                made = self.encode(voice.clip, transcript=voice.transcript, name=voice.name)
                self._encoded[key] = replace(made, language=voice.language, origin=voice.origin)
                if len(self._encoded) > VOICES_KEPT:
                    self._encoded.popitem(last=False)
            self._encoded.move_to_end(key)
            return self._encoded[key]
