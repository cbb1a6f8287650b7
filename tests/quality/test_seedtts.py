"""Lists in the format of the Seed-TTS evaluation."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from sonant.audio.io import write_audio
from sonant.engine.engine import Engine
from sonant.errors import RequestError, StorageError
from sonant.quality.seedtts import RESULTS, SUMMARY, evaluate, read_meta
from sonant.request.voice import Voice
from tests.quality.fakes import FakeJudges
from tests.toy import ToyModel

# Lines as in the public lists: English ones with four parts, Chinese ones too; "hardcase" has a fifth.
LINES = (
    "common_voice_en_10119832-common_voice_en_10119840|We asked over twenty people.|prompt-wavs/a.wav|"
    "Get the trust fund to the bank early.\n"
    "00000309-00000300|把他拉到一边。|prompt-wavs/a.wav|他说：“我们走吧。”|wavs/truth.wav\n"
)


class Cloning(ToyModel):
    """Takes any voice."""

    def __init__(self):
        super().__init__(end_bias=float("-inf"))

        capabilities = frozenset({"clone", "clone_in_context", "seed"})
        languages = ("english", "chinese")
        self.spec = replace(self.spec, capabilities=capabilities, voices=(), languages=languages)
        self.heard = []

    def encode_voice(self, audio, transcript):
        self.heard.append(transcript)
        return Voice(family="toy", fingerprint="toy", tensors={}, transcript=transcript, clip=audio)


@pytest.fixture
def meta(tmp_path):
    (tmp_path / "prompt-wavs").mkdir()
    tone = np.sin(np.arange(16_000) * 0.1).astype(np.float32) * 0.3
    write_audio(tmp_path / "prompt-wavs" / "a.wav", tone, 16_000)
    (tmp_path / "meta.lst").write_text(LINES, encoding="utf-8")
    return tmp_path / "meta.lst"


def test_a_list_is_spoken_judged_and_gone_on_with(meta, tmp_path):
    items = read_meta(meta)
    assert [item.transcript for item in items] == ["We asked over twenty people.", "把他拉到一边。"]
    assert items[1].text == "他说：“我们走吧。”"
    out = tmp_path / "out"
    model, judges = Cloning(), FakeJudges()
    with Engine(model) as engine:
        summary = evaluate(items, out, judges, engine=engine, language=None)
        assert summary["items"] == 2
        assert summary["failed"] == []
        assert summary["wer"]["value"] == 0
        assert summary["similarity"]["value"] == 0.9
        assert json.loads((out / SUMMARY).read_text()) == summary
        assert {path.name for path in out.glob("*.wav")} == {f"{item.name}.wav" for item in items}
        assert [reference is not None for _, _, reference in judges.asked] == [True, True]
        with (out / RESULTS).open("a", encoding="utf-8") as file:
            file.write('{"name": "cut o')
        assert evaluate(items, out, judges, engine=engine, language=None) == summary
    assert len(judges.asked) == 2


def test_a_run_that_was_stopped_ends_with_the_results_of_one_that_was_not(meta, tmp_path):
    items = read_meta(meta)
    made = {}
    for name in ("whole", "stopped"):
        judges = FakeJudges()
        with Engine(Cloning()) as engine:
            if name == "stopped":
                items[0].clip.rename(tmp_path / "away.wav")  # the first fails now, and is done last
                evaluate(items, tmp_path / name, judges, engine=engine, language=None)
                (tmp_path / "away.wav").rename(items[0].clip)
                judge, judges.judge = judges.judge, interrupted
                with pytest.raises(KeyboardInterrupt):
                    evaluate(items, tmp_path / name, judges, engine=engine, language=None)
                judges.judge = judge
            evaluate(items, tmp_path / name, judges, engine=engine, language=None)
        made[name] = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
    assert made["stopped"] == made["whole"]


def interrupted(*given, **options):
    """A judge at whom somebody pressed Ctrl-C."""
    raise KeyboardInterrupt


def test_a_result_of_another_seed_text_clip_or_recording_is_not_taken_for_this_one(meta, tmp_path):
    items = read_meta(meta)
    out, judges = tmp_path / "out", FakeJudges()
    with Engine(Cloning()) as engine:
        evaluate(items, out, judges, engine=engine, language=None)
        evaluate(items[:1], out, judges, engine=engine, language=None)  # a part of the list loses no result
        evaluate(items, out, judges, engine=engine, language=None)
        assert len(judges.asked) == 2
        evaluate(items, out, judges, engine=engine, language=None, seed=1)
        assert len(judges.asked) == 4
        changed = [replace(items[0], text="Something else."), items[1]]
        evaluate(changed, out, judges, engine=engine, language=None, seed=1)
        assert [asked[0] for asked in judges.asked[4:]] == ["Something else."]
        (out / f"{items[1].name}.wav").unlink()
        evaluate(changed, out, judges, engine=engine, language=None, seed=1)
        assert len(judges.asked) == 6
    evaluate(changed, out, judges, engine=None, language=None)  # judged as another program's
    assert len(judges.asked) == 8
    write_audio(out / f"{items[0].name}.wav", np.full(8000, 0.1, np.float32), 16_000)
    evaluate(changed, out, judges, engine=None, language=None)
    assert len(judges.asked) == 9


def test_a_folder_that_is_none_is_told_before_anything_is_spoken(meta, tmp_path):
    (tmp_path / "file").write_text("x")
    judges = FakeJudges()
    with pytest.raises(RequestError, match="cannot write to the folder"):
        evaluate(read_meta(meta), tmp_path / "file", judges, engine=None, language=None)
    assert not judges.asked


def test_a_folder_that_may_not_be_written_is_no_fault_of_the_request(meta, tmp_path, monkeypatch):
    def refuse(path, data, *, is_private):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("sonant.quality.seedtts.write_atomically", refuse)
    with pytest.raises(StorageError, match="cannot write to the folder"):
        evaluate(read_meta(meta), tmp_path, FakeJudges(), engine=None, language=None)


def test_clips_of_another_program_are_judged_and_missing_ones_count_as_wrong(meta, tmp_path):
    items = read_meta(meta)
    out = tmp_path / "theirs"
    out.mkdir()
    write_audio(out / f"{items[0].name}.wav", np.full(8000, 0.1, np.float32), 16_000)
    summary = evaluate(items, out, FakeJudges(), engine=None, language=None)
    assert summary["failed"] == [items[1].name]
    assert summary["wer"]["value"] == 0.5
    rows = [json.loads(line) for line in (out / RESULTS).read_text().splitlines()]
    assert "error" in rows[1]


@pytest.mark.parametrize(
    "text",
    [
        "", "a|b|c\n", "a|b|c|d|e|f\n", "a||c|d\n", "../a|b|c.wav|d\n", "a|b|c.wav|d\na|b|c.wav|e\n",
    ],
)  # fmt: skip
def test_lists_that_are_none_are_refused(tmp_path, text):
    path = tmp_path / "meta.lst"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RequestError):
        read_meta(path)
    with pytest.raises(RequestError, match=r"meta\.lst"):
        read_meta(tmp_path / "absent.lst")
