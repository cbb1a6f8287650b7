"""A request in a trace is the request that was recorded, setting by setting."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.cli.parity_request import told_task
from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.parity.record import record
from sonant.parity.task import Task, task_of
from sonant.parity.trace import Trace, read_trace
from sonant.request.audio import Audio
from sonant.request.settings import EMOTIONS, settings_of
from sonant.request.speech import Sampling, SpeechRequest, Style, TextFeed
from tests.parity.toy_stages import TABLE, toy_trace
from tests.toy import ToyModel

ROWS = settings_of("request", "style", "sampling")
CLIP = Audio(np.linspace(-1, 1, 50, dtype=np.float32), 8000)
WORDS = {"guards": "none"}
"""Values of settings of kind "text" that not any text will do for."""


def others(row):
    """Values of a setting that are not its default, all of them where they can be counted."""
    match row.kind:
        case "switch":
            return [not row.default] if row.default is not None else [True, False]
        case "choice":
            return [choice for choice in row.choices if choice != row.default]
        case "whole":
            return [int(row.least) + 1]
        case "number":
            return [(row.least if row.above is None else row.above) + 0.5]
        case "emotions":
            return [(0.1,) * (len(EMOTIONS) - 1) + (0.7,)]
        case "glossary":
            return [{"tea": "tee", "é": "e"}]
        case "options":
            return [{"codec_chunks": True, "noise": "seeded", "interval_silence_ms": 3.5}]
        case "clip":
            return [CLIP]
        case _:
            return [WORDS.get(row.name, "some words, é")]


def asked(row, value):
    """A request for one setting alone."""
    homes = {"style": Style, "sampling": Sampling}
    text = "" if row.name == "source_audio" else "Hello."
    if row.home in homes:
        return SpeechRequest(text, **{row.home: homes[row.home](**{row.name: value})})
    return SpeechRequest(text, **{row.name: value})


def kept(task, folder):
    """The task as it comes back from a trace's file."""
    trace = toy_trace()
    clips = tuple(
        replace(trace.entries[0], key=f"input.{name}", kind="input", shape=clip.samples.shape, hash="",
                stored=torch.from_numpy(clip.samples))
        for name, clip in task.clips().items()
    )  # fmt: skip
    path = folder / "t.safetensors"
    Trace((*clips, *trace.entries), {**trace.metadata, "request": task.data()}).save(path)
    return task_of(read_trace(path))


def plain(request):
    """Every field but the clips, which are compared by their samples."""
    return replace(request, source_audio=None, style=replace(request.style, emotion_audio=None))


CASES = [(row, value) for row in ROWS if row.kind != "feed" for value in others(row)]


@pytest.mark.parametrize(("row", "value"), CASES, ids=[f"{row.name}-{i}" for i, (row, _) in enumerate(CASES)])
def test_every_setting_of_the_table_comes_back_as_it_was(row, value, tmp_path):
    task = Task(request=asked(row, value))
    again = kept(task, tmp_path)
    assert plain(again.request) == plain(task.request)
    clips = [one.clips() for one in (task, again)]
    assert clips[0].keys() == clips[1].keys()
    for name, clip in clips[0].items():
        assert np.array_equal(clip.samples, clips[1][name].samples)
        assert clip.sample_rate == clips[1][name].sample_rate
    assert again.data() == task.data()


def test_versions_that_know_the_boolean_alone_read_what_it_can_say():
    """They took any name for the original's front end, "off" too, and told of every key new to them."""
    old = {"text", "voice", "transcript", "style", "sampling", "normalize", "max_steps", "rates"}
    for name, said in (("original", True), ("off", False), ("sonant", "sonant")):
        data = Task(request=SpeechRequest("Hello.", normalize=name)).data()
        assert data["normalize"] == said
        assert set(data) == old


def test_a_request_without_any_setting_comes_back_and_is_plain_data(tmp_path):
    task = Task(request=SpeechRequest("Hello."))
    again = kept(task, tmp_path)
    assert again.request == task.request
    assert json.loads(json.dumps(task.data())) == task.data()


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"normalize": True}, "original"),
        ({"normalize": False}, "off"),
        ({}, "original"),  # as the recorders beside the originals write it: those read the text themselves
        ({"normalize": "original"}, "original"),
        ({"normalize": "sonant"}, "sonant"),
        ({"normalize": "off"}, "off"),
        ({"normalize": None}, None),
    ],
)
def test_traces_say_with_a_boolean_which_front_end_read(said, read):
    trace = toy_trace()
    found = task_of(Trace(trace.entries, {**trace.metadata, "request": {"text": "x", **said}}))
    assert found.request.normalize == read


def test_a_feed_is_no_data():
    with pytest.raises(RequestError, match="not a feed"):
        Task(request=SpeechRequest("", text_feed=TextFeed())).data()


@pytest.mark.parametrize(
    "said",
    [{"glossary": {"a": 1}}, {"code": "sing"}, {"language": 3}, {"voice": 3}, {"guards": "no such guard"}],
    ids=str,
)
def test_what_no_request_can_hold_is_a_damaged_trace(said):
    trace = toy_trace()
    with pytest.raises(RequestError, match="request is damaged"):
        task_of(Trace(trace.entries, {**trace.metadata, "request": {"text": "x", **said}}))


def told(*settings, **flags):
    usual = dict.fromkeys(("voice", "transcript", "language", "instruction", "seed", "steps"))
    return told_task("Hello.", **usual | flags, greedy={}, settings=list(settings)).request


def written(row, value, folder):
    """A setting as somebody types it behind --set."""
    if row.kind == "clip":
        value.write(folder / "clip.wav")
        return str(folder / "clip.wav")
    if row.kind == "glossary":
        path = folder / "glossary.txt"
        path.write_text("".join(f"{word} = {said}\n" for word, said in value.items()), encoding="utf-8")
        return str(path)
    if row.kind == "options":
        return ";".join(f"{name}={json.dumps(one)}" for name, one in value.items())
    return json.dumps(value) if not isinstance(value, str) else value


@pytest.mark.parametrize(("row", "value"), CASES, ids=[f"{row.name}-{i}" for i, (row, _) in enumerate(CASES)])
def test_every_setting_that_a_model_hears_of_can_be_set_and_no_other(row, value, tmp_path):
    said = f"{row.name}={written(row, value, tmp_path)}"
    if row.engine:
        with pytest.raises(RequestError, match=f"{row.name} is no setting of a recorded request"):
            told(said)
        return
    request = told(said)
    place = getattr(request, row.home) if row.home != "request" else request
    if row.kind == "clip":
        assert getattr(place, row.name).sample_rate == value.sample_rate
    else:
        assert getattr(place, row.name) == value


@pytest.mark.parametrize("name", ["voice", "loudness", "preset", "text_feed"])
def test_what_is_no_setting_of_a_request_is_refused_by_name(name):
    with pytest.raises(RequestError, match=f"{name} is no setting of a recorded request|no option '{name}'"):
        record(ToyModel(), Task(request=told(f"{name}=x")), table=TABLE)


def test_a_setting_is_said_once():
    with pytest.raises(RequestError, match="beside --seed"):
        told("seed=3", seed=4)
    with pytest.raises(RequestError, match="twice"):
        told("top_k=3", "top-k=4")
    assert told("seed=3").seed == 3
    assert told().seed == 0
    assert told().normalize == "original"


class Listening(ToyModel):
    """Keeps what it is asked to prepare."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def prepare(self, request):
        self.asked.append(request)
        return super().prepare(request)


@pytest.mark.parametrize(
    "settings",
    [
        {"normalize": "sonant"},
        {"normalize": "sonant", "emoji": "say", "code": "skip"},
        {"normalize": "original", "glossary": {"dollars": "bucks"}},
    ],
    ids=str,
)
def test_the_family_hears_what_the_engine_would_tell_it(settings):
    """It costs another text under each setting, with a pause between two parts and a seed for each."""
    text = "It costs $5 or 12 dollars \N{GRINNING FACE}, `x = 1`. [pause:300ms] And 7 more."
    request = SpeechRequest(text, seed=3, **settings)
    spoken, recorded = Listening(), Listening()
    with Engine(spoken, slots=1) as engine:
        engine.synthesize(request)
    record(recorded, Task(request=request, max_steps=4), table=TABLE)
    heard = [[(one.text, one.seed, one.normalize) for one in model.asked] for model in (spoken, recorded)]
    assert len(heard[0]) == 2
    assert heard[0] == heard[1]
    assert heard[0][0][0] != text


def test_another_front_end_is_told_where_two_requests_are_compared():
    from sonant.parity.compare import compare

    trace = toy_trace()
    usual = {**trace.metadata, "request": {"text": "x"}}
    for said, differs in (("original", False), (True, False), ("sonant", True), ("off", True), (None, True)):
        request = {**Task(request=SpeechRequest("x")).data(), "normalize": said}
        found = compare(
            Trace(trace.entries, usual), Trace(trace.entries, {**usual, "request": request}), table=TABLE
        )
        notes = [note for note in found.warnings if "two requests differ" in note]
        assert bool(notes) is differs, said
        assert all("differ in normalize" in note for note in notes)
