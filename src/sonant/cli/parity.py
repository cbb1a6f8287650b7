"""sonant parity: which tensor differs first?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Which tensor differs first? Record, compare, bisect.", no_args_is_help=True)


@app.callback()
def parity() -> None:
    """Which tensor differs first? Record, compare, bisect."""


@app.command("kit")
def kit(
    folder: Annotated[Path, typer.Argument(help="Folder of a conformance kit.", metavar="DIR")],
    failures: Annotated[bool, typer.Option("--failures", help="Print only what failed.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False,
) -> None:
    """Check every tensor of a conformance kit against this implementation."""
    from sonant.parity.kit import run_kit

    def write(line: str) -> None:
        if not (failures and line.startswith("PASS")):
            typer.echo(line)

    if not run_kit(folder, write, verbose=verbose):
        raise typer.Exit(1)
