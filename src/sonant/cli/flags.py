"""The settings of the table as options of a command, and what was given as settings of a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from sonant.cli.completions import model_names, voices_to_speak_with
from sonant.request.settings import SETTINGS, Setting

Command = TypeVar("Command", bound=Callable[..., None])

PANELS = ("", "Output", "How it sounds", "Decoding", "Model and machine")
"""The order of the groups in a command's help; options without one come first."""
_TYPES: Mapping[str, Any] = {
    "switch": bool, "whole": int, "number": float, "clip": Path, "glossary": Path, "options": list[str],
}  # fmt: skip
_OFFERS: Mapping[str, Callable[..., list[str]]] = {"models": model_names, "voices": voices_to_speak_with}


def with_settings(command: Command) -> Command:
    """`command` with an option for each setting that has a flag, in place of its parameter `**given`.

    What was given arrives under `Setting.key`, as the shell said it: `job_settings` makes it a job's.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    options = [_option(row) for row in SETTINGS if row.flag is not None]
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind != p.VAR_KEYWORD] + options
    parameters.sort(key=lambda parameter: PANELS.index(_panel(parameter)))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _option(row: Setting) -> inspect.Parameter:
    flag = row.flag
    assert flag is not None
    declared = typer.Option(
        *flag.names,
        help=flag.help or row.help_with_range,
        rich_help_panel=flag.panel,
        metavar=flag.metavar or "|".join(row.choices) or None,
        autocompletion=_OFFERS[flag.offers] if flag.offers is not None else None,
    )
    kind = _TYPES.get(row.kind, str)
    has_default = row.default is not None and row.kind not in ("glossary", "options")
    return inspect.Parameter(
        row.key,
        inspect.Parameter.KEYWORD_ONLY,
        default=(str(row.default) if row.kind == "level" else row.default) if has_default else None,
        annotation=Annotated[kind if has_default else kind | None, declared],
    )


def _panel(parameter: inspect.Parameter) -> str:
    for declared in get_args(parameter.annotation)[1:]:
        if isinstance(declared, typer.models.ParameterInfo):
            return declared.rich_help_panel or ""
    return ""


def job_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Job` from what a command with settings was given; files are read. Raises RequestError."""
    from sonant.readings.given import job_fields

    return job_fields({row.key: given.get(row.key) for row in SETTINGS if row.flag is not None})
