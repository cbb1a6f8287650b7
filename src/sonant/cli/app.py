"""The tree of commands. Each file of commands only parses, and loads what it needs when it is used."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sonant import __version__
from sonant.cli import (
    batch,
    bench,
    codec,
    measure,
    models,
    parity,
    quality,
    read,
    replay,
    say,
    serve,
    suite,
    voice,
)
from sonant.cli import text as text_command


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sonant {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="sonant",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def sonant(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version.")
    ] = False,
) -> None:
    """Speak with the open voice-cloning speech models."""


# Every command is registered here, and only here.
app.command("say")(say.say)
app.command("read")(read.read)
app.command("cast")(read.cast)
app.command("batch")(batch.batch)
app.command("text")(text_command.text)
app.command("replay")(replay.replay)
app.add_typer(voice.app, name="voice")
app.command("models")(models.models)
app.command("inspect")(models.inspect)
app.command("pull")(models.pull)
app.command("convert")(models.convert)
app.add_typer(codec.app, name="codec")
app.command("measure")(measure.measure)
app.command("suite")(suite.suite)
app.command("sweep")(quality.sweep)
app.command("compare")(quality.compare)
app.command("evaluate")(quality.evaluate)
app.command("bench")(bench.bench)
app.command("serve")(serve.serve)
app.command("studio")(serve.studio)
app.command("key")(serve.key)
app.add_typer(parity.app, name="parity")


def main() -> None:
    """Run the command line; Sonant's own errors become one message and the exit code of the table."""
    from sonant.errors import SonantError, StorageError, describe
    from sonant.files import FULL

    open_closed_streams()
    show_warnings()
    try:
        app(prog_name="sonant")  # also for python -m sonant, where completion needs the name
    except SonantError as error:
        notes = "".join(f"\nnote: {note}" for note in getattr(error, "__notes__", ()))
        typer.echo(f"error: {error}{notes}", err=True)
        leave(describe(error)[1])
    except OSError as error:
        if error.errno not in FULL:
            raise
        typer.echo(f"error: {error.strerror}; expected room to write. Make some and run it again.", err=True)
        leave(describe(StorageError())[1])
    except SystemExit as error:
        leave(error.code if isinstance(error.code, int) else 1 if error.code else 0)


def open_closed_streams() -> None:
    """A standard stream that was closed before the start (`>&-`) is None in Python: nothing comes of it."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  for good


def show_warnings() -> None:
    """What the library logs, as one line on stderr; tracebacks only where SONANT_DEBUG is set."""

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{record.levelname.lower()}: {record.getMessage()}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter() if os.environ.get("SONANT_DEBUG") else OneLine())
    logging.getLogger("sonant").handlers = [handler]


def leave(code: int) -> NoReturn:
    """End the process with this exit code; after Ctrl-C without waiting for a model in mid-step."""
    if code == 130:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
