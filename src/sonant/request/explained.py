"""What will be spoken of a text, part by part, with each rule that read it otherwise than it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sonant.request.speech import ModelSpec, SpeechRequest
from sonant.request.spoken import front_end_of, spoken_parts
from sonant.text.segment import sentences

Units = Callable[[str], list[str]]
"""A model's tokens or phonemes of a text."""


def explain(request: SpeechRequest, spec: ModelSpec, *, units: Units | None = None) -> dict[str, Any]:
    """Plain data: the front end in use, and of each part its spoken text and sentences, pause, language,
    pace, changes, what is not spoken, and with `units` what the model is given.

    Raises RequestError where the request itself would be refused for its text.
    """
    parts = []
    for index, part in enumerate(spoken_parts(request, spec)):
        if not part.text:
            continue
        row: dict[str, Any] = {
            "index": index,
            "text": part.text,
            "sentences": [sentence.strip() for sentence in sentences(part.text) if sentence.strip()],
            "pause_after": round(part.pause_after, 3),
            "changes": [asdict(change) for change in part.changes],
            "not_spoken": [guard.message for guard in part.guards],
        }
        if part.language is not None:
            row["language"] = part.language
        if part.rate != 1.0:
            row["rate"] = part.rate
        if units is not None:
            row["units"] = units(part.text)
        parts.append(row)
    return {"object": "list", "front_end": front_end_of(request, spec), "model": spec.name, "data": parts}


def any_model() -> ModelSpec:
    """A model that speaks every language with rules, for a text that is read for none in particular."""
    return ModelSpec(
        family="",
        name="no model in particular",
        fingerprint="",
        sample_rate=24_000,
        frame_rate=12.5,
        languages=(),
    )
