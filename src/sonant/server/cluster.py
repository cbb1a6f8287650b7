"""The same server on every machine of a Ray cluster.

    serve run sonant.server.cluster:application model=/models/qwen3-tts-0.6b precision=int8 replicas=4

Ray starts the replicas, spreads requests over them and starts those that fail again; each replica is the
whole app of `sonant serve`. Nothing of a request is kept between two requests but stored voices, so their
folder has to be one that all machines see.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sonant.server.settings import ApiKey


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """What can be said after `serve run`, as NAME=VALUE; the names of `sonant serve` mean the same."""

    model: str = ""
    """Folders or known names, separated by commas; empty serves what `sonant serve` would."""
    device: str = "auto"
    dtype: str = "auto"
    precision: str = "auto"
    slots: int = 4
    queue_limit: int = 64
    voices: str = ""
    """Folder of stored voices, the same for all replicas; empty is each machine's own."""
    key_file: str = ""
    insecure: bool = False
    replicas: int = 1
    cpus: float = 2.0
    """Processors that Ray sets aside for a replica, and the threads torch then takes."""
    gpus: float = 0.0

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> ClusterSettings:
        """From words. Raises ConfigError for unknown names and impossible values."""
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise ConfigError(
                f"unknown setting {', '.join(unknown)}; expected some of: {', '.join(known)}. "
                "Give them as NAME=VALUE."
            )
        return cls(**{name: _value(name, known[name].default, text) for name, text in arguments.items()})


def _value(name: str, default: Any, text: str) -> Any:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        if isinstance(default, bool):
            return words[text.lower()]
        value = type(default)(text)
    except (KeyError, ValueError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise ConfigError(f"{name} is {text!r}; expected {kind}.") from error
    if not isinstance(value, str) and not (
        math.isfinite(value) and (value >= 0 if name == "gpus" else value > 0)
    ):
        raise ConfigError(f"{name} is {text!r}; expected a positive number.")
    return value


def application(arguments: Mapping[str, str]) -> Any:
    """A Ray Serve application. Raises ConfigError for impossible settings, DependencyError without Ray.

    Everybody who reaches Ray's proxy can speak, so keys are asked for as `sonant serve` does on a public
    address: SONANT_API_KEYS in the environment of `serve run`, `key_file`, or `insecure=true` on a trusted
    network. Replicas get the keys' hashes only.
    """
    settings = ClusterSettings.of(arguments)
    keys = _keys(settings)
    if not keys and not settings.insecure:
        raise ConfigError(
            "a cluster answers everybody who reaches it, and no API key is set. Set SONANT_API_KEYS, give "
            "key_file=FILE (made by `sonant key`), or insecure=true on a trusted network."
        )
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"a cluster needs {error.name}, which is absent. "
            "Install it with: pip install 'sonant[server,cluster]'"
        ) from error
    deployment = serve.deployment(
        name="sonant",
        num_replicas=settings.replicas,
        max_ongoing_requests=settings.queue_limit,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
    )
    return deployment(serve.ingress(builder(settings, keys))()).bind()


def builder(settings: ClusterSettings, keys: tuple[ApiKey, ...]) -> Callable[[], FastAPI]:
    """What makes the app inside a replica, where its models are then loaded."""

    def build() -> FastAPI:
        import torch

        from sonant.server.app import create_app
        from sonant.server.models import ModelPool, find_sources
        from sonant.server.settings import ServerSettings
        from sonant.voices.library import VoiceLibrary

        torch.set_num_threads(max(1, int(settings.cpus)))
        library = VoiceLibrary(Path(settings.voices) if settings.voices else None)
        sources = find_sources(
            [name for name in settings.model.split(",") if name],
            library,
            device=settings.device,
            dtype=settings.dtype,
            precision=settings.precision,
            slots=settings.slots,
            queue_limit=settings.queue_limit,
        )
        return create_app(ModelPool(sources), library, ServerSettings(keys=keys))

    return build


def _keys(settings: ClusterSettings) -> tuple[ApiKey, ...]:
    from sonant.server.auth import keys_of, read_key_file

    given = os.environ.get("SONANT_API_KEYS", "").replace(",", " ").split()
    from_file = read_key_file(Path(settings.key_file)) if settings.key_file else ()
    return (*keys_of(given), *from_file)
