"""The text of a request -> the parts that a model is asked to say, one by one.

Here, and only here, the front end is chosen: Sonant's reads the text for every model alike; the family's own,
or none, gets it as it is typed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import regex

from sonant.errors import RequestError
from sonant.request.speech import GuardEvent, ModelSpec, Normalize, SpeechRequest, language_name
from sonant.text.front_end import LONGEST_EXPANSION, ReadingOptions, SpokenPart, read_text
from sonant.text.markup import apply_glossary, split_pauses
from sonant.text.rules import Change
from sonant.text.speakable import has_speech, named, unspoken_words

log = logging.getLogger(__name__)

SLOWEST, FASTEST = 0.25, 4.0


@dataclass(frozen=True)
class Part:
    """Text to say in one go, and the silence after it in seconds. Without text it is a pause before all."""

    text: str
    pause_after: float
    language: str | None = None
    """Where the text itself names another than the request's."""
    rate: float = 1.0
    """The pace that the text itself asks for, on top of the request's speed."""
    changes: tuple[Change, ...] = ()
    """What the front end read otherwise than it is written."""
    guards: tuple[GuardEvent, ...] = ()
    """What of it is not spoken."""


def front_end_of(request: SpeechRequest, spec: ModelSpec) -> Normalize:
    """Which front end reads the request's text."""
    if request.normalize is None:
        return spec.normalize
    assert not isinstance(request.normalize, bool)
    return request.normalize


def reading_options(request: SpeechRequest, spec: ModelSpec) -> ReadingOptions:
    """How Sonant's front end reads the request for this model."""
    marks = regex.compile(spec.text_marks) if spec.text_marks else None
    return ReadingOptions(
        language=request.language,
        spoken=spec.languages,
        glossary=request.glossary,
        marks=marks,
        emoji=request.emoji,
        code=request.code,
    )


def spoken_parts(request: SpeechRequest, spec: ModelSpec) -> Iterator[Part]:
    """The parts of the request's text in order, as they are wanted.

    A part without a letter or digit only adds to the pause before it; one of which nothing can be spoken is
    left out with a guard. A text without any gives its pauses alone. Raises RequestError when there are words
    and none can be spoken, for malformed SSML, and when the glossary makes the text too long.
    """
    if request.source_audio is not None or request.text_feed is not None:
        yield Part("", 0.0)
        return
    pending: Part | None = None
    guards: tuple[GuardEvent, ...] = ()
    left_out: list[str] = []
    for part in _read(request, spec):
        if not any(letter.isalnum() for letter in part.text):
            guards += _not_done(part.changes)
            if pending is not None:
                pending = replace(pending, pause_after=pending.pause_after + part.pause_after)
            elif part.pause_after:
                pending = Part("", part.pause_after)
            continue
        words = unspoken_words(part.text, spec.languages, signs=front_end_of(request, spec) == "sonant")
        if words:
            message = f"not spoken, as {spec.name} has no sound for it: {named(words)}"
            guards += (GuardEvent("unspeakable", message),)
            log.warning("%s", message)
        if not has_speech(part.text, spec.languages):
            left_out.append(part.text)
            if pending is not None:
                pending = replace(pending, pause_after=pending.pause_after + part.pause_after)
            continue
        if pending is not None:
            yield pending
        pending = replace(part, guards=guards + _not_done(part.changes))
        guards = ()
    if left_out and (pending is None or not pending.text):
        raise RequestError(
            f"nothing in {left_out[0][:60]!r} can be spoken by {spec.name}, which speaks: "
            f"{', '.join(spec.languages)}. Give words in one of them, or use another model.",
            field="text",
        )
    if pending is not None:
        yield replace(pending, guards=pending.guards + guards)


def _read(request: SpeechRequest, spec: ModelSpec) -> Iterator[Part]:
    if front_end_of(request, spec) == "sonant":
        for part in read_text(request.text, reading_options(request, spec)):
            yield _part(part)
        return
    for piece, pause in split_pauses(apply_glossary(request.text, request.glossary, most=LONGEST_EXPANSION)):
        if piece.strip() or pause:
            yield Part(piece, pause)


def _part(part: SpokenPart) -> Part:
    return Part(part.text, part.pause_after, language_name(part.language), part.rate, part.changes)


def _not_done(changes: tuple[Change, ...]) -> tuple[GuardEvent, ...]:
    asked = [change.written for change in changes if change.rule == "not done"]
    return (GuardEvent("unspeakable", f"SSML that is not done: {named(asked)}"),) if asked else ()


def request_of(request: SpeechRequest, part: Part, seed: int, spec: ModelSpec) -> SpeechRequest:
    """What the family is asked to prepare for a part of the request."""
    known = {name.lower() for name in spec.languages}
    language = part.language if part.language in known else request.language
    return replace(
        request,
        text=part.text,
        language=language,
        seed=seed,
        normalize=front_end_of(request, spec),
        speed=_pace(request, part) if "speed" in spec.capabilities else 1.0,
    )


def stretch_of(request: SpeechRequest, part: Part, spec: ModelSpec) -> float:
    """How much faster than the model the part is played: 1 where the model changes its pace itself."""
    return 1.0 if "speed" in spec.capabilities else _pace(request, part)


def _pace(request: SpeechRequest, part: Part) -> float:
    return min(FASTEST, max(SLOWEST, request.speed * part.rate))
