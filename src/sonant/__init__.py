"""One runtime for the open voice-cloning speech models: Qwen3-TTS, CosyVoice3, IndexTTS2.

Names are loaded when they are first used, so `import sonant` costs nothing; it writes one variable into the
environment (below).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

# GNU's OpenMP, which torch brings, reads this when it is loaded. By itself a thread that waits for another
# turns in a circle for milliseconds: beside other programs it turns while the one it waits for has no core.
SETS_SPIN_COUNT = not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ)
if SETS_SPIN_COUNT:
    os.environ["GOMP_SPINCOUNT"] = "2000"

if TYPE_CHECKING:
    from sonant.catalogue.registry import load
    from sonant.engine.engine import Engine
    from sonant.engine.stream import SpeechStream
    from sonant.readings.saying import say
    from sonant.request.audio import Audio
    from sonant.request.speech import (
        AudioChunk,
        ChunkPolicy,
        ModelSpec,
        Sampling,
        Speech,
        SpeechRequest,
        Style,
        TextFeed,
    )
    from sonant.request.voice import Voice
    from sonant.voices.library import VoiceLibrary

_HOMES = {
    "Engine": "sonant.engine.engine",
    "SpeechStream": "sonant.engine.stream",
    "load": "sonant.catalogue.registry",
    "say": "sonant.readings.saying",
    "Audio": "sonant.request.audio",
    "AudioChunk": "sonant.request.speech",
    "ChunkPolicy": "sonant.request.speech",
    "ModelSpec": "sonant.request.speech",
    "Sampling": "sonant.request.speech",
    "Speech": "sonant.request.speech",
    "SpeechRequest": "sonant.request.speech",
    "Style": "sonant.request.speech",
    "TextFeed": "sonant.request.speech",
    "Voice": "sonant.request.voice",
    "VoiceLibrary": "sonant.voices.library",
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
    "say",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sonant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
