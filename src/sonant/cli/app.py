"""The tree of commands. A file of commands only parses; it is loaded when it is used, as what it needs is."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from sonant import __version__

NOWHERE = (errno.ENOENT, errno.ENOTDIR)
"""What the system says where no folder can be made."""
_OPTION = re.compile(r"--?[A-Za-z][\w-]*(=|\Z)")
"""What can only be an option, known or misspelled."""
COMMANDS: Mapping[str, str] = {
    "say": "say:say",
    "read": "read:read",
    "cast": "read:cast",
    "batch": "batch:batch",
    "text": "text:text",
    "replay": "replay:replay",
    "voice": "voice:app",
    "models": "models:models",
    "inspect": "models:inspect",
    "pull": "models:pull",
    "convert": "models:convert",
    "codec": "codec:app",
    "measure": "measure:measure",
    "suite": "suite:suite",
    "sweep": "quality:sweep",
    "compare": "quality:compare",
    "evaluate": "quality:evaluate",
    "bench": "bench:bench",
    "serve": "serve:serve",
    "studio": "serve:studio",
    "key": "serve:key",
    "parity": "parity:app",
}
"""Every command, in the order of the help: its file here, and its function or its own tree of commands."""


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"sonant {__version__}")
        raise typer.Exit


def sonant(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version.")
    ] = False,
) -> None:
    """Speak with the open voice-cloning speech models."""


def meant(words: list[str]) -> list[str]:
    """The words of the command line, as whoever typed them meant them.

    `help` and `version` are no commands. A number, or a text in quotes, is no option for its dash, unless
    what stands before its first `=` or blank is one: `--output="my file.wav"` is.
    """
    match words:
        case ["help"]:
            return ["--help"]
        case ["help", *command]:
            return [*command, "--help"]
        case ["version"]:
            return ["--version"]
        case ["say" | "text" as command, text, *options] if text.startswith("-") and "--" not in options:
            is_alone = len(text.split()) > 1 or not options or options[0].startswith("-")
            if is_alone and text.strip("-") and not _is_option(text, command):
                return [command, *options, "--", text]
    return words


def _is_option(word: str, command: str) -> bool:
    """Whether a word that begins with a dash is an option of this command, with or without its value."""
    if _OPTION.match(word):
        return True
    from typer.main import get_group

    known = {"--help": False, "-h": False}  # name -> whether a value may follow a short one without a blank
    for option in get_group(tree(command)).commands[command].params:
        takes_value = not getattr(option, "is_flag", False) and not getattr(option, "count", False)
        known |= dict.fromkeys((*option.opts, *option.secondary_opts), takes_value)
    return re.split(r"[=\s]", word, maxsplit=1)[0] in known or known.get(word[:2], False)


def tree(only: str | None = None) -> typer.Typer:
    """The commands, or one alone: their hundreds of options take longer to declare than a word to speak."""
    made = typer.Typer(
        name="sonant",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    made.callback()(sonant)
    for name, place in COMMANDS.items():
        if only in (None, name):
            file, _, what = place.partition(":")
            command = getattr(import_module(f"sonant.cli.{file}"), what)
            if isinstance(command, typer.Typer):
                made.add_typer(command, name=name)
            else:
                made.command(name)(command)
    return made


def main() -> None:
    """Run the command line; Sonant's own errors become one message and the exit code of the table."""
    from sonant.errors import RequestError, SonantError, StorageError, describe
    from sonant.files import FULL, SHUT

    open_closed_streams()
    show_warnings()
    words = meant(sys.argv[1:])
    first = next(iter(words), "")
    try:
        if len(first.split()) > 1:
            dashes = "-- " if first.startswith("-") else ""
            raise RequestError(f"a text is no command. To say it: sonant say {dashes}{shlex.quote(first)}")
        app = tree(first if first in COMMANDS else None)
        sys.argv[1:] = words  # not an argument: on Windows, stars are expanded only in what is typed
        app(prog_name="sonant")  # a name also for python -m sonant, where completion needs it
    except SonantError as error:
        notes = "".join(f"\nnote: {note}" for note in getattr(error, "__notes__", ()))
        typer.echo(f"error: {error}{notes}", err=True)
        leave(describe(error)[1])
    except OSError as error:
        if error.errno not in (*FULL, *SHUT, *NOWHERE):
            raise
        place = f": {error.filename}" if error.filename is not None else ""
        wanted = (
            "room to write. Make some" if error.errno in FULL else "a place that may be written. Name one"
        )
        typer.echo(f"error: {error.strerror}{place}; expected {wanted} and run it again.", err=True)
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
