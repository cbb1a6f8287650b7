"""The same server on every machine of a Ray cluster.

    serve run sonant.server.cluster:application model=/models/qwen3-tts-0.6b precision=int8 replicas=4

Ray starts the replicas, spreads requests over them and starts those that fail again; each replica is the
whole app of `sonant serve`. Nothing of a request is kept between two requests but stored voices, so their
folder has to be one that all machines see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sonant.errors import ConfigError, DependencyError
from sonant.server.building import build_app, keys_given
from sonant.server.options import Option, from_words, options_on, server_settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sonant.server.settings import ApiKey


CLUSTER = (
    Option(
        name="replicas", kind="whole", panel="Models", own_default=1, least=1, help="Servers that Ray starts."
    ),
    Option(
        name="cpus", kind="number", panel="Models", own_default=2.0, least=0.01,
        help="Processors that Ray sets aside for a replica, and the threads torch then takes.",
    ),
    Option(
        name="gpus", kind="number", panel="Models", own_default=0.0, least=0,
        help="Accelerators that Ray sets aside for a replica.",
    ),
)  # fmt: skip
"""What only a cluster is told, beside the options of `sonant serve`."""


def application(arguments: Mapping[str, str]) -> Any:
    """A Ray Serve application. Raises ConfigError for impossible settings, DependencyError without Ray.

    Everybody who reaches Ray's proxy can speak, so keys are asked for as `sonant serve` does on a public
    address: SONANT_API_KEYS or SONANT_ADMIN_KEYS in the environment of `serve run`, `key_file`, or
    `insecure=true` on a trusted network. Replicas get the keys' hashes only.
    """
    options = from_words(arguments, (*options_on("cluster"), *CLUSTER))
    keys = keys_given(options)
    if not keys and not options["insecure"]:
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
        num_replicas=options["replicas"],
        max_ongoing_requests=options["queue_limit"],
        ray_actor_options={"num_cpus": options["cpus"], "num_gpus": options["gpus"]},
    )
    return deployment(serve.ingress(builder(options, keys))()).bind()


def builder(options: Mapping[str, Any], keys: tuple[ApiKey, ...]) -> Callable[[], FastAPI]:
    """What makes the app inside a replica, where its models are then loaded."""

    def build() -> FastAPI:
        import torch

        torch.set_num_threads(max(1, int(options["cpus"])))
        return build_app(options, server_settings(options, keys=keys))

    return build
