"""Every option of a server, said once. Light: the command line reads it before anything else is loaded.

From a row follow: the option of `sonant serve` and `sonant studio`, NAME=VALUE on a cluster, its place in
ServerSettings with the default that it has there, and its line in docs/server-options.md. How models are
loaded is said in the table of settings, for all commands; its rows are taken from there.

To add an option, write a row here, and a field of ServerSettings that its `home` names; then write the page
anew: python -m sonant.server.options_page > docs/server-options.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from sonant.errors import ConfigError
from sonant.request.settings import BY_NAME, read_level
from sonant.server.settings import ServerSettings

Kind = Literal[
    "text",
    "texts",  # several
    "pairs",  # several NAME=OTHER
    "path",
    "switch",
    "whole",
    "number",
    "level",  # a number, or off
]
Where = Literal["serve", "studio", "cluster"]
Panel = Literal["Models", "Network", "Who may what", "Names and fields", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One row of the table: `--the-name` on the command line, `the_name` on a cluster."""

    name: str
    kind: Kind
    panel: Panel
    help: str
    home: str = ""
    """Its place in ServerSettings, such as `doors.connections`; empty where others than the app take it."""
    own_default: Any = None
    """Of a row without a home."""
    least: float | None = None
    most: float | None = None
    scale: int = 1
    """How many of the home's units one of the option's is: a MiB is so many bytes."""
    flags: tuple[str, ...] = ()
    """Where the command line spells it otherwise."""
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    on: tuple[Where, ...] = ("serve", "cluster")

    @property
    def default(self) -> Any:
        """What holds when it is not given."""
        if not self.home:
            return self.own_default
        value: Any = ServerSettings()
        for part in self.home.split("."):
            value = getattr(value, part)
        return value / self.scale if self.scale != 1 else value

    @property
    def range(self) -> str:
        """The values it takes, in words; empty where any will do."""
        if self.least is None:
            return ""
        return f"{self.least:g} to {self.most:g}" if self.most is not None else f"{self.least:g} or more"


_EVERYWHERE: tuple[Where, ...] = ("serve", "studio", "cluster")
_HERE: tuple[Where, ...] = ("serve",)


def _loading(name: str) -> Option:
    """How models are loaded, as every command says it: a row of the table of settings."""
    row = BY_NAME[name]
    kinds: Mapping[str, Kind] = {"whole": "whole", "switch": "switch"}
    return Option(
        name=row.name, kind=kinds.get(row.kind, "text"), panel="Models", on=_EVERYWHERE,
        help=row.help_with_range if row.choices else row.help,
        own_default=row.default, least=row.least, most=row.most, choices=row.choices,
        metavar=row.flag.metavar if row.flag is not None else None,
    )  # fmt: skip


OPTIONS: tuple[Option, ...] = (
    Option(
        name="model", kind="texts", panel="Models", flags=("--model", "-m"), on=_EVERYWHERE,
        help="Model to serve: known name, folder, or NAME=FOLDER; the first one is the default. Without any: "
        "the voices inside, and every known model on this machine.",
    ),
    *(_loading(name) for name in ("device", "dtype", "precision", "slots", "memory_limit", "strict")),
    Option(
        name="voices", kind="path", panel="Models", on=_EVERYWHERE,
        help="Folder of stored voices; on a cluster one that all machines see.",
    ),
    Option(
        name="readings", kind="path", panel="Models", on=_HERE,
        help="Folder of books and their readings; beside the voices where it is not given.",
    ),
    Option(
        name="idle_unload", kind="number", panel="Models", least=1,
        help="Unload a model after this many seconds without use.",
    ),
    Option(
        name="preload", kind="switch", panel="Models", own_default=False,
        help="Load all models at start, not only the first.",
    ),
    Option(
        name="host", kind="text", panel="Network", own_default="127.0.0.1", on=_HERE,
        help="Address to listen on.",
    ),
    Option(
        name="port", kind="whole", panel="Network", own_default=8000, least=0, most=65535, on=_HERE,
        help="Port; 0 takes a free one.",
    ),
    Option(
        name="wyoming", kind="switch", panel="Network", own_default=False, on=_HERE,
        help="Speak Home Assistant's Wyoming protocol too. It knows no keys.",
    ),
    Option(
        name="wyoming_port", kind="whole", panel="Network", own_default=10200, least=0, most=65535, on=_HERE,
        help="Port of --wyoming.",
    ),
    Option(
        name="log_level", kind="text", panel="Network", own_default="info", on=_HERE,
        help="debug, info, warning or error.",
    ),
    Option(
        name="api_key", kind="texts", panel="Who may what", on=_HERE,
        help="Accept this key (better: --key-file, or SONANT_API_KEYS).",
    ),
    Option(
        name="key_file", kind="path", panel="Who may what", help="File of key hashes, made by `sonant key`."
    ),
    Option(
        name="insecure", kind="switch", panel="Who may what", own_default=False,
        help="Allow other machines in without keys.",
    ),
    Option(
        name="allow_host", kind="texts", panel="Who may what", home="allowed_hosts",
        help="Host name to answer to.",
    ),
    Option(
        name="cors_origin", kind="texts", panel="Who may what", home="cors_origins",
        help="Web origin that may call; '*' is any.",
    ),
    Option(
        name="allow_urls", kind="switch", panel="Who may what", home="allow_urls",
        help="Fetch reference clips from public web addresses.",
    ),
    Option(
        name="alias", kind="pairs", panel="Names and fields", home="model_aliases", metavar="NAME=MODEL",
        help="Another name of a model.",
    ),
    Option(
        name="voice_alias", kind="pairs", panel="Names and fields", home="voice_aliases",
        metavar="NAME=VOICE", help="Another name of a voice.",
    ),
    Option(
        name="loudness", kind="level", panel="Names and fields", home="loudness", metavar="LUFS|off",
        help="LUFS of answers that do not ask for another, or off.",
    ),
    Option(
        name="strict_fields", kind="switch", panel="Names and fields", home="strict_fields",
        help="Refuse unknown fields instead of naming them in a header.",
    ),
    Option(
        name="queue_limit", kind="whole", panel="Limits", own_default=64, least=1,
        help="Requests of a model before 503.",
    ),
    Option(
        name="max_per_client", kind="whole", panel="Limits", home="max_per_client", least=1,
        help="Requests of one client at a time.",
    ),
    Option(
        name="max_sockets_per_client", kind="whole", panel="Limits", home="max_sockets_per_client", least=1,
        help="WebSockets of one client.",
    ),
    Option(
        name="max_connections", kind="whole", panel="Limits", home="doors.connections", least=1, on=_HERE,
        help="Open connections in all.",
    ),
    Option(
        name="max_connections_per_address", kind="whole", panel="Limits", least=0, on=_HERE,
        home="doors.connections_per_address",
        help="Open connections of one address; 0: any, as behind a proxy.",
    ),
    Option(
        name="header_timeout", kind="number", panel="Limits", least=0.1, on=_HERE,
        home="doors.header_seconds", help="Seconds in which a request's headers have to arrive.",
    ),
    Option(
        name="max_input", kind="whole", panel="Limits", home="max_input", least=1,
        help="Characters of one request.",
    ),
    Option(
        name="max_batch", kind="whole", panel="Limits", home="max_batch", least=1,
        help="Items of one batch request.",
    ),
    Option(
        name="max_upload", kind="number", panel="Limits", home="uploads.max_bytes", least=0.01, scale=2**20,
        help="MiB of an uploaded clip.",
    ),
    Option(
        name="max_voices", kind="whole", panel="Limits", home="stored_voices", least=0,
        help="Voices that uploads may leave in the folder.",
    ),
    Option(
        name="deadline", kind="number", panel="Limits", home="deadline", least=1,
        help="Seconds a request may take, plus 0.2 a character.",
    ),
)  # fmt: skip


def options_on(where: Where) -> tuple[Option, ...]:
    """The rows that `sonant serve`, `sonant studio` or a cluster has."""
    return tuple(row for row in OPTIONS if where in row.on)


def server_settings(given: Mapping[str, Any], **more: Any) -> ServerSettings:
    """The app's settings from options by name; what is absent or None keeps its default.

    `more` are fields of ServerSettings that no option is. Raises ConfigError.
    """
    made = replace(ServerSettings(), **more)
    for row in OPTIONS:
        value = given.get(row.name)
        if not row.home or value is None:
            continue
        if row.kind == "pairs":
            value = _pairs(row, value)
        elif row.kind == "texts":
            value = tuple(value)
        elif row.kind == "level":
            value = read_level(BY_NAME[row.name], value)
        elif row.scale != 1:
            value = int(value * row.scale)
        made = _with(made, row.home.split("."), value)
        if row.name == "max_upload":  # in base64, and with a text beside it
            made = replace(made, max_body=made.uploads.max_bytes * 3 // 2 + 2**20)
    return made


def _with(record: Any, place: list[str], value: Any) -> Any:
    first, *rest = place
    return replace(record, **{first: _with(getattr(record, first), rest, value) if rest else value})


def _pairs(row: Option, given: Any) -> dict[str, str]:
    if isinstance(given, Mapping):
        return dict(given)
    pairs = {}
    for text in given:
        name, found, target = text.partition("=")
        if not found or not name or not target:
            raise ConfigError(
                f"--{row.name.replace('_', '-')} {text!r} is no pair; expected {row.metavar}, such as "
                f"{'tts-1=nano' if row.name == 'alias' else 'narrator=ann'}."
            )
        pairs[name] = target
    return pairs


def from_words(arguments: Mapping[str, Any], rows: tuple[Option, ...]) -> dict[str, Any]:
    """Options from words, as NAME=VALUE gives them, or values of YAML; several texts are separated by commas.

    Every row is in the result, absent ones with their default. Raises ConfigError for unknown names and
    impossible values.
    """
    known = {row.name: row for row in rows}
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}; expected some of: {', '.join(known)}. "
            "Give them as NAME=VALUE."
        )
    defaults = {row.name: row.default for row in rows}
    return defaults | {name: _value(known[name], text) for name, text in arguments.items()}


_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _value(row: Option, given: Any) -> Any:
    if isinstance(given, Mapping):
        given = [f"{name}={value}" for name, value in given.items()]
    text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
    try:
        match row.kind:
            case "switch":
                return _SWITCHES[text.lower()]
            case "texts" | "pairs":
                return [part.strip() for part in text.split(",") if part.strip()]
            case "whole" | "number":
                number = int(text) if row.kind == "whole" else float(text)
            case _:
                check_choice(row, text)
                return text
    except (KeyError, ValueError) as error:
        kinds = {"switch": "true or false", "whole": "a whole number", "number": "a number"}
        raise ConfigError(f"{row.name} is {text!r}; expected {kinds[row.kind]}.") from error
    least = -math.inf if row.least is None else row.least
    most = math.inf if row.most is None else row.most
    if not math.isfinite(number) or not least <= number <= most:
        raise ConfigError(f"{row.name} is {text!r}; expected {row.range or 'a finite number'}.")
    return number


def check_choice(row: Option, value: Any) -> None:
    """Raise ConfigError for none of the row's choices, where it has some."""
    if row.choices and value not in row.choices:
        raise ConfigError(f"{row.name} is {value!r}; expected one of {', '.join(row.choices)}.")


def unsaid_settings() -> list[str]:
    """Places in ServerSettings that no option sets, such as `uploads.max_channels`."""
    said = {row.home for row in OPTIONS}

    def places(record: Any, before: str) -> list[str]:
        found = []
        for one in fields(record):
            value = getattr(record, one.name)
            place = f"{before}{one.name}"
            found += places(value, f"{place}.") if is_dataclass(value) else [place]
        return found

    return [place for place in places(ServerSettings(), "") if place not in said]
