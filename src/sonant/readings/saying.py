"""`sonant.say("Hello.")`: the one-liner, which keeps one engine for each model that it was asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

from sonant.catalogue.registry import DEFAULT_MODEL, load
from sonant.request.settings import BY_NAME, LOUDNESS, read_level

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.request.speech import Speech

_engines: dict[str, Engine] = {}
_lock = threading.Lock()


def say(
    text: str,
    *,
    model: str = DEFAULT_MODEL,
    loudness: float | Literal["off"] | None = LOUDNESS,
    **settings: Any,
) -> Speech:
    """Speech of a text: `sonant.say("Hello.", voice="ann.wav", speed=1.1).save("hello.wav")`.

    The engine of `model` is loaded at the first call and kept until the process ends. `settings` are those of
    `Engine.synthesize`, which gives the model's own samples; here they are brought to `loudness` in LUFS, as
    `sonant say` does it, and left alone with "off".
    """
    level = read_level(BY_NAME["loudness"], loudness)
    with _lock:
        if model not in _engines:
            _engines[model] = load(model)
        engine = _engines[model]
    speech = engine.synthesize(text, **settings)
    return speech if level is None else speech.at_loudness(level)
