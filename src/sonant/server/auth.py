"""API keys kept as hashes, and the gate in front of every route: key, host and origin."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from sonant.errors import ConfigError
from sonant.server.problems import HttpProblem, error_response
from sonant.server.settings import RIGHTS, ApiKey, ServerSettings

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
PROTECTED = ("/v1/", "/audio/", "/dev/", "/metrics")
VOICE_ROUTES = ("/v1/audio/voices", "/v1/voices", "/audio/voices")
ANY_ORIGIN = "*"
WEBSOCKET_KEY = "openai-insecure-api-key."
"""Browsers cannot set headers on a WebSocket; OpenAI's clients pass the key as this subprotocol."""


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return f"sk-sonant-{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """What is kept of a key: `sha256:<hex>`. Keys are long and random: a plain hash cannot be undone."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def read_key_file(path: Path) -> tuple[ApiKey, ...]:
    """Keys from a file with one `sha256:<hex>` a line; # starts a comment.

    After the hash may stand `rights=speak,voices`, `priority=5` and a name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the key file {path} ({error}). Make one with: sonant key FILE"
        ) from error
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not _HASH.fullmatch(words[0]):
            raise ConfigError(
                f"line {number} of {path} is no key hash; expected sha256: and 64 hex digits. "
                "Keys themselves are never kept; add one with: sonant key FILE"
            )
        told = dict(word.split("=", 1) for word in words[1:] if word.startswith(("rights=", "priority=")))
        try:
            rights = parse_rights(told["rights"]) if "rights" in told else None
            keys.append(ApiKey(hash=words[0], rights=rights, priority=int(told.get("priority", "0"))))
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"line {number} of {path}: {error}") from error
    return tuple(keys)


def parse_rights(text: str) -> frozenset[str]:
    """Rights separated by commas. Raises ConfigError for unknown ones."""
    rights = frozenset(text.split(","))
    if not rights <= set(RIGHTS):
        unknown = ", ".join(sorted(rights - set(RIGHTS)))
        raise ConfigError(f"there is no right {unknown!r}; expected some of {', '.join(RIGHTS)}. Name those.")
    return rights


def keys_of(given: Iterable[str], *, rights: frozenset[str] | None = None) -> tuple[ApiKey, ...]:
    """Keys given in the clear or hashed already."""
    hashes = (key if _HASH.fullmatch(key) else hash_key(key) for key in given if key)
    return tuple(ApiKey(hash=found, rights=rights) for found in hashes)


def find_key(key: str | None, keys: tuple[ApiKey, ...]) -> ApiKey | None:
    """The accepted key that this is; takes the same time for every wrong one."""
    if key is None:
        return None
    asked = hash_key(key)
    matches = [known for known in keys if hmac.compare_digest(asked, known.hash)]
    return matches[0] if matches else None


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks: a key's holder, or everybody at an address where no key is asked for."""

    id: str
    """A short hash of the key, or the address."""
    rights: frozenset[str] = frozenset(RIGHTS)
    priority: int = 0
    has_own_shelf: bool = False
    """True for one of several keys: its voices are its own."""

    @property
    def is_admin(self) -> bool:
        """Whether everything may be seen and managed."""
        return "admin" in self.rights


def holder(key: ApiKey, keys: tuple[ApiKey, ...]) -> Caller:
    """The caller with this key, one of `keys`."""
    is_only = len(keys) == 1
    rights = frozenset(RIGHTS) if is_only else frozenset({"speak", "voices"})
    return Caller(
        id=key.hash[7:19],
        rights=rights if key.rights is None else key.rights,
        priority=key.priority,
        has_own_shelf=not is_only,
    )


def right_for(kind: str, method: str, path: str) -> str | None:
    """The right that a route of the API needs beside a valid key."""
    if kind != "websocket" and method in ("GET", "HEAD", "OPTIONS"):
        return None
    if path.startswith("/v1/models/"):
        return "admin"
    return "voices" if path.startswith(VOICE_ROUTES) else "speak"


def key_of(headers: Headers) -> str | None:
    """The key of a request: Authorization: Bearer, X-Api-Key, Xi-Api-Key, or a subprotocol of a WebSocket."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    for name in ("x-api-key", "xi-api-key"):  # the second is ElevenLabs'
        if headers.get(name):
            return headers[name]
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(WEBSOCKET_KEY):
            return protocol.strip()[len(WEBSOCKET_KEY) :]
    return None


def caller_of(scope: Scope) -> Caller:
    """Who asks, as the gate found."""
    caller: Caller = scope["state"]["caller"]
    return caller


def _host_name(value: str) -> str:
    return (urlsplit(f"//{value}").hostname or "").lower()


class Gate:
    """ASGI middleware: refuses unknown hosts, foreign web pages and wrong keys before anything is read."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer with the problem."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        keys = self._settings.keys
        found = find_key(key_of(Headers(scope=scope)), keys) if keys else None
        # A key nobody checked would let one client pass for many.
        address = str((scope.get("client") or ("unknown",))[0])
        caller = Caller(id=address, rights=frozenset() if keys else frozenset(RIGHTS))
        if found is not None:
            caller = holder(found, keys)
        scope.setdefault("state", {})["caller"] = caller
        problem = self._problem(scope, is_known=found is not None)
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=problem.code)(scope, receive, send)
        else:
            await error_response(problem)(scope, receive, send)

    def _problem(self, scope: Scope, *, is_known: bool) -> HttpProblem | None:
        headers = Headers(scope=scope)
        settings = self._settings
        try:
            host = _host_name(headers.get("host", ""))
            origin = headers.get("origin")
            is_own = origin is not None and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        except ValueError:
            return HttpProblem(400, "invalid_host", "the Host or Origin header is malformed.")
        if settings.allowed_hosts and host not in settings.allowed_hosts:
            return HttpProblem(
                403,
                "host_not_allowed",
                f"this server does not answer to the name {host!r}. Use localhost, or pass --allow-host.",
            )
        is_preflight = scope["type"] == "http" and scope["method"] == "OPTIONS"
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        is_friend = origin in settings.cors_origins or ANY_ORIGIN in settings.cors_origins
        if origin and changes and not is_friend and not is_own:
            return HttpProblem(
                403,
                "origin_not_allowed",
                f"web pages of {origin} may not use this server. Start it with --cors-origin to allow them.",
            )
        path = scope["path"]
        if not settings.keys or not path.startswith(PROTECTED) or is_preflight:
            return None
        if not is_known:
            found = (
                "no API key was sent"
                if key_of(headers) is None
                else "the API key is not one of this server's"
            )
            return HttpProblem(
                401,
                "invalid_api_key",
                f"{found}. Send Authorization: Bearer KEY with a key made by: sonant key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        right = right_for(scope["type"], scope.get("method", ""), path)
        if right is not None and right not in caller_of(scope).rights:
            return HttpProblem(
                403,
                "missing_right",
                f"this API key may not {RIGHTS[right]}: it lacks the right {right!r}. Ask the operator.",
            )
        return None
