"""Readings in several precisions: said once, compared code by code, and never mixed up with others."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sonant.bench import quality
from sonant.bench.quality import Trial, choose_precisions, listen, read_texts, sentences, shares, speak
from sonant.catalogue import registry
from sonant.cli.app import tree
from sonant.errors import RequestError
from sonant.quality.judges import Judges
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec

app = tree()

TRIAL = Trial(model="m", fingerprint="f", precisions=("lossless", "int8"), texts=("One.", "Two."), seed=5)


class Model:
    """Its second code tells the precision from the third frame on."""

    def __init__(self, precision):
        self.precision = precision

    def step(self, utterances):
        frame = utterances[0]
        code = frame + 100 * (self.precision == "int8" and frame > 1)
        return [SimpleNamespace(tokens=torch.tensor([[frame, code]]))]


class Engine:
    """Says as many frames as the text has letters."""

    said: ClassVar[list] = []

    def __init__(self, precision):
        self.model = Model(precision)
        self.precision = precision
        self.spec = ModelSpec(
            family="toy",
            name="m",
            fingerprint="f",
            sample_rate=24_000,
            frame_rate=12.5,
            languages=("english",),
            voices=("ann",),
            sampling={"greedy": False, "max_frames": 9},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def synthesize(self, request):
        Engine.said.append((self.precision, request.text, request.seed, request.sampling.greedy))
        for frame in range(len(request.text)):
            self.model.step([frame])
        return Audio(np.full(240, 0.1 * (self.precision == "int8"), np.float32), 24_000)


@pytest.fixture
def spoken(monkeypatch):
    Engine.said = []
    monkeypatch.setattr(registry, "load", lambda model, *, device, precision, slots: Engine(precision))
    return Engine.said


def quiet(line):
    pass


def test_everything_is_said_once_with_its_own_seed_and_a_second_run_says_nothing(spoken, tmp_path):
    assert speak(TRIAL, tmp_path, threads=1, tell=quiet)
    expected = [
        (precision, text, seed, greedy)
        for precision in TRIAL.precisions
        for greedy in (True, None)
        for text, seed in (("One.", 5), ("Two.", 6))
    ]
    assert spoken == expected
    assert speak(TRIAL, tmp_path, threads=1, tell=quiet)
    assert len(spoken) == 8
    (tmp_path / "int8/seeds/0002.json").unlink()
    assert speak(TRIAL, tmp_path, threads=1, tell=quiet)
    assert spoken[8:] == [("int8", "Two.", 6, None)]
    assert json.loads((tmp_path / "int8/seeds/0002.json").read_text())["codes"][3] == [3, 103]
    assert (tmp_path / "int8/seeds/0002.wav").is_file()


def test_shares_count_equal_codes_and_the_frames_before_the_first_that_differs(spoken, tmp_path):
    assert not speak(TRIAL, tmp_path, threads=1, tell=quiet, seconds=-1.0)
    assert shares(TRIAL, tmp_path) == []
    speak(TRIAL, tmp_path, threads=1, tell=quiet)
    *base, greedy, seeds = shares(TRIAL, tmp_path)
    assert [(one.precision, one.equal, one.whole, one.wer) for one in base] == [("lossless", 1, 2, None)] * 2
    assert (greedy.mode, seeds.mode, greedy.precision) == ("greedy", "seeds", "int8")
    assert greedy.sentences == 2
    assert greedy.whole == 0
    assert greedy.equal == 6 / 8
    assert greedy.first == 2
    assert greedy.length == 1


def test_a_reading_that_ends_earlier_differs_where_it_ends():
    long, short = [[1, 1]] * 10, [[1, 1]] * 6
    found = quality._compared("int4", "seeds", [(long, short), (short, long), (short, short)])
    assert found.equal == round(18 / 26, 4)
    assert found.first == 6
    assert found.whole == 1
    assert found.length == 1


@pytest.mark.parametrize("other", [{"seed": 6}, {"texts": ("One.",)}, {"fingerprint": "g"}])
def test_a_folder_of_another_trial_is_refused(spoken, tmp_path, other):
    speak(TRIAL, tmp_path, threads=1, tell=quiet)
    changed = Trial(**{**TRIAL.__dict__, **other})
    with pytest.raises(RequestError, match=f"other {next(iter(other))} than asked for now"):
        speak(changed, tmp_path, threads=1, tell=quiet)
    (tmp_path / "trial.json").write_text("[]")
    with pytest.raises(RequestError, match="same trial"):
        speak(TRIAL, tmp_path, threads=1, tell=quiet)
    (tmp_path / "trial.json").write_text("{")
    with pytest.raises(RequestError, match="cannot read"):
        speak(TRIAL, tmp_path, threads=1, tell=quiet)


def test_damaged_codes_are_named(spoken, tmp_path):
    speak(TRIAL, tmp_path, threads=1, tell=quiet)
    (tmp_path / "int8/greedy/0001.json").write_text('{"codes": 3}')
    with pytest.raises(RequestError, match=r"0001\.json.*Remove it"):
        shares(TRIAL, tmp_path)


def test_precisions_are_held_against_the_widest():
    assert choose_precisions("nano", "auto")[0] == "lossless"
    assert choose_precisions("nano", "int8") == ("lossless", "int8")
    with pytest.raises(RequestError, match="expected one of"):
        choose_precisions("nano", "int3")
    with pytest.raises(RequestError, match="nothing to compare"):
        choose_precisions("builtin", "auto")


def test_sentences_are_a_hundred_or_a_users_own(tmp_path):
    assert len(sentences()) == len(set(sentences())) == 100
    file = tmp_path / "mine.txt"
    file.write_text("One.\n\n  Two. \n", encoding="utf-8")
    assert read_texts(file) == ("One.", "Two.")
    file.write_text("\n")
    with pytest.raises(RequestError, match="no sentence"):
        read_texts(file)
    with pytest.raises(RequestError, match="cannot read"):
        read_texts(tmp_path / "none.txt")


def test_the_command_prints_a_table_or_json(spoken, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    command = ["bench", "nano", "--quality", str(tmp_path / "q"), "--precision", "int8", "--sentences", "2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "int8" in done.output
    assert "greedy" in done.output
    done = CliRunner().invoke(app, [*command, "--json"])
    found = json.loads(done.stdout)
    assert found["done"]
    assert found["base"] == "lossless"
    assert len(found["shares"]) == 4


def test_what_was_said_is_judged_once_and_its_errors_add_up(spoken, tmp_path):
    heard = []

    def judge(audio, text):
        heard.append(text)
        return ("the cat sleeps" if text == "The cat sleeps." else "the dog barks"), 3.0 + len(heard) % 2

    trial = Trial(**{**TRIAL.__dict__, "texts": ("The cat sleeps.", "The dogs bark.")})
    assert not listen(trial, tmp_path, judge, tell=quiet)
    speak(trial, tmp_path, threads=1, tell=quiet)
    assert not listen(trial, tmp_path, judge, tell=quiet, seconds=-1.0)
    assert shares(trial, tmp_path)[0].wer is None
    assert listen(trial, tmp_path, judge, tell=quiet)
    assert listen(trial, tmp_path, judge, tell=quiet)
    assert heard == ["The cat sleeps.", "The dogs bark."] * 2, (
        "both ways are the same sound in each precision"
    )
    assert {(one.wer, one.dnsmos) for one in shares(trial, tmp_path)} == {(round(2 / 6, 4), 3.5)}
    assert speak(trial, tmp_path, threads=1, tell=quiet)
    assert len(spoken) == 8


def test_the_command_asks_the_judges(spoken, tmp_path, monkeypatch):
    found = SimpleNamespace(heard="one", mos=SimpleNamespace(overall=4.25))
    judges = SimpleNamespace(judge=lambda audio, *, text: found)
    monkeypatch.setattr(Judges, "load", lambda *, text: judges)
    command = [
        "bench",
        "nano",
        "--quality",
        str(tmp_path),
        "--precision",
        "int8",
        "--sentences",
        "1",
        "--listen",
    ]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["done"]
    assert {one["dnsmos"] for one in found["shares"]} == {4.25}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen"], "--listen does nothing without --quality"),
        (["--texts", "x.txt", "--for-seconds", "3"], "--texts, --for-seconds does nothing"),
        (["--quality", "q", "--batch", "2"], "--batch does nothing with --quality"),
        (["--quality", "q", "--dtype", "bfloat16"], "--dtype does nothing with --quality"),
        (["--quality", "FILE"], "is a file; expected a folder"),
        (["--quality", "q", "--texts", "none.txt"], "cannot read the sentences"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    done = CliRunner().invoke(app, ["bench", "nano", *options])
    assert done.exit_code != 0
    assert said in str(done.exception) + done.output
