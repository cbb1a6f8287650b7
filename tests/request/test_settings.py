"""The table of settings: what follows from it agrees with it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from sonant.errors import RequestError, UnsupportedError
from sonant.readings.job import Job
from sonant.request.audio import Audio
from sonant.request.checks import check_request
from sonant.request.settings import BY_NAME, SETTINGS, check_value, settings_of
from sonant.request.settings_page import settings_page
from sonant.request.speech import CAPABILITIES, Sampling, SpeechRequest, Style, TextFeed
from tests.toy import ToyModel

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
HOMES = {"request": SpeechRequest, "style": Style, "sampling": Sampling, "job": Job}
PARTS = {"text", "voice", "style", "sampling", "chunk_policy"}
"""Fields of a request that are no settings by themselves."""


def test_the_documented_settings_are_the_table():
    """Written by: python -m sonant.request.settings_page > docs/settings.md"""
    assert PAGE.read_text(encoding="utf-8") == settings_page()


@pytest.mark.parametrize("home", HOMES)
def test_every_row_is_a_field_with_the_same_default(home):
    own = {f.name: f for f in fields(HOMES[home])}
    for row in settings_of(home):
        has_factory = row.kind in ("glossary", "options")
        default = own[row.name].default_factory() if has_factory else own[row.name].default
        assert default == row.default, row.name


@pytest.mark.parametrize("home", ["request", "style", "sampling"])
def test_every_field_is_a_row(home):
    assert {f.name for f in fields(HOMES[home])} - PARTS == {row.name for row in settings_of(home)}


def test_names_are_said_once():
    for names in (
        [row.name for row in SETTINGS],
        [row.key for row in SETTINGS],
        [row.field_name for row in SETTINGS if row.field is not None],
    ):
        assert len(names) == len(set(names))


def test_needs_are_capabilities_and_defaults_pass_their_own_check():
    for row in SETTINGS:
        assert set(row.needs) <= set(CAPABILITIES), row.name
        check_value(row, row.default)
        assert not row.is_set(row.default)


WRONG = {
    "switch": ["yes", 1, 0.0],
    "whole": ["3", 1.5, True, float("nan")],
    "number": ["3", True, float("nan"), float("inf"), [1.0]],
    "text": [3, b"words"],
    "name": [3, ["english"]],
    "choice": ["", "half", 1],
    "emotions": [(0.1,) * 7, (0.1,) * 7 + (2.0,), (float("nan"),) * 8],
    "glossary": ["word = spelling", 5, {"word": 5}, {5: "five"}],
    "options": ["a=b", 5],
}


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.kind in WRONG], ids=lambda row: row.name)
def test_values_of_another_kind_or_out_of_range_are_refused_by_name(row):
    wrong = list(WRONG[row.kind])
    if row.kind in ("whole", "number"):
        low = row.least - 1 if row.least is not None else row.above
        wrong += [low] if row.most is None else [low, row.most * 2 + 1]
    for value in wrong:
        with pytest.raises(RequestError, match=r"expected|number outside") as error:
            check_value(row, value)
        assert error.value.field == row.name


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.needs], ids=lambda row: row.name)
def test_a_model_that_lacks_the_capability_refuses_the_setting_by_name(row):
    values = {
        "switch": True, "number": row.most, "text": "sad", "choice": (*row.choices, "")[0],
        "emotions": (0.1,) * 8, "clip": Audio(np.full(800, 0.1, np.float32), 8000), "feed": TextFeed(),
    }  # fmt: skip
    text = "" if row.name in ("text_feed", "source_audio") else "Hello."
    changes = {row.name: values[row.kind]}
    request = (
        SpeechRequest(text, style=Style(**changes)) if row.home == "style" else SpeechRequest(text, **changes)
    )
    with pytest.raises(UnsupportedError) as error:
        check_request(request, ToyModel().spec)
    assert error.value.field == row.name


def test_a_job_keeps_only_what_is_set_and_comes_back_from_its_data():
    job = Job(text="x", settings={"seed": 3, "speed": 1.0, "emotion": (0.5,) + (0.0,) * 7})
    assert set(job.settings) == {"seed", "emotion"}
    assert job.get("speed") == BY_NAME["speed"].default
    assert Job.from_data(job.to_data()) == job
    with pytest.raises(RequestError, match="no setting sped"):
        Job(text="x", settings={"sped": 2.0})
