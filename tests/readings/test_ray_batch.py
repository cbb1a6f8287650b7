"""A batch on Ray: a worker that is killed in the middle costs no item, doubles none, changes no byte."""

import json
import os
import signal
import sys

import pytest

from sonant.errors import DependencyError
from sonant.readings.batch import Batch, Machine, say_here
from sonant.readings.job import Job
from sonant.readings.manifest import read_manifest
from sonant.readings.ray_pool import Cluster, say_on_ray

BASE = Job(text="", settings={"seed": 0})


def test_ray_is_asked_for_when_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r"sonant\[cluster\]"):
        say_on_ray(Machine(), Cluster())


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
            workers = [
                p
                for p in psutil.process_iter(["cmdline"])
                if "ray::RayWorker" in " ".join(p.info["cmdline"] or [])
            ]
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
