"""A manifest spoken into a folder: items apart, several at a time, resumed after any end."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sonant.engine.engine import Engine
from sonant.errors import CheckpointError, RequestError, StorageError
from sonant.readings.batch import AHEAD, MOST_VOICES, Batch, Machine, Worker, say_here
from sonant.readings.delivery import deliver
from sonant.readings.job import Job
from sonant.readings.manifest import read_manifest
from sonant.request.voice import Voice
from sonant.voices.recogniser import Heard
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
        engine = Engine(
            ToyModel(fail_at=3 if name == "broken" else None),
            slots=options["slots"],
            queue_limit=options.get("queue_limit", 64),
        )
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


def test_items_are_spoken_as_one_batch(tmp_path, toys, monkeypatch):
    rows, prepared, three = [], [], threading.Event()
    prepare, step = ToyModel.prepare, ToyModel.step

    def counted(self, request):
        prepared.append(request)
        if len(prepared) == 3:
            three.set()
        return prepare(self, request)

    def watched(self, utterances):
        assert three.wait(60), "nobody asked for a third item while the first was being said"
        rows.append(len(utterances))
        return step(self, utterances)

    monkeypatch.setattr(ToyModel, "prepare", counted)
    monkeypatch.setattr(ToyModel, "step", watched)
    assert run(tmp_path, manifest(tmp_path, *ROWS)).done == 12
    assert max(rows) >= 2


def test_the_queue_has_room_for_all_that_is_under_way(tmp_path, toys, monkeypatch):
    slots, prepared, all_of_them = 40, [], threading.Event()
    prepare, step = ToyModel.prepare, ToyModel.step

    def counted(self, request):
        prepared.append(request)
        if len(prepared) == slots * AHEAD:
            all_of_them.set()
        return prepare(self, request)

    def watched(self, utterances):
        assert all_of_them.wait(60), "the queue took no more"
        return step(self, utterances)

    monkeypatch.setattr(ToyModel, "prepare", counted)
    monkeypatch.setattr(ToyModel, "step", watched)
    rows = [{"text": f"Item {n}", "name": f"c{n}"} for n in range(slots * AHEAD)]
    summary = run(tmp_path, manifest(tmp_path, *rows), say_here(Machine(slots=slots)))
    assert (summary.done, summary.failures) == (80, [])


def test_no_folder_for_temporary_files_is_needed(tmp_path, toys, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    assert run(tmp_path, manifest(tmp_path, *ROWS)).done == 12


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus", "aac", "m4a", "pcm"])
def test_a_clip_in_memory_is_that_of_a_file(tmp_path, toys, form):
    row = {"text": "This is the first. This is the second", "name": "a", "format": form, "seed": 4}
    path = manifest(tmp_path, row)
    assert run(tmp_path, path).failures == []
    item = read_manifest(path, BASE)[0]
    with Engine(ToyModel()) as engine:
        stream = engine.submit(item.job.request(None, spec=engine.spec), streaming=False)
        deliver(stream, item.job, target=tmp_path / "file")
    assert (tmp_path / "out" / item.file).read_bytes() == (tmp_path / "file").read_bytes()


def test_a_clip_of_an_item_that_is_another_now_does_not_stay(tmp_path, toys):
    run(tmp_path, manifest(tmp_path, *ROWS[:4]))
    kept = files(tmp_path)["clip-3.wav"]
    other = [{**ROWS[0], "format": "flac"}, {**ROWS[1], "model": "broken"}, {"text": "", "name": "clip-2"}]
    summary = run(tmp_path, manifest(tmp_path, *other, ROWS[3]))
    assert (summary.done, summary.kept, summary.failed) == (1, 1, 2)
    assert set(files(tmp_path)) == {"clip-0.flac", "clip-2.wav", "clip-3.wav"}  # nobody knows about clip-2
    assert files(tmp_path)["clip-3.wav"] == kept
    status = json.loads((tmp_path / "out" / "status" / "clip-1.json").read_text())
    assert (status["status"], "before" in status) == ("failed", False)


def test_a_model_that_is_not_found_today_costs_no_clip(tmp_path, toys):
    path = manifest(tmp_path, *ROWS[:3])
    run(tmp_path, path)
    before = files(tmp_path)
    wrong = manifest(tmp_path, *({**row, "model": "absent"} for row in ROWS[:3]), name="wrong.jsonl")
    for _ in range(2):
        assert run(tmp_path, wrong).failed == 3
    assert json.loads((tmp_path / "out" / "status" / "clip-0.json").read_text())["status"] == "failed"
    again = run(tmp_path, path)
    assert (again.done, again.kept, files(tmp_path)) == (0, 3, before)
    assert json.loads((tmp_path / "out" / "status" / "clip-0.json").read_text())["status"] == "done"


def test_an_item_that_nobody_foresaw_stops_no_other(tmp_path, toys, monkeypatch):
    def voice_of(job, spec):
        if job.voice:
            raise ValueError("embedded null byte")

    monkeypatch.setattr("sonant.readings.batch.job_voice", voice_of)
    summary = run(tmp_path, manifest(tmp_path, ROWS[0], {**ROWS[1], "voice": "odd"}, ROWS[2]))
    assert (summary.done, [failure["code"] for failure in summary.failures]) == (2, ["internal_error"])


def test_a_status_never_names_a_file_of_somebody_else(tmp_path, toys):
    run(tmp_path, manifest(tmp_path, *ROWS[:2]))
    precious = tmp_path / "precious.wav"
    precious.write_bytes(b"mine")
    for file in ("../precious.wav", "clip-1.wav", str(precious), ["clip-1.wav"]):
        told = {"status": "done", "name": "clip-0", "file": file, "key": "other"}
        (tmp_path / "out" / "status" / "clip-0.json").write_text(json.dumps(told))
        run(tmp_path, manifest(tmp_path, {**ROWS[0], "model": "broken"}, ROWS[1]))
        assert precious.read_bytes() == b"mine"
        assert "clip-1.wav" in files(tmp_path)


def test_voices_are_read_once_and_few_are_kept(tmp_path, toys, monkeypatch):
    read = []

    def voice_of(job, spec):
        read.append(job.voice)
        return Voice(name=job.voice)

    monkeypatch.setattr("sonant.readings.batch.job_voice", voice_of)
    rows = [{"text": "Hi.", "name": f"{n}-{turn}", "voice": f"v{n}"} for turn in range(3) for n in range(20)]
    batch = Batch(tmp_path)
    _, keys, _, _ = batch.sort(read_manifest(manifest(tmp_path, *rows), BASE))
    assert (len(read), len(keys), len({keys[line] for line in (1, 2, 21)})) == (20, 60, 2)
    worker = Worker("toy", Machine(slots=1))
    for item in read_manifest(manifest(tmp_path, *rows), BASE):
        worker._voice(item.job, worker.engine.spec)
    worker.close()
    assert len(worker._voices) == MOST_VOICES


class Listener:
    """Hears nothing of what was said."""

    def hear(self, audio, *, language=None):
        return Heard("quite another thing altogether", "en", 1.0)


def test_items_are_listened_to_where_it_is_asked(tmp_path, toys, monkeypatch):
    def of(self, language, text):
        if "fremd" in text:
            raise RequestError("the recogniser knows English only", field="verify")
        return Listener()

    monkeypatch.setattr("sonant.readings.verifying.Recognisers.of", of)
    monkeypatch.setattr(ToyModel, "step", _never_ends(ToyModel.step))
    rows = [
        {"text": "This one is heard wrong", "name": "a", "verify": True, "verify_tries": 1},
        {"text": "Das ist fremd", "name": "b", "verify": True},
        {"text": "Das ist fremd", "name": "c", "verify": True, "language": "english"},
        {"text": "This one nobody hears", "name": "d"},
    ]
    summary = run(tmp_path, manifest(tmp_path, *rows))
    assert (summary.done, [failure["name"] for failure in summary.failures]) == (3, ["c"])
    told = {
        name: json.loads((tmp_path / "out" / "status" / f"{name}.json").read_text())
        for name in ("a", "b", "d")
    }
    assert [(v["tries"], v["is_right"]) for v in told["a"]["verdicts"]] == [(1, False)]
    assert "misheard" in {guard["kind"] for guard in told["a"]["guards"]}
    assert "not_listened_to" in {guard["kind"] for guard in told["b"]["guards"]}
    assert "verdicts" not in told["d"]


def _never_ends(step):
    """Steps of a toy whose end is its ceiling: there is something to hear."""

    def stepped(self, utterances):
        self.end_bias = float("-inf")
        return step(self, utterances)

    return stepped


def test_a_wrong_line_takes_the_name_of_no_other(tmp_path):
    rows = [
        {"text": "One.", "name": "a"}, {"text": "Two.", "name": "A"}, {"text": "Three.", "name": "A-line-2"},
        "{broken", {"text": "Five.", "name": "00004"}, {"text": "", "name": "late"},
        {"text": "Seven.", "name": "late"},
    ]  # fmt: skip
    items = read_manifest(manifest(tmp_path, *rows), BASE)
    assert [item.job is not None for item in items] == [True, False, True, False, True, False, True]
    assert [item.name for item in items if item.job is not None] == ["a", "A-line-2", "00004", "late"]
    names = [item.name.casefold() for item in items]
    assert len(set(names)) == len(names)
    assert "no JSON" in items[3].error


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


def test_a_folder_that_may_not_be_written_is_no_fault_of_the_request(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("sonant.readings.batch.Held", refuse)
    with pytest.raises(StorageError, match="cannot write to"), Batch(tmp_path / "out").locked():
        pass


def test_two_batches_do_not_write_to_one_folder(tmp_path):
    batch = Batch(tmp_path / "out")
    with batch.locked(), pytest.raises(RequestError, match="another batch"), Batch(tmp_path / "out").locked():
        pass


def command(folder, path, *options):
    return [sys.executable, "-m", "sonant", "batch", str(path), "-o", str(folder), "--slots", "2", *options]


@pytest.mark.slow
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
        try:
            for _ in range(28_000):
                if process.poll() is not None or len(list(folder.glob("*.wav"))) >= wanted:
                    break
                time.sleep(0.01)
            else:
                pytest.fail("the command neither spoke nor ended")
        finally:
            process.kill()
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
