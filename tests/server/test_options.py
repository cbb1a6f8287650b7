"""The table of the server's options: the commands, the app's settings and the page follow from it."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sonant.cli import serve as command
from sonant.cli.app import tree
from sonant.errors import ConfigError
from sonant.server.cluster import CLUSTER
from sonant.server.options import OPTIONS, from_words, options_on, server_settings, unsaid_settings
from sonant.server.options_page import options_page
from sonant.server.settings import ServerSettings

app = tree()

PAGE = Path(__file__).parents[2] / "docs" / "server-options.md"
NOT_SAID = {
    "keys", "uploads.max_seconds", "uploads.max_channels", "uploads.min_rate", "uploads.max_rate",
    "uploads.max_samples", "uploads.decode_seconds", "doors.header_bytes", "body_seconds",
    "deadline_per_character", "stall_seconds", "max_body", "readings.books", "readings.readings",
    "readings.owner_bytes", "readings.spare_bytes", "readings.at_once", "readings.parse_seconds",
    "readings.seconds",
}  # fmt: skip
"""Limits that Python alone can set, and keys, which come from three places."""


def test_the_documented_options_are_the_table():
    """Written by: python -m sonant.server.options_page > docs/server-options.md"""
    assert PAGE.read_text(encoding="utf-8") == options_page()


def test_names_are_said_once_and_every_setting_is_said_or_known_to_be_unsaid():
    names = [row.name for row in (*OPTIONS, *CLUSTER)]
    assert len(names) == len(set(names))
    assert set(unsaid_settings()) == NOT_SAID


def test_defaults_are_those_of_the_settings():
    given = {row.name: row.default for row in OPTIONS}
    assert server_settings(given) == ServerSettings() == server_settings({})


def other(row):
    """A value that is not the default."""
    match row.kind:
        case "switch":
            return not row.default
        case "whole" | "number":
            return row.default + 1
        case "level":
            return "off"
        case "pairs":
            return {"a": "b"}
        case _:
            return ("x",)


@pytest.mark.parametrize("row", [row for row in OPTIONS if row.home], ids=lambda row: row.name)
def test_an_option_reaches_its_place_and_no_other(row):
    made = server_settings({row.name: other(row)})
    change = dataclasses.asdict(made)
    usual = dataclasses.asdict(ServerSettings())
    along = ["max_body"] if row.name == "max_upload" else []
    assert [name for name in usual if change[name] != usual[name]] == [row.home.split(".")[0], *along]


@pytest.fixture
def started(monkeypatch):
    """What the commands would have served."""
    found = {}
    monkeypatch.setattr(
        command, "listen", lambda app, bound, **how: found.update(app=app, bound=bound, **how)
    )
    yield found
    if "bound" in found:
        found["bound"].close()


def test_serve_takes_every_option_of_the_table(started, tmp_path):
    words = ["serve", "--port", "0", "--model", "builtin", "--voices", str(tmp_path)]
    words += ["--alias", "tts-1=builtin", "--max-input", "77", "--header-timeout", "3", "--max-upload", "2"]
    words += ["--strict-fields", "--cors-origin", "https://a.example", "--cors-origin", "https://b.example"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.output
    settings = started["app"].state.service.settings
    assert settings.max_input == 77
    assert settings.doors.header_seconds == 3
    assert settings.uploads.max_bytes == 2 * 2**20
    assert settings.strict_fields
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.model_aliases == {"tts-1": "builtin"}
    assert "localhost" in settings.allowed_hosts


def test_the_studio_answers_to_this_machine_alone(started, tmp_path):
    answer = CliRunner().invoke(app, ["studio", "-m", "builtin", "--voices", str(tmp_path), "--no-browser"])
    assert answer.exit_code == 0, answer.output
    assert started["app"].state.service.settings.allowed_hosts == command.LOOPBACK
    assert started["bound"].getsockname()[0] == "127.0.0.1"
    assert started["browser"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slots", "0"], "equal to 1"),
        (["--deadline", "0"], "equal to 1"),
        (["--alias", "builtin"], "is no pair"),
        (["--host", "0.0.0.0"], "no API key is set"),
        (["--log-level", "loud"], "log level"),
    ],
)
def test_wrong_options_are_refused(words, told, started, monkeypatch):
    for variable in ("SONANT_API_KEYS", "SONANT_ADMIN_KEYS"):
        monkeypatch.delenv(variable, raising=False)
    answer = CliRunner().invoke(app, ["serve", "--model", "builtin", *words])
    assert answer.exit_code != 0
    assert told in answer.output + str(answer.exception)
    assert not started


@pytest.mark.parametrize("row", options_on("cluster"), ids=lambda row: row.name)
def test_a_cluster_reads_no_nonsense(row):
    if row.kind in ("switch", "whole", "number") or row.choices:
        with pytest.raises(ConfigError, match=row.name):
            from_words({row.name: "seven"}, OPTIONS)
    else:
        assert from_words({row.name: "seven"}, OPTIONS)[row.name] in ("seven", ["seven"])


def test_values_of_a_cluster_may_be_those_of_its_yaml():
    given = {"slots": 8, "insecure": True, "deadline": 60.5, "model": ["a", "b"], "alias": {"x": "a"}}
    made = from_words(given, OPTIONS)
    assert {name: made[name] for name in given} == given | {"alias": ["x=a"]}
