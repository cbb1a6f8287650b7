"""`sonant.say("Hello.")`: the one-liner, which keeps one engine for each model that it was asked for."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from sonant.catalogue.registry import DEFAULT_MODEL, load
from sonant.request.settings import BY_NAME, LOUDNESS, read_level

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.request.speech import Speech

_engines: dict[str, Engine] = {}
"""By model."""
_left: list[dict[str, Engine]] = []
"""What a forked child has of its parents', kept as in `lifetime._after_fork`."""
_lock = threading.Lock()


def _after_fork() -> None:
    """In a forked child, which loads its own: the parent's engines have no threads here, and a thread of the
    parent may have held the lock."""
    global _engines, _lock
    _left.append(_engines)
    _engines, _lock = {}, threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)


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
    with _lock:
        if model not in _engines:
            _engines[model] = load(model)
        engine = _engines[model]
    spoken = engine.synthesize(text, **settings)
    if level is None:
        return spoken
    if isinstance(spoken, list):
        return [one.at_loudness(level) for one in spoken]
    return spoken.at_loudness(level)
