"""A server's app from its options: what `sonant serve`, `sonant studio` and a cluster's replica share."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sonant.server.settings import ApiKey, ServerSettings


def keys_given(options: Mapping[str, Any]) -> tuple[ApiKey, ...]:
    """The keys of the options `api_key` and `key_file`, of SONANT_API_KEYS and of SONANT_ADMIN_KEYS."""
    from sonant.server.auth import keys_of, read_key_file
    from sonant.server.settings import RIGHTS

    def told(variable: str) -> list[str]:
        return os.environ.get(variable, "").replace(",", " ").split()

    keys = keys_of([*(options.get("api_key") or []), *told("SONANT_API_KEYS")])
    keys += keys_of(told("SONANT_ADMIN_KEYS"), rights=frozenset(RIGHTS))
    file = options.get("key_file")
    return keys + read_key_file(Path(file)) if file else keys


def build_app(
    options: Mapping[str, Any], settings: ServerSettings, *, wyoming: socket.socket | None = None
) -> FastAPI:
    """The app with its models found, not yet loaded; options by name, all that the command at hand has.
    Raises ConfigError for impossible values."""
    from sonant.catalogue import registry
    from sonant.checkpoints.memory import parse_size, resident_bytes
    from sonant.server.app import create_app
    from sonant.server.models import ModelPool, find_sources
    from sonant.server.options import OPTIONS, check_choice
    from sonant.voices.library import VoiceLibrary

    chosen = {row.name: row.default for row in OPTIONS} | dict(options)
    for row in OPTIONS:
        check_choice(row, chosen[row.name])
    library = VoiceLibrary(Path(chosen["voices"]) if chosen["voices"] else None)
    limit = parse_size(chosen["memory_limit"]) if chosen["memory_limit"] else None
    on_cpu = registry.choose_device(chosen["device"]).type == "cpu"
    taken = resident_bytes() if on_cpu else 0  # by the server itself: the rest is for models
    sources = find_sources(
        chosen["model"] or [],
        library,
        device=chosen["device"],
        dtype=chosen["dtype"],
        precision=chosen["precision"],
        strict=chosen["strict"],
        slots=chosen["slots"],
        queue_limit=chosen["queue_limit"],
        memory_limit=limit,
    )
    pool = ModelPool(
        sources,
        aliases=settings.model_aliases,
        max_bytes=None if limit is None else limit - taken,
        idle_seconds=chosen["idle_unload"],
    )
    warm = tuple(pool.names) if chosen["preload"] else None
    readings = Path(chosen["readings"]) if chosen["readings"] else None
    return create_app(pool, library, settings, warm=warm, wyoming=wyoming, readings=readings)
