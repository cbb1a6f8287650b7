"""What clients send: bodies bounded while they arrive, clips before they are decoded; guarded addresses."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sonant.audio.io import AudioLimits, read_audio
from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.server.one_each import OneEach
from sonant.server.problems import HttpProblem, error_response
from sonant.server.settings import UploadLimits

MAX_REDIRECTS = 3
FETCH_SECONDS = 15.0
_DATA_URL = re.compile(r"data:[^,]{0,200},")

Resolver = Callable[[str, int], Awaitable[list[str]]]


class _Refused(Exception):
    pass


MOST_MARKS = 300_000
"""Commas, colons and brackets of a JSON body: more would hold the interpreter while they are parsed. Thirty
texts of 100,000 characters have about 50,000."""


class BodyLimit:
    """ASGI middleware: 413 for a body above the limit, 408 for one that does not arrive in time."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_seconds: float) -> None:
        self._app = app
        self._max = max_bytes
        self._seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a counted `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = HttpProblem(
            413,
            "payload_too_large",
            f"the body has more than {self._max / 2**20:.0f} MiB, the limit. Send a shorter clip or text.",
            headers={"Connection": "close"},
        )
        too_many = HttpProblem(
            413,
            "payload_too_large",
            f"the body has more than {MOST_MARKS:,} commas, colons and brackets. Send fewer values, or texts "
            "one by one.",
            headers={"Connection": "close"},
        )
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").lower().startswith("multipart/")
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max:
            await error_response(too_large)(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        arrived = marks = 0
        is_whole = is_answered = False
        problem: HttpProblem | None = None

        async def counted() -> Message:
            nonlocal arrived, marks, is_whole, problem
            if is_whole:  # what comes now is only the client's departure
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                problem = HttpProblem(
                    408,
                    "request_timeout",
                    f"the body did not arrive within {self._seconds:g} s. Send it again, over a faster line.",
                    headers={"Connection": "close"},
                )
                raise _Refused from None
            piece = message.get("body", b"")
            arrived += len(piece)
            is_whole = not message.get("more_body", False)
            if not is_form:
                marks += sum(map(piece.count, (b",", b":", b"[", b"{")))
            if arrived > self._max or marks > MOST_MARKS:
                problem = too_large if arrived > self._max else too_many
                raise _Refused
            return message

        async def watched(message: Message) -> None:
            nonlocal is_answered
            # The body reader of the framework turns any exception into its own 400; the problem replaces it.
            if problem is None:
                is_answered = True
                await send(message)

        with contextlib.suppress(_Refused):
            await self._app(scope, counted, watched)
        if problem is not None and not is_answered:
            await error_response(problem)(scope, receive, send)


class Clips:
    """Turns clips from requests into Audio, within the limits, two at a time."""

    def __init__(self, limits: UploadLimits, *, allow_urls: bool, resolver: Resolver | None = None) -> None:
        self._limits = limits
        self._allow_urls = allow_urls
        self._resolver = resolver if resolver is not None else resolve
        self._turns = OneEach(2)
        self.long_turns = OneEach(2)
        """Of requests that are seconds of work on a clip and no speaking, from its decoding to their end: all
        threads at them would leave none that pack what is being spoken, and each holds its samples."""

    async def read(self, value: str, field: str, client: str | None = None) -> Audio:
        """A clip given as base64, as a data: URL or, when switched on, as a web address. Of a client one is
        decoded at a time."""
        if value[:8].lower().startswith(("http://", "https://")):
            data = await self._fetch(value, field)
        else:
            data = self._decode_base64(value, field)
        return await self.decode(data, field, client)

    async def decode(
        self, data: bytes, field: str, client: str | None = None, *, limits: UploadLimits | None = None
    ) -> Audio:
        """The sound in an uploaded file, within `limits` or the clips'. Raises RequestError with `field`."""
        limits = limits if limits is not None else self._limits
        if len(data) > limits.max_bytes:
            raise HttpProblem(
                413,
                "payload_too_large",
                f"the clip has {len(data) / 2**20:.1f} MiB; {limits.max_bytes / 2**20:.0f} are allowed. "
                "Cut it to 5 to 15 s, or compress it.",
                param=field,
            )
        bounds = AudioLimits(
            max_bytes=limits.max_bytes,
            max_channels=limits.max_channels,
            min_rate=limits.min_rate,
            max_rate=limits.max_rate,
            max_seconds=limits.max_seconds,
            max_samples=limits.max_samples or int(limits.max_seconds * limits.max_rate),
        )
        async with self._turns.turn(client):
            work = asyncio.to_thread(read_audio, data, limits=bounds)
            try:
                samples, rate = await asyncio.wait_for(work, limits.decode_seconds)
            except TimeoutError as error:
                raise RequestError(
                    f"the clip was not decoded within {limits.decode_seconds:g} s. Export it again as wav.",
                    field=field,
                ) from error
            except RequestError as error:
                raise RequestError(str(error), field=field) from error
        return Audio(samples, rate)

    def _decode_base64(self, value: str, field: str) -> bytes:
        head = _DATA_URL.match(value)
        if head is not None and not head.group().endswith(";base64,"):
            raise RequestError(
                f"{field} is a data: URL without base64. Encode the clip as base64.", field=field
            )
        text = value[head.end() :] if head is not None else value
        if len(text) > self._limits.max_bytes * 4 // 3 + 8:
            raise HttpProblem(
                413, "payload_too_large", f"{field} is larger than the limit for clips. Cut it.", param=field
            )
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(
                f"{field} is not base64 ({error}); expected the bytes of a sound file in base64.", field=field
            ) from error

    async def _fetch(self, url: str, field: str) -> bytes:
        if not self._allow_urls:
            raise RequestError(
                f"{field} is a web address, and this server fetches none. Send the clip itself as base64, or "
                "start the server with --allow-urls.",
                field=field,
            )
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                return await fetch(url, self._limits.max_bytes, self._resolver, field)
        except TimeoutError as error:
            raise RequestError(
                f"{field} could not be fetched within {FETCH_SECONDS:g} s. Send the clip itself.", field=field
            ) from error


async def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96", "64:ff9b:1::/48",  # NAT64: whatever IPv4 address its gateway reaches
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
        "5f00::/16",  # segment routing
    )
)  # fmt: skip
"""Ranges that may lead to a private network though no registry calls them private."""


def is_public(address: str) -> bool:
    """True for an address of the open internet: not private, loopback, link-local, multicast or reserved,
    and no way around that through another family's addresses."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if any(ip in network for network in NOT_PUBLIC if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast


async def fetch(url: str, max_bytes: int, resolver: Resolver, field: str, transport: Any = None) -> bytes:
    """The bytes at a public web address. Every hop is resolved here, checked, and connected to as checked.

    Raises RequestError for private addresses, too many redirects, errors and answers above `max_bytes`.
    """
    import httpx

    def refuse(reason: str) -> RequestError:
        return RequestError(
            f"{field} cannot be fetched: {reason}. Send the clip itself as base64.", field=field
        )

    client = httpx.AsyncClient(
        trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS, transport=transport
    )
    async with client:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                parts = urlsplit(url)
                port = parts.port or (443 if parts.scheme == "https" else 80)
            except ValueError as error:
                raise refuse("the address is malformed") from error
            host = parts.hostname
            if parts.scheme not in ("http", "https") or not host or parts.username or parts.password:
                raise refuse("only plain http and https addresses are taken")
            try:
                addresses = await resolver(host, port)
            except (OSError, UnicodeError) as error:
                raise refuse("its host has no address") from error
            if not addresses or not all(is_public(address) for address in addresses):
                raise refuse("its host is not on the public internet")
            address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
            query = f"?{parts.query}" if parts.query else ""
            target = f"{parts.scheme}://{address}:{port}{parts.path or '/'}{query}"
            try:
                request = client.build_request(
                    "GET",
                    target,
                    headers={"Host": parts.netloc, "Accept": "audio/*", "Accept-Encoding": "identity"},
                    extensions={"sni_hostname": host},
                )
                answer = await client.send(request, stream=True)
                try:
                    if answer.is_redirect:
                        url = urljoin(url, answer.headers.get("location", ""))
                        continue
                    if answer.status_code != 200:
                        raise refuse(f"its server answered {answer.status_code}")
                    data = bytearray()
                    async for piece in answer.aiter_bytes(65_536):
                        data += piece
                        if len(data) > max_bytes:
                            raise refuse(f"it has more than {max_bytes / 2**20:.0f} MiB")
                    return bytes(data)
                finally:
                    await answer.aclose()
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
                raise refuse(f"the connection failed ({type(error).__name__})") from error
    raise refuse(f"it redirects more than {MAX_REDIRECTS} times")
