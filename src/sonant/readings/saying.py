"""`sonant.say("Hello.")`: the one-liner, which keeps one engine for each model that it was asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from sonant.catalogue.registry import DEFAULT_MODEL, load
from sonant.request.settings import BY_NAME, LOUDNESS, read_level

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.request.speech import Speech

_engines: dict[tuple[int, str], Engine] = {}
"""By process and model: a forked child has none of its parent's threads."""
_lock = threading.Lock()


@overload
def say(
    text: str,
    *,
    model: str = DEFAULT_MODEL,
    loudness: float | Literal["off"] | None = LOUDNESS,
    **settings: Any,
) -> Speech: ...
@overload
def say(
    text: Sequence[str],
    *,
    model: str = DEFAULT_MODEL,
    loudness: float | Literal["off"] | None = LOUDNESS,
    **settings: Any,
) -> list[Speech]: ...
def say(
    text: str | Sequence[str],
    *,
    model: str = DEFAULT_MODEL,
    loudness: float | Literal["off"] | None = LOUDNESS,
    **settings: Any,
) -> Speech | list[Speech]:
    """Speech of a text: `sonant.say("Hello.", voice="ann.wav", speed=1.1).save("hello.wav")`.

    A list gives a list. The engine of `model` is loaded at the first call and kept until the process ends.
    `settings` are those of `Engine.synthesize`, which gives the model's own samples; here they are brought to
    `loudness` in LUFS, as `sonant say` does it, and left alone with "off".
    """
    level = read_level(BY_NAME["loudness"], loudness)
    key = os.getpid(), model
    with _lock:
        if key not in _engines:
            _engines[key] = load(model)
        engine = _engines[key]
    spoken = engine.synthesize(text, **settings)
    if level is None:
        return spoken
    if isinstance(spoken, list):
        return [one.at_loudness(level) for one in spoken]
    return spoken.at_loudness(level)
