"""`sonant text`: how a text would be read, without speaking it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sonant.cli.completions import model_names
from sonant.cli.flags import from_table


@from_table
def text(
    *,
    text: Annotated[
        str, typer.Argument(help="The text; - reads standard input, @FILE a file.", metavar="TEXT|-|@FILE")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="Read it as for this model; default for none in particular.", autocompletion=model_names
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Name each rule that fired; with --model also its tokens or phonemes."
        ),
    ] = False,
    language: str | None,
    normalize: str | None,
    emoji: str,
    code: str,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what of a text will be spoken, part by part."""
    from sonant.catalogue.registry import describe
    from sonant.cli.say import read_text
    from sonant.request.checks import check_reading
    from sonant.request.explained import any_model
    from sonant.request.explained import explain as explained
    from sonant.request.speech import SpeechRequest

    spec = any_model() if model is None else describe(model)
    choices: dict[str, Any] = {"normalize": normalize, "emoji": emoji, "code": code}
    request = SpeechRequest(read_text(text), language=language, **choices)
    check_reading(request, spec)
    found = explained(request, spec, units=_units(model) if explain and model is not None else None)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for part in found["data"]:
        typer.echo(part["text"])
        if explain:
            for line in _explanation(part):
                typer.echo(f"    {line}")
        for message in part["not_spoken"]:
            typer.echo(f"warning: {message}", err=True)


def _units(model: str) -> Any:
    from sonant.cli.speaking import load_engine

    engine = load_engine(model)
    return getattr(engine.model, "units", None)


def _explanation(part: dict[str, Any]) -> list[str]:
    lines = [f"{change['rule']}: {change['written']!r} -> {change['spoken']!r}" for change in part["changes"]]
    lines += [f"{name}: {part[name]}" for name in ("language", "rate") if name in part]
    if part["pause_after"]:
        lines.append(f"pause after: {part['pause_after']:g} s")
    if part.get("units"):
        lines.append(f"given to the model: {' '.join(part['units'])}")
    return lines
