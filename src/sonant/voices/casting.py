"""The voice of a request, found where it is kept and encoded for the loaded model."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sonant.errors import RequestError, UnsupportedError, VoiceError
from sonant.request.audio import Audio
from sonant.request.checks import check_clip
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from sonant.voices.content_cache import ContentCache, audio_key
from sonant.voices.finding import find_voice
from sonant.voices.library import VoiceLibrary

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

VOICES_KEPT = 16
"""Encoded voices remembered by their clip and its transcript."""


class Encoder(Protocol):
    """The part of a model that turns a clip into a voice it can speak with."""

    spec: ModelSpec

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """A clip that has been checked as a voice of this model. Raises UnsupportedError."""
        ...


class Casting:
    """Voices for one loaded model, from its own speakers, a library or a clip."""

    def __init__(self, model: Encoder, library: VoiceLibrary | None) -> None:
        self.model = model
        self.spec: ModelSpec = model.spec
        self.library = library
        self._encoded: ContentCache[Voice] = ContentCache(VOICES_KEPT)
        self._lock = threading.RLock()

    def encode(self, audio: Audio, *, transcript: str | None = None, name: str = "") -> Voice:
        """A voice from a clip. Raises UnsupportedError or RequestError for what cannot be cloned."""
        if "clone" not in self.spec.capabilities:
            raise UnsupportedError(
                f"{self.spec.name} cannot clone voices. Use a model that can: see sonant models.",
                field="voice",
            )
        check_clip(audio, self.spec, field="voice", what="reference clip")
        import torch  # not before: what cannot clone may do without

        def make() -> Voice:
            log.info("encoding voice %s for %s", name or "of a clip", self.spec.name)
            with torch.inference_mode():
                return self.model.encode_voice(audio, transcript)

        with self._lock:  # encoding included: two who ask for one voice at once encode it once
            voice = self._encoded.get(f"{audio_key(audio)}:{transcript}", make)
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
            voice = find_voice(voice, spec=spec, shelf=self.library)
        return self._fit(voice) if isinstance(voice, Voice) else voice

    def _fit(self, voice: Voice) -> Voice | str:
        spec = self.spec
        if self._is_of_this_model(voice):
            return voice
        if voice.parts:
            return self._mix(voice)
        if not voice.tensors and voice.clip is None:
            return find_voice(voice.name, spec=spec, shelf=None)
        if voice.clip is None:
            raise VoiceError(
                f"voice {voice.name!r} was made by {voice.family} ({voice.fingerprint}) and keeps no clip; "
                f"this model is {spec.family} ({spec.fingerprint}). "
                "Encode the reference again with: sonant voice add NAME CLIP"
            )
        made = self.encode(voice.clip, transcript=voice.transcript, name=voice.name)
        return replace(made, language=voice.language, origin=voice.origin)

    def _is_of_this_model(self, voice: Voice) -> bool:
        own = (self.spec.family, self.spec.fingerprint)
        return (voice.family, voice.fingerprint) == own and bool(voice.tensors)

    def _mix(self, mixture: Voice) -> Voice:
        """The sum by weight of what the model says may be mixed. Raises VoiceError."""
        spec = self.spec
        mixed: dict[str, Tensor] = {}
        for part, weight in mixture.parts:
            # Words of the clips are of no use to a mixture, and would be encoded for nothing.
            fitted = self._fit(part if self._is_of_this_model(part) else replace(part, transcript=None))
            tensors = fitted.tensors if isinstance(fitted, Voice) else {}
            if not spec.mixed or not tensors.keys() >= set(spec.mixed):
                raise VoiceError(
                    f"{spec.name} cannot mix the voice {part.name!r}: expected a stored voice of a model "
                    "that lists voice_mixing. Choose one voice."
                )
            for name in spec.mixed:
                term = weight * tensors[name].float()
                mixed[name] = mixed[name] + term if name in mixed else term
        return Voice(
            name=mixture.name,
            family=spec.family,
            fingerprint=spec.fingerprint,
            tensors=mixed,
            origin={"mixture": mixture.name},
        )
