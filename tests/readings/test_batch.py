"""A manifest spoken into a folder: items apart, several at a time, resumed after any end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sonant.engine.engine import Engine
from sonant.errors import CheckpointError, RequestError, StorageError
from sonant.readings.batch import Batch, Machine, say_here
from sonant.readings.job import Job
from sonant.readings.manifest import read_manifest
from tests.toy import ToyModel

BASE = Job(text="", settings={"seed": 0})


@pytest.fixture
def toys(monkeypatch):
    """Every model is a toy of its name; the engines that were made."""
    made = []

    def describe(name):
        if name == "absent":
            raise CheckpointError("there is no model 'absent'")
        return replace(ToyModel().spec, name=name, fingerprint=name)

    def load(name, **options):
        describe(name)
        engine = Engine(ToyModel(fail_at=3 if name == "broken" else None), slots=options["slots"])
        made.append(engine)
        return engine

    monkeypatch.setattr("sonant.catalogue.registry.describe", describe)
    monkeypatch.setattr("sonant.catalogue.registry.load", load)
    return made


def manifest(folder, *rows, name="m.jsonl"):
    path = folder / name
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8"
    )
    return path


def run(folder, path, say_all=None):
    batch = Batch(folder / "out")
    with batch.locked():
        return batch.run(read_manifest(path, BASE), say_all or say_here(Machine(slots=3)))


def files(folder):
    return {
        p.name: p.read_bytes() for p in (folder / "out").iterdir() if p.suffix in (".wav", ".flac", ".mp3")
    }


ROWS = [{"text": f"This is item number {n}", "name": f"clip-{n}", "seed": n} for n in range(12)]


def test_one_broken_item_never_stops_another_and_a_rerun_skips_what_is_there(tmp_path, toys):
    broken = [
        "{not json", "[1]", {"name": "empty", "text": " "}, {"text": "Hi.", "voise": "x"},
        {"text": "Hi.", "speed": 99}, {"text": "Hi.", "name": "../evil"}, {"text": "Hi.", "name": "CLIP-1"},
        {"text": "Hi.", "voice": "zed"}, {"text": "Hi.", "model": "absent"}, {"text": "Hi.", "top_k": 3},
        {"text": "Hi there, all.", "model": "broken"}, {"text": "Hi.", "format": "doc"}, {"text": 3},
        {"text": "Hi.", "glossary": "nowhere.txt"},
    ]  # fmt: skip
    path = manifest(tmp_path, *ROWS[:6], *broken, *ROWS[6:])
    summary = run(tmp_path, path)
    assert (summary.items, summary.done, summary.failed) == (26, 12, 14)
    assert len(files(tmp_path)) == 12
    assert {failure["line"] for failure in summary.failures} == set(range(7, 21))
    assert not (tmp_path / "evil.wav").exists()
    told = json.loads((tmp_path / "out" / "status" / "clip-3.json").read_text())
    assert (told["status"], told["seed"], told["file"]) == ("done", 3, "clip-3.wav")
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failed"] == 14
    before = files(tmp_path)
    loaded = len(toys)
    again = run(tmp_path, path)
    assert (again.done, again.kept, again.failed) == (0, 12, 14)
    assert files(tmp_path) == before
    assert len(toys) - loaded <= 2  # only for the items that fail while they are said


def test_items_are_spoken_as_one_batch(tmp_path, toys):
    most = []
    say_all = say_here(Machine(slots=3))

    def watched(model, items):
        for item, result in say_all(model, items):
            most.append(sum(toys[-1].load))
            yield item, result

    run(tmp_path, manifest(tmp_path, *ROWS), watched)
    assert max(most) >= 2


def test_what_changed_is_spoken_again_and_nothing_else(tmp_path, toys):
    run(tmp_path, manifest(tmp_path, *ROWS))
    changed = [{**ROWS[0], "seed": 99}, {**ROWS[1], "text": "Another text"}, *ROWS[2:]]
    (tmp_path / "out" / "clip-5.wav").write_bytes(b"damaged")
    (tmp_path / "out" / "clip-6.wav").unlink()
    summary = run(tmp_path, manifest(tmp_path, *changed))
    assert (summary.done, summary.kept) == (4, 8)


def test_csv_has_the_same_items(tmp_path, toys):
    rows = manifest(
        tmp_path, 'name,text,seed,voice,speed', 'a,"Good morning, all.",3,ann,', 'b,"Two', 'lines",4,,0.5',
        'c,Too,many,cells,here,x', ',no name,,,', name="m.csv",
    )  # fmt: skip
    items = read_manifest(rows, BASE)
    assert [(item.line, item.name, bool(item.error)) for item in items] == [
        (2, "a", False), (3, "b", False), (5, "00005", True), (6, "00006", False),
    ]  # fmt: skip
    assert items[1].job.text == "Two\nlines"
    assert (items[0].job.voice, items[0].job.get("seed"), items[1].job.get("speed")) == ("ann", 3, 0.5)
    for bad, words in (
        (manifest(tmp_path, "a,b", "1,2", name="x.csv"), "no column `text`"),
        (manifest(tmp_path, "", name="x.jsonl"), "no item"),
        (manifest(tmp_path, "x", name="x.txt"), "no known format"),
        (tmp_path / "none.jsonl", "cannot read"),
    ):
        with pytest.raises(RequestError, match=words):
            read_manifest(bad, BASE)


def test_a_model_that_cannot_be_loaded_fails_its_items_only(tmp_path, toys, monkeypatch):
    path = manifest(tmp_path, *ROWS[:3], {"text": "Hi.", "model": "other"})

    def say_all(model, items):
        if model == "other":
            raise CheckpointError("its files are damaged")
        yield from say_here(Machine())(model, items)

    summary = run(tmp_path, path, say_all)
    assert (summary.done, summary.failed) == (3, 1)
    assert summary.failures[0]["message"] == "its files are damaged"


def test_a_full_disk_stops_the_batch_and_keeps_what_is_there(tmp_path, toys, monkeypatch):
    path = manifest(tmp_path, *ROWS)
    from sonant.readings import batch as module

    write, count = module.write_atomically, iter(range(100))

    def full(target, data, **options):
        if next(count) >= 8:
            raise OSError(28, "No space left on device")
        write(target, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", full)
        with pytest.raises(StorageError, match="No space left"):
            run(tmp_path, path)
    summary = run(tmp_path, path)
    assert (summary.done, summary.kept) == (8, 4)


def test_two_batches_do_not_write_to_one_folder(tmp_path):
    batch = Batch(tmp_path / "out")
    with batch.locked(), pytest.raises(RequestError, match="another batch"), Batch(tmp_path / "out").locked():
        pass


def command(folder, path, *options):
    return [sys.executable, "-m", "sonant", "batch", str(path), "-o", str(folder), "--slots", "2", *options]


@pytest.mark.parametrize(
    ("good", "broken", "kills"), [(12, 2, 1), pytest.param(480, 20, 3, marks=pytest.mark.slow)]
)
def test_a_killed_batch_goes_on_with_the_same_bytes(tmp_path, good, broken, kills):
    """The command itself, by the built-in voice."""
    rows = [{"text": f"Item {n} of many.", "name": f"c{n}", "seed": n} for n in range(good)]
    for n in range(broken):
        rows.insert(n * (good // broken), {"text": "", "name": f"bad{n}"} if n % 2 else "{broken")
    path = manifest(tmp_path, *rows)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        command(tmp_path / "whole", path), capture_output=True, text=True, env=environment, timeout=280
    )
    assert whole.returncode == 6, whole.stderr
    folder = tmp_path / "killed"
    for kill in range(kills):
        process = subprocess.Popen(
            command(folder, path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment
        )
        wanted = good * (kill + 1) // (kills + 1)
        while process.poll() is None and len(list(folder.glob("*.wav"))) < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(
        [*command(folder, path), "--json"], capture_output=True, text=True, env=environment, timeout=280
    )
    summary = json.loads(last.stdout)
    assert summary["done"] + summary["kept"] == good
    assert summary["kept"] >= good * kills // (kills + 1) - 1
    assert summary["failed"] == broken

    def clips(place: Path):
        return {p.name: p.read_bytes() for p in place.glob("*.wav")}

    assert clips(folder) == clips(tmp_path / "whole")
    assert len(clips(folder)) == good
    assert not list(folder.rglob("*.part"))
