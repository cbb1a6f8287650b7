"""sonant serve, studio and key: the HTTP server, the same with a browser, and its API keys."""

from __future__ import annotations

import inspect
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sonant.server.options import Option, Where, options_on, server_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

Command = TypeVar("Command", bound=Callable[..., None])

LOG_LEVELS = ("debug", "info", "warning", "error")
SWITCH_SECONDS = 0.0005
LOOPBACK = ("localhost", "127.0.0.1", "::1")

_TYPES: dict[str, Any] = {
    "text": str, "texts": list[str], "pairs": list[str], "path": Path, "switch": bool, "whole": int,
    "number": float, "level": str,
}  # fmt: skip


SERVER_NEEDS = ("fastapi", "uvicorn", "multipart", "prometheus_client", "httpx")


def _check_extra() -> None:
    """Raise DependencyError, in one line, where the server extra is not installed."""
    from importlib.util import find_spec

    from sonant.errors import DependencyError

    absent = [name for name in SERVER_NEEDS if find_spec(name) is None]
    if absent:
        raise DependencyError(
            f"the server needs {', '.join(absent)}, not installed here. Install it with: pip install "
            "'sonant[server]'"
        )


def with_options(where: Where) -> Callable[[Command], Command]:
    """A command with the server's options that there are `where`, in place of its parameter `**given`."""

    def change(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.kind != p.VAR_KEYWORD]
        parameters = [*(_parameter(row) for row in options_on(where)), *kept]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return change


def _parameter(row: Option) -> inspect.Parameter:
    kind = _TYPES[row.kind]
    is_several = row.kind in ("texts", "pairs")
    has_default = row.default is not None and not is_several
    flag = f"--{row.name.replace('_', '-')}"
    declared = typer.Option(
        *(row.flags or ((flag,) if row.kind == "switch" else ())),
        help=f"{row.help.removesuffix('.')}. Repeatable." if is_several else row.help,
        min=row.least,
        max=row.most,
        metavar=row.metavar,
        rich_help_panel=row.panel,
    )
    return inspect.Parameter(
        row.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=row.default if has_default else None,
        annotation=Annotated[kind if has_default else kind | None, declared],
    )


@with_options("serve")
def serve(**given: Any) -> None:
    """Serve speech over HTTP in OpenAI's format, with the studio at /."""
    _check_extra()
    from sonant.errors import ConfigError
    from sonant.server.building import build_app, keys_given

    host, log_level, insecure = given["host"], given["log_level"], given["insecure"]
    if log_level not in LOG_LEVELS:
        raise ConfigError(
            f"the log level is {log_level!r}; expected one of {', '.join(LOG_LEVELS)}. Choose one of them."
        )
    keys = keys_given(given)
    is_local = host in LOOPBACK
    if not is_local and not keys and not insecure:
        raise ConfigError(
            f"listening on {host} lets other machines in, and no API key is set. Make one with "
            "`sonant key keys.txt` and pass --key-file keys.txt; or pass --insecure on a trusted network."
        )
    if given["wyoming"] and not is_local and not insecure:
        raise ConfigError(
            f"--wyoming on {host} lets other machines speak, and its protocol knows no keys. Pass --insecure "
            "on a trusted network (HTTP goes on asking for its keys), or listen on 127.0.0.1."
        )
    hosts = tuple(name.lower() for name in given["allow_host"] or ())
    given["allow_host"] = (*LOOPBACK, *hosts) if is_local else hosts
    settings = server_settings(given, keys=keys)
    home = open_socket(host, given["wyoming_port"]) if given["wyoming"] else None
    app = build_app(given, settings, wyoming=home)
    if home is not None:
        typer.echo(f"Wyoming at tcp://{host}:{home.getsockname()[1]}")
    listen(app, open_socket(host, given["port"]), log_level=log_level)


@with_options("studio")
def studio(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the web browser.")] = True,
    **given: Any,
) -> None:
    """Open the studio: a page in the browser to speak, record, clone and compare. For this machine only."""
    _check_extra()
    from sonant.server.building import build_app

    app = build_app(given, server_settings({"allow_host": LOOPBACK}))
    listen(app, open_socket("127.0.0.1", port), log_level="warning", browser=browser)


def key(
    file: Annotated[Path, typer.Argument(help="File of key hashes; the new one is added.", metavar="FILE")],
    name: Annotated[str, typer.Option(help="Whose key it is, for you to find the line again.")] = "",
    rights: Annotated[
        str | None, typer.Option(help="What it may do, of speak,voices,admin; speak,voices if not said.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Requests of a higher one are begun first.")] = 0,
) -> None:
    """Make an API key: printed once, kept only as a hash."""
    _check_extra()
    from sonant.server.auth import hash_key, new_key, parse_rights, read_key_file

    told = f" rights={','.join(sorted(parse_rights(rights)))}" if rights is not None else ""
    told += f" priority={priority}" if priority else ""
    if file.exists():
        read_key_file(file)  # a damaged file is not appended to
    made = new_key()
    label = "".join(character for character in name if character.isprintable() and character not in "#=")
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as out:
        out.write(f"{hash_key(made)}{told} {label}".rstrip() + "\n")
    typer.echo(made)
    typer.echo(f"Its hash is in {file}; the key itself is shown only now.", err=True)


def open_socket(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError when the address cannot be had."""
    from sonant.errors import ConfigError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error.strerror or error}). Choose another with --port."
        ) from error
    return made


def listen(app: FastAPI, bound: socket.socket, *, log_level: str, browser: bool = False) -> None:
    """Serve until stopped; one line tells the address."""
    import logging

    import uvicorn

    # Reading a hard text is Python; speaking is a thousand short calls that each ask for the interpreter
    # again. At the usual 5 ms a turn one hard text would slow everybody's speech down many times.
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s:     %(name)s: %(message)s")
    logging.getLogger("sonant").handlers.clear()  # the commands' one-line handler would say it twice
    from sonant.server.doors import guarded

    settings = app.state.service.settings
    http, ws, _ = guarded(settings.doors, settings.stall_seconds)
    host, port = bound.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    config = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        ws_max_size=2**20,
        ws_max_queue=16,
    )
    bound.listen(config.backlog)
    typer.echo(f"Sonant listens on {address}")
    sys.stdout.flush()
    if browser:
        import threading
        import webbrowser

        # The socket listens already, so the page waits in its queue until the server answers.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    uvicorn.Server(config).run(sockets=[bound])
