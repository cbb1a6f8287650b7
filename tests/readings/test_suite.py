"""The mode suite: every mode the capabilities allow, clips, figures, and a page that needs nothing else."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sonant.audio.picture import PICTURE_HEIGHT, PICTURE_WIDTH, png, spectrogram
from sonant.cli.app import tree
from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError
from sonant.readings.suite import modes, run_suite
from sonant.readings.takes import Material
from sonant.request.audio import Audio
from sonant.request.speech import ModelSpec
from sonant.request.voice import Voice
from tests.toy import ToyModel

CLIP = Audio(np.random.default_rng(0).uniform(-0.3, 0.3, 16_000).astype(np.float32), 8_000)


def spec(*capabilities, **changes):
    base = ModelSpec(family="x", name="x", fingerprint="x", sample_rate=8000, frame_rate=10.0, languages=())
    return replace(base, capabilities=frozenset(capabilities), **changes)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            spec("clone", "emotion_audio", "emotion_vector", "emotion_text", "seed", needs_voice=True),
            ["clone", "emotion_audio", "emotion_blend", "emotion_vector", "emotion_text"],
        ),
        (
            spec("clone", "clone_in_context", "text_layout", "frame_streaming", needs_voice=True),
            ["clone", "clone_in_context", "layout_full", "layout_progressive", "stream"],
        ),
        (
            spec("preset_voice", "instruction", voices=("ann", "bob")),
            ["plain", "voice_bob", "instruction"],
        ),
        (spec("voice_design", "instruction", needs_instruction=True), ["design"]),
        (
            spec("clone", "voice_conversion", "speed", needs_voice=True),
            ["clone", "speed", "conversion"],
        ),
        (spec("preset_voice", voices=("heart",)), ["plain"]),
    ],
)
def test_the_modes_follow_from_the_capabilities(model, expected):
    made = modes(model, Material(clip=CLIP, transcript="some words"))
    assert [mode.name for mode in made] == expected


def test_a_model_that_only_clones_needs_a_clip():
    with pytest.raises(RequestError, match="--voice"):
        modes(spec("clone", needs_voice=True), Material())


class Emotional(ToyModel):
    """A toy that takes a clip and emotions, and fails for one of them."""

    def __init__(self):
        super().__init__()
        can = frozenset({"clone", "emotion_audio", "emotion_vector", "emotion_text", "frame_streaming"})
        self.spec = replace(self.spec, capabilities=can, voices=(), default_voice=None, needs_voice=True)

    def encode_voice(self, audio, transcript):
        return Voice(family="toy", fingerprint="toy", tensors={"x": torch.ones(1)})

    def prepare(self, request):
        if request.style.emotion_text:
            raise GenerationError("no words <today>")
        return super().prepare(request)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in {"src", "href"}]


def test_a_suite_writes_clips_a_report_and_a_page(tmp_path):
    with Engine(Emotional()) as engine:
        takes = run_suite(engine, Material(clip=CLIP, text="A <b>first</b> thing to say"), tmp_path / "out")
    folder = tmp_path / "out"
    report = json.loads((folder / "metrics_report.json").read_text(encoding="utf-8"))
    by_name = {mode["name"]: mode for mode in report["modes"]}
    assert [take.mode.name for take in takes] == list(by_name)
    assert by_name["emotion_text"]["error"] == "no words <today>"
    assert by_name["stream"]["streamed"] is True
    for name in ("clone", "emotion_audio", "emotion_blend", "emotion_vector", "stream"):
        audio = Audio.read(folder / by_name[name]["file"])
        assert audio.seconds == pytest.approx(by_name[name]["seconds"], abs=1e-3)
        assert by_name[name]["metrics"]["seconds"] == pytest.approx(audio.seconds)
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "A &lt;b&gt;first" in text
    assert "no words &lt;today&gt;" in text
    links = Links()
    links.feed(text)
    inside = [link for link in links.sources if link.startswith("data:")]
    assert len(inside) == 2 * 5
    assert all((folder / link).is_file() for link in links.sources if not link.startswith("data:"))
    sound = base64.b64decode(re.search(r"data:audio/mpeg;base64,([^\"]+)", text)[1])
    assert Audio.read(sound).seconds == pytest.approx(
        by_name["clone"]["seconds"], abs=0.25
    )  # frames of mp3 are long at 8 kHz


def test_a_spectrogram_shows_a_tone_where_it_is():
    time = np.arange(16_000) / 16_000
    picture = spectrogram(np.sin(2 * np.pi * 2_000 * time).astype(np.float32), 16_000)
    assert picture.shape == (PICTURE_HEIGHT, PICTURE_WIDTH, 3)
    brightest = PICTURE_HEIGHT - 1 - picture[:, PICTURE_WIDTH // 2].sum(axis=1).argmax()
    expected = np.log1p(2_000 / 700) / np.log1p(8_000 / 700) * PICTURE_HEIGHT
    assert abs(brightest - expected) <= 2
    assert spectrogram(np.zeros(0, np.float32), 16_000).shape == picture.shape


def test_a_png_holds_the_picture():
    picture = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = png(picture)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    with av.open(io.BytesIO(data)) as file:
        (frame,) = file.decode(video=0)
    assert np.array_equal(frame.to_ndarray(format="rgb24"), picture)


def test_the_command_prints_the_page_and_fails_when_a_mode_did(monkeypatch, tmp_path):
    monkeypatch.setattr("sonant.catalogue.registry.find", lambda model: ("toy", tmp_path))
    monkeypatch.setattr("sonant.catalogue.registry.load_model", lambda *args, **options: Emotional())
    CLIP.write(tmp_path / "clip.wav")
    words = [
        "suite",
        "--model",
        "toy",
        "-o",
        tmp_path / "out",
        "--voice",
        tmp_path / "clip.wav",
        "--text",
        "a thing",
    ]
    done = CliRunner().invoke(tree(), [str(word) for word in words])
    assert done.exit_code == 1, done.output
    assert done.stdout.strip() == str(tmp_path / "out" / "index.html")
    assert "emotion_text         failed" in done.stderr
