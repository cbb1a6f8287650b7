"""One runtime for the open voice-cloning speech models: Qwen3-TTS, CosyVoice3, IndexTTS2.

Names are loaded when they are first used, so `import sonant` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sonant.engine import Engine
    from sonant.registry import load
    from sonant.speech import (
        Audio,
        AudioChunk,
        ChunkPolicy,
        ModelSpec,
        Sampling,
        Speech,
        SpeechRequest,
        Style,
        TextFeed,
    )
    from sonant.stream import SpeechStream
    from sonant.voice import Voice, VoiceLibrary

_HOMES = {
    "Engine": "sonant.engine",
    "SpeechStream": "sonant.stream",
    "load": "sonant.registry",
    "Audio": "sonant.speech",
    "AudioChunk": "sonant.speech",
    "ChunkPolicy": "sonant.speech",
    "ModelSpec": "sonant.speech",
    "Sampling": "sonant.speech",
    "Speech": "sonant.speech",
    "SpeechRequest": "sonant.speech",
    "Style": "sonant.speech",
    "TextFeed": "sonant.speech",
    "Voice": "sonant.voice",
    "VoiceLibrary": "sonant.voice",
}

__all__ = [
    "Audio",
    "AudioChunk",
    "ChunkPolicy",
    "Engine",
    "ModelSpec",
    "Sampling",
    "Speech",
    "SpeechRequest",
    "SpeechStream",
    "Style",
    "TextFeed",
    "Voice",
    "VoiceLibrary",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sonant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
