"""A batch on Ray: a worker that is killed in the middle costs no item, doubles none, changes no byte."""

import json
import os
import signal
import sys
from types import SimpleNamespace

import pytest

from sonant.errors import BusyError, CheckpointError, DependencyError, GenerationError
from sonant.readings import ray_pool
from sonant.readings.batch import Batch, Clip, Machine, say_here
from sonant.readings.job import Job
from sonant.readings.manifest import Item, read_manifest
from sonant.readings.ray_pool import TRIES, Cluster, say_on_ray

BASE = Job(text="", settings={"seed": 0})


def test_ray_is_asked_for_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"sonant\[cluster\]"):
        say_on_ray(Machine(), Cluster())


class FakeRay:
    """As much of Ray as the driver uses, in one thread: calls are done one by one when they are waited for.

    rooms: actors that have a place at a time; broken: makes an actor's model, by the actor's number; poison:
    texts that their actor dies of; lost: texts whose clip is lost once.
    """

    def __init__(self, *, rooms=8, broken=lambda number: None, poison=(), lost=()):
        self.rooms, self.broken, self.poison, self.lost = rooms, broken, set(poison), set(lost)
        self.actors, self.calls, self.deaths = [], [], 0
        error = type("RayError", (Exception,), {})
        died = type("RayActorError", (error,), {})
        task = type("RayTaskError", (error,), {"cause": None})
        gone = type("ObjectLostError", (error,), {})
        self.exceptions = SimpleNamespace(
            RayError=error, RayActorError=died, RayTaskError=task, ObjectLostError=gone
        )

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": float(self.rooms)}

    available_resources = cluster_resources

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, *arguments):
        actor = SimpleNamespace(number=len(self.actors), is_dead=False)
        for name in ("place", "load", "say"):
            setattr(actor, name, SimpleNamespace(remote=self._caller(actor, name)))
        self.actors.append(actor)
        return actor

    def _caller(self, actor, name):
        def call(*arguments):
            self.calls.append(SimpleNamespace(actor=actor, name=name, arguments=arguments, is_done=False))
            return len(self.calls) - 1

        return call

    def kill(self, actor):
        actor.is_dead = True

    def wait(self, futures, *, num_returns, timeout):
        assert len(set(futures)) == len(futures) > 0
        alive = [actor for actor in self.actors if not actor.is_dead]
        for future in futures:
            actor = self.calls[future].actor
            if actor.is_dead or actor in alive[: self.rooms]:
                return [future], [other for other in futures if other != future]
        assert timeout is not None, "this waits for ever"
        return [], futures

    def get(self, future):
        call = self.calls[future]
        waiting = [c for c in self.calls if c.actor is call.actor and c.name == "say" and not c.is_done]
        call.is_done = True
        if not call.actor.is_dead and any(c.arguments[0].text in self.poison for c in waiting):
            call.actor.is_dead = True
            self.deaths += 1
        if call.actor.is_dead:
            raise self.exceptions.RayActorError("the actor is dead\nand more")
        if call.name == "load":
            fault = self.broken(call.actor.number)
            if isinstance(fault, str):
                call.actor.is_dead = True
                raise self.exceptions.RayActorError(fault)
            return fault
        if call.name == "say":
            text = call.arguments[0].text
            if text in self.lost:
                self.lost.remove(text)
                raise self.exceptions.ObjectLostError("the node with the clip is gone")
            return Clip(text.encode(), 1.0, 0, ())
        return "here"


def said(monkeypatch, fake, count=12, *, slots=2, **cluster):
    """What comes of `count` items by name, and the fake that said them."""
    monkeypatch.setitem(sys.modules, "ray", fake)
    items = [Item(n, f"c{n}", Job(text=f"t{n}")) for n in range(count)]
    results = list(say_on_ray(Machine(slots=slots), Cluster(**cluster))("toy", items))
    assert sorted(item.line for item, _ in results) == list(range(count))  # each told once
    assert all(actor.is_dead for actor in fake.actors)
    return {item.name: result for item, result in results}


def test_actors_without_room_get_no_item(monkeypatch, caplog):
    fake = FakeRay(rooms=2)
    results = said(monkeypatch, fake, workers=5)
    assert all(isinstance(result, Clip) for result in results.values())
    assert {call.actor.number for call in fake.calls if call.name == "say"} <= {0, 1}
    assert "3 of 5 workers got no room" in caplog.text


def test_a_cluster_without_room_is_told(monkeypatch):
    with pytest.raises(BusyError, match=r"each needs 1 CPUs and 1 GPUs .* the cluster has 0 CPUs and 0 GPUs"):
        said(monkeypatch, FakeRay(rooms=0), gpus=1)


def test_a_model_that_no_worker_can_have_is_told_and_loaded_once_by_each(monkeypatch):
    fake = FakeRay(broken=lambda number: CheckpointError("its files are damaged"))
    with pytest.raises(CheckpointError, match="its files are damaged"):
        said(monkeypatch, fake, workers=2)
    assert len(fake.actors) == 2


def test_a_worker_that_cannot_have_the_model_is_done_without(monkeypatch):
    fake = FakeRay(broken=lambda number: CheckpointError("not on this machine") if number == 0 else None)
    assert all(isinstance(result, Clip) for result in said(monkeypatch, fake, workers=2).values())
    assert len(fake.actors) == 2


def test_workers_that_die_while_they_load_are_told_with_the_reason(monkeypatch):
    fake = FakeRay(broken=lambda number: "killed for memory")
    with pytest.raises(GenerationError, match=r"6 workers died .*killed for memory"):
        said(monkeypatch, fake, workers=2)


def test_an_item_that_workers_die_of_takes_nobody_along(monkeypatch):
    fake = FakeRay(poison={"t3", "t7"})
    results = said(monkeypatch, fake)
    failed = {name: result for name, result in results.items() if not isinstance(result, Clip)}
    assert set(failed) == {"c3", "c7"}
    assert all("the actor is dead" in result.message for result in failed.values())
    assert fake.deaths <= 2 * TRIES


def test_a_clip_that_is_lost_on_its_way_is_said_again(monkeypatch):
    fake = FakeRay(lost={"t0", "t5"})
    assert all(isinstance(result, Clip) for result in said(monkeypatch, fake).values())
    assert len(fake.actors) == 2  # nobody died


def test_a_cluster_where_everything_dies_is_given_up(monkeypatch):
    fake = FakeRay(poison={f"t{n}" for n in range(200)})
    with pytest.raises(GenerationError, match="no item was said between"):
        said(monkeypatch, fake, 200)
    assert fake.deaths == ray_pool.MOST_DEATHS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_workers_than_the_cluster_has_room_for(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Item {n}.", "name": f"c{n}"}) for n in range(9)))
    items = read_manifest(path, BASE)
    monkeypatch.setattr(ray_pool, "PATIENCE", 3.0)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        batch = Batch(tmp_path / "out")
        with batch.locked():
            gpu = batch.run(items, say_on_ray(Machine(slots=1), Cluster(workers=2, gpus=1)))
            summary = batch.run(items, say_on_ray(Machine(slots=1), Cluster(workers=4)))
    finally:
        ray.shutdown()
    assert (gpu.failed, {failure["code"] for failure in gpu.failures}) == (9, {"overloaded"})
    assert (summary.done, summary.failed) == (9, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_loses_and_doubles_nothing(tmp_path):
    ray = pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    rows = [{"text": f"Item {n} of many.", "name": f"c{n}", "seed": n} for n in range(40)]
    rows.insert(7, {"text": "Hi.", "voice": "zed"})
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    items = read_manifest(path, BASE)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    killed, told = [], []

    def kill(item, result):
        told.append(item.name)
        if len(told) in (5, 20):
            mine = psutil.Process().children(recursive=True)  # another program's Ray is not ours to kill
            workers = [p for p in mine if p.is_running() and "ray::RayWorker" in " ".join(p.cmdline())]
            os.kill(workers[0].pid, signal.SIGKILL)
            killed.append(workers[0].pid)

    try:
        batch = Batch(tmp_path / "out")
        say_all = say_on_ray(Machine(slots=1), Cluster(workers=2))
        with batch.locked():
            summary = batch.run(items, say_all, on_item=kill)
            again = batch.run(items, say_all)
    finally:
        ray.shutdown()
    assert len(killed) == 2
    assert (summary.done, summary.failed) == (40, 1)
    assert sorted(told) == sorted(item.name for item in items)  # each told once
    assert (again.done, again.kept) == (0, 40)
    here = Batch(tmp_path / "here")
    with here.locked():
        here.run(items, say_here(Machine(slots=1)))
    one, other = ({p.name: p.read_bytes() for p in b.folder.glob("*.wav")} for b in (batch, here))
    assert one == other
