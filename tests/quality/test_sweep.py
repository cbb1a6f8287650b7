"""A sweep ranks what was spoken, recommends with care, and writes a page that needs nothing else."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.families.builtin.spec import builtin_spec
from sonant.families.indextts2.options import PRESETS
from sonant.quality.bootstrap import Interval
from sonant.quality.standings import DEFAULT, Standing, recommend
from sonant.quality.sweep import PAGE, REPORT, grid, run_sweep
from sonant.quality.trials import FAILED, Candidate, Clip, Task, parse_settings, sentences_for
from sonant.request.audio import Audio
from tests.quality.fakes import FakeJudges
from tests.toy import ToyModel

SENTENCES = (
    "one little duck went out", "two hungry geese came home", "three gray swans slept", "four cows lay down",
)  # fmt: skip


class LoudToy(ToyModel):
    """A temperature above 2 makes it loud, which the judges take for garbage; 9 fails."""

    def __init__(self):
        super().__init__(end_bias=float("-inf"))
        self.spec = replace(self.spec, presets={"calm": {"temperature": 0.5}})

    def decoder(self, prompt, *, streaming):
        made = super().decoder(prompt, streaming=streaming)
        push, heat = made.push, prompt.sampling.temperature
        if heat == 9:
            raise ValueError("too hot")
        made.push = lambda tokens: push(tokens).sign() * (0.9 if heat > 2 else 0.1)
        return made


@pytest.fixture
def engine():
    with Engine(LoudToy()) as made:
        yield made


def sweep(engine, folder, *candidates, **task):
    given = [Candidate(name, parse_settings(text, engine.spec)) for name, text in candidates]
    return run_sweep(
        engine,
        [Candidate(DEFAULT), *given],
        Task(sentences=SENTENCES, seed=3, **task),
        FakeJudges(0.5),
        folder,
    )


def test_a_bad_setting_is_ranked_last_and_one_that_fails_below_it(engine, tmp_path):
    standings = sweep(
        engine, tmp_path, ("wild", "temperature=5"), ("calm", "calm"), ("broken", "temperature=9")
    )
    assert [standing.candidate.name for standing in standings][2:] == ["wild", "broken"]
    assert standings[2].against_default.is_sure
    assert standings[2].against_default.low > 0
    assert standings[3].summary["failed"] == len(SENTENCES)
    assert standings[3].points == FAILED
    assert recommend(standings)[0] == DEFAULT
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["recommended"]["name"] == DEFAULT
    assert [row["rank"] for row in report["candidates"]] == [1, 2, 3, 4]
    assert report["not_judged"] == list(FakeJudges.remarks)
    wild = report["candidates"][2]
    assert wild["settings"] == {"temperature": 5.0}
    assert wild["clips"][0]["judgement"]["wer"] > 0.9
    for clip in wild["clips"]:
        assert Audio.read(tmp_path / clip["file"]).seconds == pytest.approx(clip["seconds"], abs=1e-3)


def test_the_page_holds_everything_and_escapes_what_it_quotes(engine, tmp_path):
    given = [Candidate(DEFAULT), Candidate("wild", {"temperature": 5.0})]
    task = Task(sentences=("<b>one</b> & two",), seed=3)
    run_sweep(engine, given, task, FakeJudges(0.5), tmp_path)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert page.count("<audio") == page.count("<img") == 2
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "<b>one" not in page
    assert "&lt;b&gt;one&lt;/b&gt; &amp; two" in page
    assert "Recommended: <b>default</b>" in page


def test_the_same_seed_gives_every_candidate_the_same_chances(engine, tmp_path):
    one = sweep(engine, tmp_path / "a", ("same", "temperature=1"))
    by_name = {standing.candidate.name: standing for standing in one}
    for a, b in zip(by_name[DEFAULT].clips, by_name["same"].clips, strict=True):
        first, second = (Audio.read(tmp_path / "a" / clip.file).samples for clip in (a, b))
        assert np.array_equal(first, second)


def test_the_grid_has_the_default_the_presets_and_moves_each_knob():
    toy = replace(
        ToyModel().spec, presets=PRESETS, sampling={"temperature": 0.8, "top_p": 1.0, "flow_steps": 25}
    )
    names = [candidate.name for candidate in grid(toy)]
    assert names[: len(PRESETS) + 1] == [DEFAULT, *PRESETS]
    assert {"temperature-0.48", "temperature-0.96", "top-p-0.8", "flow-steps-12"} <= {*names}
    assert len(names) == len({*names})
    assert [candidate.name for candidate in grid(builtin_spec())] == [DEFAULT, "speed-0.9", "speed-1.1"]


def standing(name, points, against=None):
    clip = Clip(candidate=Candidate(name), number=0, text="x")

    class Fixed(Standing):
        @property
        def points(self):
            return points

    return Fixed(candidate=clip.candidate, clips=(clip,), against_default=against)


def test_the_default_stays_unless_another_is_surely_better():
    default = standing(DEFAULT, 5.0)
    doubtful = standing("a", 4.0, Interval(-1.0, -3.0, 1.0, 8))
    sure = standing("b", 2.0, Interval(-3.0, -4.0, -2.0, 8))
    assert recommend([doubtful, default])[0] == DEFAULT
    assert recommend([sure, doubtful, default])[0] == "b"
    assert recommend([standing("only", 1.0)])[0] == "only"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_sentences_rank_nothing_with_confidence(engine, tmp_path, count):
    task = Task(sentences=SENTENCES[:count], seed=3)
    given = [Candidate(DEFAULT, {"temperature": 5.0}), Candidate("calm", {"temperature": 0.5})]
    standings = run_sweep(engine, given, task, FakeJudges(0.5), tmp_path)
    assert standings[0].candidate.name == "calm"  # by far, and of few sentences all the same
    assert standings[0].points < standings[1].points - 50
    report = json.loads((tmp_path / REPORT).read_text())
    assert (report["recommended"]["name"], len(report["doubts"])) == (DEFAULT, 1)
    assert "too few sentences" in report["recommended"]["reason"]
    against = report["candidates"][0]["against_default"]
    assert (against["low"], against["high"], against["sentences"]) == (None, None, count)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "cannot rank with confidence" in page
    assert "points against the default (too few sentences)" in page


def test_where_everything_failed_nothing_is_recommended_for_its_points(engine, tmp_path):
    given = [Candidate(DEFAULT, {"temperature": 9.0}), Candidate("other", {"temperature": 9.0})]
    standings = run_sweep(engine, given, Task(sentences=SENTENCES, seed=3), FakeJudges(0.5), tmp_path)
    assert recommend(standings) == (DEFAULT, "every clip failed, so nothing is known")


@pytest.mark.parametrize("text", ["loudly=1", "temperature", "temperature=hot", "speed=fast", "loudness=-20"])
def test_settings_that_do_not_exist_are_refused(text):
    with pytest.raises(RequestError):
        parse_settings(text, ToyModel().spec)


def test_settings_are_read_by_the_table():
    spec = LoudToy().spec
    read = parse_settings("calm, speed=1.5, trim=yes, max-frames=9, language=english", spec)
    assert read == {
        "temperature": 0.5, "speed": 1.5, "trim": True, "max_frames": 9,
        "language": "english",
    }  # fmt: skip
    request = Candidate("x", read).request("hello", voice=None, language=None, seed=7)
    assert (request.speed, request.trim, request.sampling.max_frames, request.seed) == (1.5, True, 9, 7)


def test_sentences_are_in_the_language_that_is_named(tmp_path):
    assert sentences_for("zh", builtin_spec()) != sentences_for(None, builtin_spec())
    with pytest.raises(RequestError, match="--sentences"):
        sentences_for("welsh", builtin_spec())
    with pytest.raises(RequestError, match="one name"):
        run_sweep(None, [Candidate("a"), Candidate("a")], Task(sentences=("x",)), FakeJudges(), tmp_path)
