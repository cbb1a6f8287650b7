"""sonant serve, studio and key: the HTTP server, the same with a browser, and its API keys."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonant.cli.speaking import STRICT
from sonant.request.settings import BY_NAME, LOUDNESS, read_level

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sonant.server.settings import ServerSettings

LOG_LEVELS = ("debug", "info", "warning", "error")
LOOPBACK = ("localhost", "127.0.0.1", "::1")

Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="Model to serve: known name, folder, or NAME=FOLDER. Repeatable."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Precision = Annotated[
    str,
    typer.Option(help="Weights on a CPU, of models that offer it: auto, full, lossless, int8, mixed, int4."),
]
Slots = Annotated[int, typer.Option(min=1, max=256, help="Utterances spoken as one batch.")]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        help="The most that Sonant may use, such as 6GB: of a CPU's memory, or of the accelerator's.",
        metavar="SIZE",
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help=STRICT)]
Voices = Annotated[Path | None, typer.Option(help="Folder of stored voices.")]


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


def serve(
    model: Models = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    precision: Precision = "auto",
    strict: Strict = False,
    slots: Slots = 4,
    voices: Voices = None,
    alias: Annotated[list[str] | None, typer.Option(help="NAME=MODEL: another name of a model.")] = None,
    voice_alias: Annotated[
        list[str] | None, typer.Option(help="NAME=VOICE: another name of a voice.")
    ] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="Accept this key (better: --key-file, or SONANT_API_KEYS).")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="File of key hashes, made by `sonant key`.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow other machines in without keys.")
    ] = False,
    readings: Annotated[
        Path | None, typer.Option(help="Folder of books and their readings; default: beside the voices.")
    ] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Host name to answer to. Repeatable.")] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Web origin that may call. Repeatable.")
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch reference clips from public web addresses.")
    ] = False,
    queue_limit: Annotated[int, typer.Option(min=1, help="Requests of a model before 503.")] = 64,
    max_per_client: Annotated[int, typer.Option(min=1, help="Requests of one client at a time.")] = 64,
    max_sockets_per_client: Annotated[int, typer.Option(min=1, help="WebSockets of one client.")] = 128,
    max_connections: Annotated[int, typer.Option(min=1, help="Open connections in all.")] = 1024,
    max_connections_per_address: Annotated[
        int, typer.Option(min=0, help="Open connections of one address; 0: any, as behind a proxy.")
    ] = 256,
    header_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds in which a request's headers have to arrive.")
    ] = 10,
    max_input: Annotated[int, typer.Option(min=1, help="Characters of one request.")] = 100_000,
    max_upload: Annotated[float, typer.Option(min=0.01, help="MiB of an uploaded clip.")] = 10.0,
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds a request may take, plus 0.2 a character.")
    ] = 300,
    idle_unload: Annotated[
        float | None, typer.Option(min=1, help="Unload a model after this many seconds without use.")
    ] = None,
    memory_limit: MemoryLimit = None,
    wyoming: Annotated[
        bool, typer.Option("--wyoming", help="Speak Home Assistant's Wyoming protocol too. It knows no keys.")
    ] = False,
    wyoming_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --wyoming.")] = 10200,
    loudness: Annotated[
        str, typer.Option(help="LUFS of answers that do not ask for another, or off.", metavar="LUFS|off")
    ] = str(LOUDNESS),
    strict_fields: Annotated[
        bool,
        typer.Option("--strict-fields", help="Refuse unknown fields instead of naming them in a header."),
    ] = False,
    preload: Annotated[bool, typer.Option(help="Load all models at start, not only the first.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve speech over HTTP in OpenAI's format, with the studio at /."""
    _check_extra()
    from sonant.errors import ConfigError
    from sonant.server.auth import keys_of, read_key_file
    from sonant.server.settings import RIGHTS, DoorLimits, ServerSettings, UploadLimits

    if log_level not in LOG_LEVELS:
        raise ConfigError(
            f"the log level is {log_level!r}; expected one of {', '.join(LOG_LEVELS)}. Choose one of them."
        )
    keys = keys_of([*(api_key or []), *os.environ.get("SONANT_API_KEYS", "").replace(",", " ").split()])
    keys += keys_of(
        os.environ.get("SONANT_ADMIN_KEYS", "").replace(",", " ").split(), rights=frozenset(RIGHTS)
    )
    if key_file is not None:
        keys += read_key_file(key_file)
    is_local = host in LOOPBACK
    if not is_local and not keys and not insecure:
        raise ConfigError(
            f"listening on {host} lets other machines in, and no API key is set. Make one with "
            "`sonant key keys.txt` and pass --key-file keys.txt; or pass --insecure on a trusted network."
        )
    if wyoming and not is_local and not insecure:
        raise ConfigError(
            f"--wyoming on {host} lets other machines speak, and its protocol knows no keys. Pass --insecure "
            "on a trusted network (HTTP goes on asking for its keys), or listen on 127.0.0.1."
        )
    hosts = tuple(name.lower() for name in allow_host or ())
    settings = ServerSettings(
        keys=keys,
        allowed_hosts=(*LOOPBACK, *hosts) if is_local else hosts,
        cors_origins=tuple(cors_origin or ()),
        model_aliases=_pairs("--alias", alias),
        voice_aliases=_pairs("--voice-alias", voice_alias),
        uploads=UploadLimits(max_bytes=int(max_upload * 2**20)),
        max_body=int(max_upload * 2**20 * 1.5) + 2**20,
        max_input=max_input,
        max_per_client=max_per_client,
        max_sockets_per_client=max_sockets_per_client,
        doors=DoorLimits(
            connections=max_connections,
            connections_per_address=max_connections_per_address,
            header_seconds=header_timeout,
        ),
        deadline=deadline,
        allow_urls=allow_urls,
        strict_fields=strict_fields,
        loudness=read_level(BY_NAME["loudness"], loudness),
    )
    home = open_socket(host, wyoming_port) if wyoming else None
    app = build_app(
        model or [],
        settings,
        wyoming=home,
        voices=voices,
        readings=readings,
        device=device,
        dtype=dtype,
        precision=precision,
        strict=strict,
        slots=slots,
        queue_limit=queue_limit,
        idle_seconds=idle_unload,
        memory_limit=memory_limit,
        preload=preload,
    )
    if home is not None:
        typer.echo(f"Wyoming at tcp://{host}:{home.getsockname()[1]}")
    listen(app, open_socket(host, port), log_level=log_level)


def studio(
    model: Models = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    precision: Precision = "auto",
    strict: Strict = False,
    slots: Slots = 4,
    voices: Voices = None,
    memory_limit: MemoryLimit = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the web browser.")] = True,
) -> None:
    """Open the studio: a page in the browser to speak, record, clone and compare. For this machine only."""
    _check_extra()
    from sonant.server.settings import ServerSettings

    app = build_app(
        model or [],
        ServerSettings(allowed_hosts=LOOPBACK),
        voices=voices,
        device=device,
        dtype=dtype,
        precision=precision,
        strict=strict,
        slots=slots,
        queue_limit=64,
        idle_seconds=None,
        memory_limit=memory_limit,
        preload=False,
    )
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


def build_app(
    models: list[str],
    settings: ServerSettings,
    *,
    voices: Path | None,
    device: str,
    dtype: str,
    precision: str,
    strict: bool,
    slots: int,
    queue_limit: int,
    idle_seconds: float | None,
    memory_limit: str | None,
    preload: bool,
    readings: Path | None = None,
    wyoming: socket.socket | None = None,
) -> FastAPI:
    """The app with its models found, not yet loaded."""
    from sonant.catalogue import registry
    from sonant.checkpoints.memory import parse_size, resident_bytes
    from sonant.server.app import create_app
    from sonant.server.models import ModelPool, find_sources
    from sonant.voices.library import VoiceLibrary

    library = VoiceLibrary(voices)
    limit = parse_size(memory_limit) if memory_limit is not None else None
    on_cpu = registry.choose_device(device).type == "cpu"
    taken = resident_bytes() if on_cpu else 0  # by the server itself: the rest is for models
    sources = find_sources(
        models,
        library,
        device=device,
        dtype=dtype,
        precision=precision,
        strict=strict,
        slots=slots,
        queue_limit=queue_limit,
        memory_limit=limit,
    )
    pool = ModelPool(
        sources,
        aliases=settings.model_aliases,
        max_bytes=None if limit is None else limit - taken,
        idle_seconds=idle_seconds,
    )
    warm = tuple(pool.names) if preload else None
    return create_app(pool, library, settings, warm=warm, wyoming=wyoming, readings=readings)


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

    logging.basicConfig(level=log_level.upper(), format="%(levelname)s:     %(name)s: %(message)s")
    logging.getLogger("sonant").handlers.clear()  # the commands' one-line handler would say it twice
    from sonant.server.doors import guarded

    http, ws, _ = guarded(app.state.service.settings.doors)
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


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    from sonant.errors import ConfigError

    pairs = {}
    for text in given or []:
        name, found, target = text.partition("=")
        if not found or not name or not target:
            raise ConfigError(f"{option} {text!r} is no pair; expected NAME=OTHER, such as tts-1=builtin.")
        pairs[name] = target
    return pairs
