"""A batch on the machines of a Ray cluster: actors with a model each, and a driver that writes what they say.

Actors keep nothing. The items of one that dies are said by others, each of them alone, at most TRIES times;
as a key and a seed decide an item's bytes, it does not matter which. Models, voices and clips must be on
every machine; only the driver needs the folder.
"""

from __future__ import annotations

import contextlib
import logging
import platform
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sonant.errors import BusyError, DependencyError, GenerationError, SonantError
from sonant.readings.batch import AHEAD, Clip, Failed, Machine, Results, SayAll, Worker
from sonant.readings.job import Job
from sonant.readings.manifest import Item

log = logging.getLogger(__name__)

TRIES = 3
"""Actors that may die under an item before it is given up; the first perhaps of its company."""
PATIENCE = 120.0
"""Seconds to wait for the cluster's room while no actor has any."""
MOST_DEATHS = 20
"""Actors that may die one after another without an item being said between."""


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
        self._model, self._machine, self._cpus = model, machine, cpus
        self._worker: Worker | None = None

    def place(self) -> str:
        """The name of the machine that has room for the actor."""
        return platform.node()

    def load(self) -> SonantError | None:
        """Load the model; what is wrong with it where it cannot be had."""
        import torch

        torch.set_num_threads(max(1, int(self._cpus)))
        try:
            self._worker = Worker(self._model, self._machine)
        except SonantError as error:
            return error
        return None

    def say(self, job: Job) -> Clip | Failed:
        """The job's file, or why there is none."""
        assert self._worker is not None
        return self._worker.say(job)


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

    def say_all(model: str, items: Sequence[Item]) -> Results:
        crew = _Crew(ray, model, machine.of(items), cluster, items)
        try:
            yield from crew.results()
        finally:
            crew.end()

    return say_all


class _Crew:
    """The actors of one model, and the items that are still to be said. An item goes only to an actor that
    has its place and its model; one that an actor died under is said without company, so that it can take
    nobody along.
    """

    def __init__(
        self, ray: Any, model: str, machine: Machine, cluster: Cluster, items: Sequence[Item]
    ) -> None:
        self._ray, self._cluster = ray, cluster
        self._most = machine.slots * AHEAD
        self._arguments = (model, machine, cluster.cpus)
        self._remote = ray.remote(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_concurrency=self._most + 1
        )(RayWorker)
        self._wanted = min(cluster.workers, len(items))
        self._placing: dict[Any, Any] = {}
        self._loading: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._todo, self._alone = deque(items), deque[Item]()
        self._under_way: dict[Any, tuple[Item, Any]] = {}
        self._tries = Counter[int]()
        self._deaths = self._bad_starts = 0
        self._refusal: SonantError | None = None

    def results(self) -> Results:
        """What is said, in any order. Raises SonantError where no actor can be had."""
        while self._todo or self._alone or self._under_way:
            self._hire()
            self._hand_out()
            waited = [*self._placing, *self._loading, *self._under_way]
            patience = None if self._loading or self._ready else PATIENCE
            done, _ = self._ray.wait(waited, num_returns=1, timeout=patience)
            if not done:
                raise self._refusal or self._no_room()
            for future in done:
                if future in self._placing:
                    self._placed(future, self._placing.pop(future))
                elif future in self._loading:
                    self._loaded(future, self._loading.pop(future))
                else:
                    item, actor = self._under_way.pop(future)
                    result = self._result(future, item, actor)
                    if result is not None:
                        yield item, result

    def end(self) -> None:
        """Let every actor go."""
        if self._placing:
            short, wanted = len(self._placing), self._wanted
            log.warning("%d of %d workers got no room in the cluster while there was work", short, wanted)
        for actor in (*self._placing.values(), *self._loading.values(), *self._ready):
            self._let_go(actor)

    def _hire(self) -> None:
        while (self._todo or self._alone) and self._actors() < self._wanted:
            actor = self._remote.remote(*self._arguments)
            self._placing[actor.place.remote()] = actor

    def _actors(self) -> int:
        return len(self._placing) + len(self._loading) + len(self._ready)

    def _hand_out(self) -> None:
        for actor in self._ready:
            mine = [item for item, who in self._under_way.values() if who is actor]
            if any(self._tries[item.line] for item in mine):
                continue
            free = self._most - len(mine)
            given = [self._todo.popleft() for _ in range(min(free, len(self._todo)))]
            if not mine and not given and self._alone:
                given = [self._alone.popleft()]
            for item in given:
                self._under_way[actor.say.remote(item.job)] = (item, actor)

    def _placed(self, future: Any, actor: Any) -> None:
        try:
            log.info("a worker has its place on %s", self._ray.get(future))
        except self._ray.exceptions.RayError as error:
            self._bad_start(actor, error)
        else:
            self._loading[actor.load.remote()] = actor

    def _loaded(self, future: Any, actor: Any) -> None:
        try:
            refusal = self._ray.get(future)
        except self._ray.exceptions.RayTaskError as error:
            refusal = GenerationError(f"a worker could not load the model: {error.cause}")
        except self._ray.exceptions.RayError as error:
            self._bad_start(actor, error)
            return
        if refusal is None:
            self._bad_starts = 0
            self._ready.append(actor)
            return
        log.warning("a worker cannot have the model: %s", refusal)  # nor would it on a second try
        self._let_go(actor)
        self._refusal = refusal
        self._wanted -= 1
        if not self._actors():
            raise refusal

    def _bad_start(self, actor: Any, error: Exception) -> None:
        self._let_go(actor)
        self._bad_starts += 1
        log.warning("a worker died before it had its model: %s", _first_line(error))
        if self._bad_starts >= TRIES * self._cluster.workers:
            raise GenerationError(
                f"{self._bad_starts} workers died one after another before they had the model "
                f"({_first_line(error)}). See Ray's logs; the machines may lack memory."
            ) from error

    def _result(self, future: Any, item: Item, actor: Any) -> Clip | Failed | None:
        """What became of an item; None where it is said again."""
        errors = self._ray.exceptions
        try:
            result: Clip | Failed = self._ray.get(future)
        except errors.RayTaskError as error:
            if isinstance(error.cause, SonantError):
                raise error.cause from error
            return Failed("internal_error", str(error.cause))
        except errors.RayError as error:
            reason = _first_line(error)
            if not isinstance(error, errors.ObjectLostError):  # then it is the clip alone that is lost
                self._bury(actor, reason)
            self._tries[item.line] += 1
            if self._tries[item.line] >= TRIES:
                return Failed("worker_died", f"{TRIES} workers died while they said it; the last: {reason}")
            self._alone.append(item)
            return None
        self._deaths = 0
        return result

    def _bury(self, actor: Any, reason: str) -> None:
        if actor not in self._ready:  # the other items of one that died
            return
        self._ready.remove(actor)
        self._let_go(actor)
        self._deaths += 1
        log.warning("a worker died: %s", reason)
        if self._deaths >= max(MOST_DEATHS, 2 * self._cluster.workers):
            raise GenerationError(
                f"{self._deaths} workers died one after another, and no item was said between ({reason}). "
                "See Ray's logs; the machines may lack memory."
            )

    def _let_go(self, actor: Any) -> None:
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(actor)

    def _no_room(self) -> BusyError:
        whole, free = self._ray.cluster_resources(), self._ray.available_resources()
        of = [f"{at.get('CPU', 0):g} CPUs and {at.get('GPU', 0):g} GPUs" for at in (whole, free)]
        return BusyError(
            f"no worker found room in the cluster within {PATIENCE:g} s: each needs {self._cluster.cpus:g} "
            f"CPUs and {self._cluster.gpus:g} GPUs on one machine; the cluster has {of[0]}, of which {of[1]} "
            "are free. Ask for less with --cpus and --gpus, or wait until others are done."
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
