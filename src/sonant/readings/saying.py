"""`sonant.say("Hello.")`: the one-liner, which keeps one engine for each model that it was asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sonant.catalogue.registry import DEFAULT_MODEL, load

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.request.speech import Speech

_engines: dict[str, Engine] = {}
_lock = threading.Lock()


def say(text: str, *, model: str = DEFAULT_MODEL, **settings: Any) -> Speech:
    """Speech of a text: `sonant.say("Hello.", voice="ann.wav", speed=1.1).save("hello.wav")`.

    The engine of `model` is loaded at the first call and kept until the process ends. `settings` are those of
    `Engine.synthesize`.
    """
    with _lock:
        if model not in _engines:
            _engines[model] = load(model)
        engine = _engines[model]
    return engine.synthesize(text, **settings)
