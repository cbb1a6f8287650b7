"""An option that means what a row of the table means is that row, in every command and in the server."""

import inspect

import pytest
import typer
from typer.main import get_command

from sonant.catalogue import registry
from sonant.cli.app import tree
from sonant.cli.flags import option
from sonant.errors import RequestError
from sonant.readings.given import job_fields
from sonant.readings.job import Job
from sonant.request.settings import BY_NAME, SETTINGS, settings_of
from sonant.server.options import OPTIONS
from sonant.server.schemas import Manner

app = tree()
SERVERS = ("serve", "studio")
OF_A_CLIP = "of a clip, or of the clip's speaker, not of what is spoken"
EVERY = "0 where it is not given, and for all that is spoken"
OWN = {
    ("text", "--model"): "none in particular where it is not given",
    ("evaluate", "--model"): "clips that are there already where it is not given",
    ("voice add", "--model"): "encodes for it",
    ("voice design", "--model"): "has to be given, and designs voices",
    ("codec encode", "--model"): "has to be given, and may be a speech tokenizer alone",
    ("codec decode", "--model"): "has to be given, and may be a speech tokenizer alone",
    ("parity record", "--model"): "has to be given: the built-in voice has no stages",
    ("parity bisect", "--model"): "has to be given",
    ("parity drift", "--model"): "has to be given",
    ("serve", "--model"): "may be several",
    ("studio", "--model"): "may be several",
    ("parity compare", "--precision"): "of the arithmetic of a file, whose budgets apply: nothing is loaded",
    ("parity bisect", "--precision"): "as for compare; the model is loaded in float32",
    ("suite", "--seed"): EVERY,
    ("sweep", "--seed"): EVERY,
    ("compare", "--seed"): EVERY,
    ("evaluate", "--seed"): EVERY,
    ("parity record", "--seed"): EVERY,
    ("parity bisect", "--seed"): EVERY,
    ("voice design", "--seed"): "of the voice",
    ("voice design", "--instruction"): "has to be given",
    ("voice design", "--language"): "of the text that it is designed with",
    ("voice add", "--transcript"): OF_A_CLIP,
    ("voice add", "--language"): OF_A_CLIP,
    ("voice check", "--transcript"): OF_A_CLIP,
    ("voice check", "--language"): OF_A_CLIP,
    ("measure", "--voice"): OF_A_CLIP,
    ("suite", "--voice"): "a file, as the suite goes through all kinds of voices itself",
    ("suite", "--emotion-audio"): "default the voice's clip",
    ("parity record", "--voice"): "no stored voice: a trace holds the clip",
    ("parity bisect", "--voice"): "no stored voice",
    ("parity drift", "--voice"): "no stored voice",
    ("parity record", "--greedy"): "for all networks of the model",
    ("parity bisect", "--greedy"): "for all networks of the model",
    ("serve", "--loudness"): "of answers that ask for none",
}
"""Options under a row's name that say something else, and why."""


def commands():
    def walk(command, path):
        for name, child in getattr(command, "commands", {}).items():
            if getattr(child, "commands", None):
                yield from walk(child, (*path, name))
            else:
                yield " ".join((*path, name)), child

    return dict(walk(get_command(app), ()))


def table():
    """Each row as the option that a command of nothing else has."""

    def command(**given):
        """Has all."""

    rows = {row.key: row for row in SETTINGS if row.flag is not None}
    command.__signature__ = inspect.Signature([option(row) for row in rows.values()])
    alone = typer.Typer()
    alone.command()(command)
    return {p.opts[0]: (rows[p.name], p) for p in get_command(alone).params if p.name in rows}


TABLE = table()
FOUND = [
    (name, parameter)
    for name, command in commands().items()
    for parameter in command.params
    if any(flag in TABLE for flag in parameter.opts)
]


def face(parameter, row, *, of_server):
    """All that somebody sees of an option, and what it takes."""
    seen = {
        "opts": parameter.opts, "secondary": parameter.secondary_opts, "help": parameter.help,
        "metavar": parameter.metavar, "bounds": (parameter.min, parameter.max),
        "several": parameter.multiple,
    }  # fmt: skip
    if row.name != "model":  # its default is the catalogue's
        seen |= {"default": parameter.default, "type": parameter.type_descriptor.annotation}
    if not of_server:
        seen["panel"] = parameter.rich_help_panel
    return seen


def differences(name, parameter):
    flag = next(flag for flag in parameter.opts if flag in TABLE)
    row, expected = TABLE[flag]
    ours, theirs = (face(one, row, of_server=name in SERVERS) for one in (parameter, expected))
    return flag, {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}


@pytest.mark.parametrize(("name", "parameter"), FOUND, ids=[f"{name} {p.opts[0]}" for name, p in FOUND])
def test_an_option_of_a_rows_name_is_the_tables_or_has_its_reason(name, parameter):
    flag, found = differences(name, parameter)
    if (name, flag) in OWN:
        assert found, "it says what the table says: take it from there"
    else:
        assert not found, "take it from the table, or say why it means something else"


def test_every_reason_is_of_an_option_that_is_there():
    assert set(OWN) <= {(name, next(f for f in p.opts if f in TABLE)) for name, p in FOUND}


@pytest.mark.parametrize("row", settings_of("load"), ids=lambda row: row.name)
def test_how_a_model_is_loaded_is_an_option_of_some_command_and_of_the_server(row):
    flags = {flag for _, parameter in FOUND for flag in parameter.opts}
    assert f"--{row.name.replace('_', '-')}" in flags
    (served,) = (one for one in OPTIONS if one.name == row.name)
    if row.name != "model":
        assert (served.own_default, served.least, served.most) == (row.default, row.least, row.most)
        assert served.choices == row.choices


def test_a_command_that_takes_a_dtype_takes_every_one():
    """Help that names fewer than are taken was how they drifted apart."""
    assert BY_NAME["dtype"].choices == registry.DTYPES
    takes = [(name, p) for name, p in FOUND if "--dtype" in p.opts]
    assert {"say", "batch", "read", "bench", "suite", "serve", "studio"} <= {name for name, _ in takes}
    for name, parameter in takes:
        assert all(dtype in parameter.help for dtype in registry.DTYPES), name


@pytest.mark.parametrize("row", settings_of("load"), ids=lambda row: row.name)
def test_python_and_jobs_have_the_tables_defaults(row):
    usual = registry.DEFAULT_MODEL if row.name == "model" else row.default
    for owner in (registry.load, registry.plan, Job):
        parameter = inspect.signature(owner).parameters.get(row.name)
        if parameter is not None and parameter.default is not parameter.empty:
            assert parameter.default == usual, owner
    assert row.name in inspect.signature(registry.load).parameters


def test_the_precisions_of_the_table_are_those_of_the_families():
    from importlib import import_module

    families = [import_module(f"sonant.families.{name}") for name in registry.FAMILIES]
    offered = {name for family in families for name in getattr(family, "PRECISIONS", ())}
    assert {"auto", "full"} | offered == set(BY_NAME["precision"].choices)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["say", "Hi.", "--dtype", "float63"], "dtype is 'float63'; expected auto, float32, bfloat16"),
        (["bench", "nano", "--precision", "int3"], "precision is 'int3'; expected auto, full"),
        (["bench", "nano", "--device", "tpu"], "'tpu' is no device; expected auto, cpu"),
        (["bench", "builtin", "--precision", "int8", "--json"], "builtin has no precision 'int8' on cpu"),
        (["bench", "nano", "--memory-limit", "lots"], "'lots' is no amount of memory"),
        (
            ["bench", "builtin", "--compare", "qwen-tts", "--json"],
            "builtin has no folder that another could load",
        ),
        (["serve", "--dtype", "float63", "--port", "0"], "dtype is 'float63'; expected one of auto"),
    ],
)
def test_a_value_that_no_model_takes_is_refused_before_any_is_loaded(sonant, monkeypatch, words, told):
    for name in ("load_model", "load"):
        monkeypatch.setattr(f"sonant.catalogue.registry.{name}", None)
    result = sonant(*words)
    assert result.code != 0
    assert told in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("row", settings_of("load"), ids=lambda row: row.name)
def test_how_a_model_is_loaded_is_nothing_that_a_request_says(row):
    """Neither an item of a manifest, nor a role of a cast, nor a server's client chooses a device."""
    for files in (True, False):
        with pytest.raises(RequestError, match=f"no setting '{row.name}'"):
            job_fields({row.name: row.default or "1GB"}, files=files)
    assert row.name not in Manner.model_fields or row.name == "model"


@pytest.mark.parametrize(
    ("words", "has_strict"),
    [
        (["say", "Hi there.", "-o", "x.wav"], True),
        (["read", "book.txt", "-o", "book.wav"], True),
        (["batch", "items.jsonl", "-o", "clips"], True),
        (["suite", "-o", "suite"], False),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_how_a_model_is_loaded_reaches_where_it_is_loaded(
    sonant, toy, monkeypatch, tmp_path, words, has_strict
):
    (tmp_path / "book.txt").write_text("Hi there.", encoding="utf-8")
    (tmp_path / "items.jsonl").write_text('{"text": "Hi there."}', encoding="utf-8")
    seen = []
    monkeypatch.setattr(
        "sonant.catalogue.registry.load_model", lambda model, **how: seen.append((model, how)) or toy
    )
    given = {"device": "cpu", "dtype": "float64", "precision": "full"}
    flags = [word for name, value in given.items() for word in (f"--{name}", value)]
    result = sonant(*words, "--model", "toy", *flags, *(["--strict"] if has_strict else []))
    assert result.code == 0, result.err
    assert seen == [("toy", {**given, "strict": has_strict})]
