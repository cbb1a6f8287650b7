"""Bodies of requests have a field for every setting of the table, and each reaches the request."""

import numpy as np
import pytest

from sonant.request.audio import Audio
from sonant.request.settings import EMOTIONS, SETTINGS, settings_of
from sonant.server.schemas import SamplingBody, SpeechBody, to_request

CLIP = Audio(np.full(800, 0.1, np.float32), 8000)
FIELDS = [row for row in SETTINGS if row.field is not None and row.home != "job"]


def made(text="Hello.", **fields):
    body = SpeechBody(input=text, **fields)
    clips = {row.name: CLIP for row in settings_of("request", "style") if row.kind == "clip"}
    return to_request(body, text, voice=None, clips=clips, deadline=600.0)


def a_value(row):
    """Something else than the default, as JSON has it."""
    match row.kind:
        case "switch":
            return not row.default
        case "whole":
            return 7
        case "number":
            return 0.5
        case "choice":
            return row.choices[-1]
        case "emotions":
            return [0.5] * len(EMOTIONS)
        case "glossary" | "options":
            return {"word": "spelling"}
    return "all" if row.name == "guards" else "words"


@pytest.mark.parametrize("row", FIELDS, ids=lambda row: row.name)
def test_a_field_reaches_the_request(row):
    value = a_value(row)
    request = made(**{row.field_name: value})
    home = {"request": request, "style": request.style, "sampling": request.sampling}[row.home]
    found = getattr(home, row.name)
    expected = {"clip": CLIP, "emotions": (0.5,) * len(EMOTIONS)}.get(row.kind, value)
    assert found == expected
    assert (
        getattr({"request": made(), "style": made().style, "sampling": made().sampling}[row.home], row.name)
        != found
    )


@pytest.mark.parametrize("row", settings_of("sampling"), ids=lambda row: row.name)
def test_all_decoding_settings_are_in_the_field_sampling(row):
    assert set(SamplingBody.model_fields) == {row.name for row in settings_of("sampling")}
    request = made(sampling={row.name: a_value(row)})
    assert getattr(request.sampling, row.name) == a_value(row)
