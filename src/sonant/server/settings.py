"""Everything an app can be told, in one frozen record; the options that fill it are in options.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sonant.request.settings import LOUDNESS

OPENAI_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage",
    "shimmer", "verse",
)  # fmt: skip
"""Names that clients of OpenAI's service send; here they stand for the model's own voices."""


RIGHTS: Mapping[str, str] = {
    "speak": "speak",
    "voices": "add and remove voices of its own",
    "admin": "load and unload models, remove shared voices, see every request",
}


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """An accepted key, of which only the hash is kept."""

    hash: str
    """`sha256:<hex>`"""
    rights: frozenset[str] | None = None
    """Some of RIGHTS; None is all for a server's only key, and `speak` and `voices` for one of several."""
    priority: int = 0
    """Requests of a higher one are begun first."""


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """What an uploaded clip may be; checked from its header before anything is decoded."""

    max_bytes: int = 10 * 2**20
    max_seconds: float = 120.0
    max_channels: int = 8
    min_rate: int = 4_000
    max_rate: int = 192_000
    max_samples: int = 0
    """Of one channel; 0 is as many as the longest has at the highest rate."""
    decode_seconds: float = 20.0
    """Time one clip may take to decode."""


@dataclass(frozen=True, kw_only=True)
class ReadingLimits:
    """Books and their readings: how many and how large, of one owner (a key, or everybody)."""

    books: int = 100
    readings: int = 50
    owner_bytes: int = 16 * 2**30
    spare_bytes: int = 256 * 2**20
    """What stays free on the disk."""
    at_once: int = 2
    """Readings that run at a time, one of each owner."""
    parse_seconds: float = 120.0
    """Time that reading a file may take."""
    seconds: float = 48 * 3600.0
    """Time that a reading may run; then it is stopped, and may be resumed."""


@dataclass(frozen=True, kw_only=True)
class DoorLimits:
    """What holds before a request is read."""

    connections: int = 1_024
    """Open connections in all, WebSockets among them; one more is answered with 503."""
    connections_per_address: int = 256
    """Of one address; 0 is no limit, as behind a proxy that has limits of its own."""
    header_seconds: float = 10.0
    """From the first byte (or the connection) to the end of a request's headers."""
    header_bytes: int = 65_536


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits, access and names of one server."""

    keys: tuple[ApiKey, ...] = ()
    """Accepted API keys; empty means no key is asked for, and everybody has every right."""
    allowed_hosts: tuple[str, ...] = ()
    """Names a Host header may carry; empty means any. Guards a local server against DNS rebinding."""
    cors_origins: tuple[str, ...] = ()
    """Other web origins that may use this server from a browser."""
    model_aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names for served models; OpenAI's names stand for the first model unless listed here."""
    voice_aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names for voices; OpenAI's names stand for the model's own voices unless listed here."""
    uploads: UploadLimits = UploadLimits()
    max_body: int = 16 * 2**20
    """Bytes of any request body: a clip in base64, and a text."""
    body_seconds: float = 120.0
    """Time any request body may take to arrive."""
    max_input: int = 100_000
    """Characters of one request's text; a model may allow fewer."""
    max_batch: int = 32
    """Items of one batch request."""
    max_per_client: int = 64
    """Speech requests of one client (key or address) at a time; one more is answered with 429."""
    max_sockets_per_client: int = 128
    """Open WebSockets of one client, idle ones among them."""
    doors: DoorLimits = DoorLimits()
    readings: ReadingLimits = ReadingLimits()
    deadline: float = 300.0
    """Seconds a request may take, to which `deadline_per_character` is added."""
    deadline_per_character: float = 0.2
    stall_seconds: float = 300.0
    """A client that takes no byte for this long is dropped."""
    allow_urls: bool = False
    """Fetch reference clips from web addresses. Private addresses are refused even then."""
    strict_fields: bool = False
    """Refuse fields that do nothing here; otherwise the answer's X-Sonant-Warning names them."""
    loudness: float | None = LOUDNESS
    """LUFS at which answers leave where the body does not say it; None is as the model speaks."""
    stored_voices: int = 1_000
    """Most voices that uploads may leave in the library."""

    def deadline_for(self, characters: int) -> float:
        """Seconds that a request of this many characters may take."""
        return self.deadline + self.deadline_per_character * characters
