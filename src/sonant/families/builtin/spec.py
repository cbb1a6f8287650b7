"""What the built-in voice is and can do; imports no torch, so listing models stays quick."""

from __future__ import annotations

from importlib.metadata import version

from sonant.request.speech import ModelSpec


def builtin_spec() -> ModelSpec:
    """The spec of the one built-in voice."""
    return ModelSpec(
        family="builtin",
        name="builtin",
        fingerprint=f"hibari-{version('hibari-tts')}",
        sample_rate=24_000,
        frame_rate=12.5,
        languages=("english",),
        voices=("heart",),
        default_voice="heart",
        capabilities=frozenset({"preset_voice", "speed", "pronunciation", "seed"}),
        streams_by="segment",
        front_ends=("sonant", "original"),  # its own reading of numbers is part of its phonemes
        licence="Apache-2.0 (hibari-tts, distilled from Kokoro-82M)",
        note="small built-in English voice",
    )
