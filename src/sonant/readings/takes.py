"""The modes of a suite and how each went, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from sonant.audio.measure import Measurement
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest

DEFAULT_TEXT = "The lighthouse keeper laughed, then looked at the sea for a long while and said nothing more."


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the modes are made of."""

    text: str = DEFAULT_TEXT
    clip: Audio | None = None
    """The voice to speak with, where the model clones."""
    transcript: str | None = None
    emotion_clip: Audio | None = None
    """Whose emotion is copied; `clip` where none is given."""
    language: str | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to speak."""

    name: str
    about: str
    request: SpeechRequest
    is_streamed: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Take:
    """How a mode went: a clip and its figures, or the error that stopped it."""

    mode: Mode
    file: str = ""
    measurement: Measurement | None = None
    seconds: float = 0.0
    first_audio: float = 0.0
    total: float = 0.0
    guards: tuple[str, ...] = ()
    error: str = ""
