"""A batch on the machines of a Ray cluster: actors with a model each, and a driver that writes what they say.

Actors keep nothing. The items of one that dies are said by others, at most TRIES times; as a key and a seed
decide an item's bytes, it does not matter which. Models, voices and clips must be on every machine; only the
driver needs the folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sonant.errors import DependencyError, GenerationError
from sonant.readings.batch import AHEAD, Clip, Failed, Machine, Results, SayAll, Worker
from sonant.readings.job import Job
from sonant.readings.manifest import Item

log = logging.getLogger(__name__)

TRIES = 3
"""Actors that may die under an item before it is given up; others may have died of its company."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How many actors, and what Ray sets aside for each."""

    address: str | None = None
    """Of a running cluster; None starts Ray on this machine, or uses the one that RAY_ADDRESS names."""
    workers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0


class RayWorker:
    """What runs in an actor: one model, as many items at a time as its engine takes."""

    def __init__(self, model: str, machine: Machine, cpus: float) -> None:
        import torch

        torch.set_num_threads(max(1, int(cpus)))
        self._worker = Worker(model, machine)

    def say(self, job: Job) -> Clip | Failed:
        """The job's file, or why there is none."""
        return self._worker.say(job)

    def ready(self) -> bool:
        """Once the model is loaded."""
        return True


def say_on_ray(machine: Machine, cluster: Cluster) -> SayAll:
    """Speak on a cluster. Raises DependencyError without Ray."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DependencyError(
            f"--ray needs {error.name}, which is absent. Install it: pip install 'sonant[cluster]'"
        ) from error
    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False)
    remote: Any = ray.remote(
        num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_concurrency=machine.slots * AHEAD + 1
    )(RayWorker)

    def say_all(model: str, items: Sequence[Item]) -> Results:
        actors: list[Any] = [None] * min(cluster.workers, len(items))
        under_way: dict[Any, tuple[Item, Any]] = {}
        tries: dict[int, int] = {}
        todo = list(reversed(items))
        starts = 0
        try:
            while todo or under_way:
                for place, actor in enumerate(actors):
                    if actor is None and todo:
                        if starts >= len(actors) + TRIES * len(items):
                            raise GenerationError(
                                "the cluster's workers die again and again. See Ray's logs."
                            )
                        starts += 1
                        actors[place] = remote.remote(model, machine, cluster.cpus)
                    mine = sum(who is actors[place] for _, who in under_way.values())
                    while todo and mine < machine.slots * AHEAD:
                        item = todo.pop()
                        under_way[actors[place].say.remote(item.job)] = (item, actors[place])
                        mine += 1
                done, _ = ray.wait(list(under_way), num_returns=1)
                for future in done:
                    item, actor = under_way.pop(future)
                    try:
                        yield item, ray.get(future)
                    except ray.exceptions.RayActorError as error:
                        log.warning("a worker died: %s", str(error).splitlines()[0])
                        actors = [None if one is actor else one for one in actors]  # its other items fail too
                        tries[item.line] = tries.get(item.line, 0) + 1
                        if tries[item.line] >= TRIES:
                            yield item, Failed("worker_died", f"{TRIES} workers died while they said it")
                        else:
                            todo.append(item)
                    except ray.exceptions.RayTaskError as error:
                        yield item, Failed("internal_error", str(error.cause))
        finally:
            for actor in actors:
                if actor is not None:
                    ray.kill(actor)

    return say_all
