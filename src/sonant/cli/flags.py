"""The rows of the table as options of a command, and what was given as settings of a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from sonant.cli.completions import model_names, voices_to_speak_with
from sonant.request.settings import SETTINGS, Setting, check_value

Command = TypeVar("Command", bound=Callable[..., None])

PANELS = ("", "Output", "How it sounds", "Decoding", "Model and machine")
"""The order of the groups in a command's help; options without one come first."""
_TYPES: Mapping[str, Any] = {
    "switch": bool, "whole": int, "number": float, "clip": Path, "glossary": Path, "options": list[str],
}  # fmt: skip
_OFFERS: Mapping[str, Callable[..., list[str]]] = {"models": model_names, "voices": voices_to_speak_with}
_ROWS: Mapping[str, Setting] = {row.key: row for row in SETTINGS if row.flag is not None}
_SPOKEN = tuple(row for row in _ROWS.values() if row.home != "load")


def from_table(command: Command) -> Command:
    """`command` with each parameter that is named like a row and says no option of its own made that row's
    option, under the row's default unless it has one."""
    command.__signature__ = inspect.Signature(_own(command))  # type: ignore[attr-defined]
    return command


def with_settings(command: Command) -> Command:
    """As `from_table`, and with an option for each setting of speech that has a flag, in place of `**given`.

    What was given arrives under `Setting.key`, as the shell said it: `job_settings` makes it a job's.
    """
    parameters = _own(command) + [option(row) for row in _SPOKEN]
    parameters.sort(key=lambda parameter: PANELS.index(_panel(parameter)))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _own(command: Callable[..., None]) -> list[inspect.Parameter]:
    own = inspect.signature(command, eval_str=True).parameters.values()
    return [
        option(_ROWS[p.name], p.default)
        if p.name in _ROWS and declared(p) is None
        else p.replace(kind=p.KEYWORD_ONLY)
        for p in own
        if p.kind != p.VAR_KEYWORD
    ]


def option(row: Setting, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """The row as a parameter of a command, with another default than its own where one is given."""
    flag = row.flag
    assert flag is not None
    is_bounded = row.home == "load" and row.kind in ("whole", "number")  # those of speech are checked later
    made = typer.Option(
        *flag.names,
        help=flag.help or (row.help if is_bounded else row.help_with_range),
        rich_help_panel=flag.panel,
        metavar=flag.metavar or _choices(row),
        min=row.least if is_bounded else None,
        max=row.most if is_bounded else None,
        autocompletion=_OFFERS[flag.offers] if flag.offers is not None else None,
        callback=_checked(row) if row.home == "load" and row.choices else None,
    )
    if default is inspect.Parameter.empty:
        default = None if row.kind in ("glossary", "options") else row.default
    kind = _TYPES.get(row.kind, str)
    return inspect.Parameter(
        row.key,
        inspect.Parameter.KEYWORD_ONLY,
        default=str(default) if row.kind == "level" and default is not None else default,
        annotation=Annotated[kind | None if default is None else kind, made],
    )


def _choices(row: Setting) -> str | None:
    """The choices of an option, shown in place of its type; None where the help has them, being many."""
    return "|".join(row.choices) if row.choices and row.range not in row.help_with_range else None


def _checked(row: Setting) -> Callable[[str], str]:
    """What lets a value of the row through, and refuses others before anything is loaded."""

    def check(value: str) -> str:
        check_value(row, value)
        return value

    return check


def declared(parameter: inspect.Parameter) -> typer.models.ParameterInfo | None:
    """What the annotation of a command's parameter says to Typer."""
    said = get_args(parameter.annotation)[1:]
    return next((one for one in said if isinstance(one, typer.models.ParameterInfo)), None)


def _panel(parameter: inspect.Parameter) -> str:
    said = declared(parameter)
    return (said.rich_help_panel or "") if said is not None else ""


def job_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Job` from what a command with settings was given; files are read. Raises RequestError."""
    from sonant.readings.given import job_fields

    return job_fields({row.key: given.get(row.key) for row in _SPOKEN})
