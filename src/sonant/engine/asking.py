"""What people type, made a request: a text with settings by name, as in `synthesize("Hello.", speed=1.1)`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sonant.errors import RequestError
from sonant.request.settings import BY_NAME
from sonant.request.speech import ChunkPolicy, Sampling, SpeechRequest, Style, request_from
from sonant.request.voice import Voice

_NAMED = frozenset(name for name, row in BY_NAME.items() if row.home in ("request", "style", "sampling"))
_WHOLE = {"style": Style, "sampling": Sampling, "options": Mapping, "chunk_policy": ChunkPolicy}
"""Fields of a request that hold several settings and may be given as they are; None is not given."""


def request_of(what: str | SpeechRequest, given: Mapping[str, Any]) -> SpeechRequest:
    """The request itself, or one made of a text and settings by the names of `sonant.request.settings`.

    `style`, `sampling`, `options` and `chunk_policy` may be given whole. Raises RequestError for a name
    that is no setting, saying which is near, and for settings beside a request, which has its own.
    """
    if isinstance(what, SpeechRequest):
        if given:
            name = next(iter(given))
            raise RequestError(
                f"{name} was given beside a SpeechRequest, which has settings of its own. Put it into the "
                "request, or give the text alone.",
                field=name,
            )
        return what
    if not isinstance(what, str):
        raise RequestError(
            f"a {type(what).__name__} was given to say; expected text or a SpeechRequest (synthesize takes a "
            "list or a table's column of them too).",
            field="text",
        )
    settings: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for name, value in given.items():
        if name in _WHOLE:
            if value is not None:
                parts[name] = _whole(name, value)
        elif name == "voice":
            parts[name] = _voice(value)
        elif name in _NAMED:
            (sampling if BY_NAME[name].home == "sampling" else settings)[name] = value
        else:
            near = difflib.get_close_matches(name, [*_NAMED, *_WHOLE], n=1)
            hint = (
                f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted({*_NAMED, *_WHOLE}))}."
            )
            raise RequestError(f"{name!r} is no setting of speech; {hint}", field=name)
    for whole, alone in (
        ("style", [n for n in settings if BY_NAME[n].home == "style"]),
        ("sampling", [*sampling]),
    ):
        if whole in parts and alone:
            raise RequestError(
                f"{alone[0]} was given beside {whole}, which holds it too. Give one of them.", field=alone[0]
            )
    given_whole = {name: parts.pop(name) for name in ("style", "sampling") if name in parts}
    options = parts.pop("options", {})
    return replace(request_from(what, settings, sampling=sampling, options=options, **parts), **given_whole)


def _whole(name: str, value: object) -> Any:
    """A field that holds several settings, which is of its own kind."""
    if isinstance(value, _WHOLE[name]):
        return value
    expected = (
        "names with values" if name == "options" else f"a {_WHOLE[name].__name__}, or its settings by name"
    )
    raise RequestError(f"{name} is a {type(value).__name__}; expected {expected}.", field=name)


def _voice(value: object) -> Voice | str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, (str, Voice)):
        return value
    raise RequestError(
        f"the voice is a {type(value).__name__}; expected a name, the path of a clip or a voice file, or a "
        "Voice (engine.clone makes one of a clip).",
        field="voice",
    )
