"""Voices made from words: what a voice-design model is asked to say, and what its speech becomes."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from sonant.request.audio import Audio
from sonant.request.speech import GuardEvent, ModelSpec, SpeechRequest, Style
from sonant.request.voice import Voice

log = logging.getLogger(__name__)

DESIGN_TEXT = (
    "Hello, and welcome. This is how I sound when I read a few calm sentences aloud, "
    "so that you can get to know my voice."
)
"""What a designed voice says to be remembered by, unless another text is given."""

DESIGNED_SECONDS = 15.0
"""What is kept of a designed voice that came to no end: the longest clip that is of use."""


def design_request(
    instruction: str | None, *, text: str | None = None, language: str | None = None, seed: int | None = None
) -> SpeechRequest:
    """What the voice-design model says so that its voice can be cloned."""
    return SpeechRequest(
        text or DESIGN_TEXT, language=language, style=Style(instruction=instruction), seed=seed
    )


def designed_voice(
    speech: Audio, guards: Iterable[GuardEvent], request: SpeechRequest, spec: ModelSpec, *, name: str = ""
) -> Voice:
    """The voice that a spoken design becomes: any model that clones can speak with it."""
    origin = {
        "designed_by": spec.name,
        "instruction": request.style.instruction or "",
        "made": datetime.now(UTC).date().isoformat(),
    }
    return Voice(
        name=name,
        clip=_useful(Audio(speech.samples, speech.sample_rate), guards),
        transcript=request.text,
        language=request.language,
        origin=origin,
    )


def _useful(audio: Audio, guards: Iterable[GuardEvent]) -> Audio:
    """The whole, unless the model was stopped."""
    if not any(guard.kind == "length_ceiling" for guard in guards):
        return audio
    log.warning(
        "the designed voice spoke on for %.0f s without an end; at most %g s of it are kept. Listen to it, "
        "and design it again with another seed if it is garbled.",
        audio.seconds,
        DESIGNED_SECONDS,
    )
    return Audio(audio.samples[: int(DESIGNED_SECONDS * audio.sample_rate)], audio.sample_rate)
