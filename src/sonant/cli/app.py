"""The tree of commands; every function only parses and hands over to a module loaded on demand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="sonant",
    help="Speak with the open voice-cloning speech models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
parity = typer.Typer(help="Which tensor differs first? Record, compare, bisect.", no_args_is_help=True)
app.add_typer(parity, name="parity")


@parity.command("kit")
def parity_kit(
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


def main() -> None:
    """Run the command line; Sonant's own errors become one message and the exit code of the table."""
    from sonant.errors import SonantError, describe

    try:
        app()
    except SonantError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(describe(error)[1])
