"""API keys kept as hashes, and the gate in front of every route: key, host and origin."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from sonant.errors import ConfigError
from sonant.server.problems import HttpProblem, error_response
from sonant.server.settings import ServerSettings

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
PROTECTED = ("/v1/", "/audio/", "/metrics")
ANY_ORIGIN = "*"
WEBSOCKET_KEY = "openai-insecure-api-key."
"""Browsers cannot set headers on a WebSocket; OpenAI's clients pass the key as this subprotocol."""


def new_key() -> str:
    """A fresh key with 256 random bits."""
    return f"sk-sonant-{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> str:
    """What is kept of a key: `sha256:<hex>`. Keys are long and random: a plain hash cannot be undone."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def read_key_file(path: Path) -> tuple[str, ...]:
    """Hashes from a file with one `sha256:<hex>` a line, maybe followed by a name; # starts a comment."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the key file {path} ({error}). Make one with: sonant key FILE"
        ) from error
    hashes = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not _HASH.fullmatch(words[0]):
            raise ConfigError(
                f"line {number} of {path} is no key hash; expected sha256: and 64 hex digits. "
                "Keys themselves are never kept; add one with: sonant key FILE"
            )
        hashes.append(words[0])
    return tuple(hashes)


def hashes_of(keys: Iterable[str]) -> tuple[str, ...]:
    """Hashes of keys given in the clear or hashed already."""
    return tuple(key if _HASH.fullmatch(key) else hash_key(key) for key in keys if key)


def is_accepted(key: str | None, hashes: tuple[str, ...]) -> bool:
    """True when the key is one of the accepted ones; takes the same time for every wrong key."""
    if key is None:
        return False
    found = hash_key(key)
    matches = [hmac.compare_digest(found, known) for known in hashes]
    return any(matches)


def key_of(headers: Headers) -> str | None:
    """The key a request carries: Authorization: Bearer, X-Api-Key, or the WebSocket subprotocol."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if headers.get("x-api-key"):
        return headers["x-api-key"]
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(WEBSOCKET_KEY):
            return protocol.strip()[len(WEBSOCKET_KEY) :]
    return None


def client_of(scope: Scope) -> str:
    """Who asks, as the gate found: a short hash of an accepted key, or the address."""
    return str(scope["state"]["client"])


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
        key = key_of(Headers(scope=scope)) if self._settings.key_hashes else None
        # A key nobody checked would let one client pass for many.
        who = hash_key(key)[7:19] if key is not None else str((scope.get("client") or ("unknown",))[0])
        scope.setdefault("state", {})["client"] = who
        problem = self._problem(scope)
        if problem is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(code=1008, reason=problem.code)(scope, receive, send)
        else:
            await error_response(problem)(scope, receive, send)

    def _problem(self, scope: Scope) -> HttpProblem | None:
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
        if settings.key_hashes and path.startswith(PROTECTED) and not is_preflight:
            key = key_of(headers)
            if not is_accepted(key, settings.key_hashes):
                found = "no API key was sent" if key is None else "the API key is not one of this server's"
                return HttpProblem(
                    401,
                    "invalid_api_key",
                    f"{found}. Send Authorization: Bearer KEY with a key made by: sonant key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return None
