"""The studio in a real browser; its models speak as the built-in voice does and can what large ones can."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from sonant.audio.io import write_audio
from sonant.catalogue.registry import describe, load
from sonant.engine.engine import Engine
from sonant.families.builtin.model import BuiltinModel
from sonant.request.speech import SpeechRequest
from sonant.request.voice import Voice
from sonant.server.app import create_app
from sonant.server.models import ModelPool, ModelSource
from sonant.server.settings import ServerSettings
from sonant.server.uploads import Clips
from sonant.voices.library import VoiceLibrary
from tests.server.conftest import ThreadServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync use-fake-device-for-media-stream use-fake-ui-for-media-stream "
    "autoplay-policy=no-user-gesture-required"
)
SPOKEN = "Good morning to you. This is a clear recording of my own voice."
POWERS = {
    "clone", "voice_design", "instruction", "emotion_vector", "emotion_audio", "emotion_text",
}  # fmt: skip


class Actor(BuiltinModel):
    """The built-in voice with the powers of other models: whatever it is asked for, it says as ever."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec

    def encode_voice(self, audio, transcript):
        made = {"family": self.spec.family, "fingerprint": self.spec.fingerprint}
        return Voice(**made, tensors={"speaker": torch.zeros(1)}, clip=audio, transcript=transcript)


def actor(name, **changes):
    """A source of an `Actor` whose spec has these changes."""
    plain = describe("builtin")
    spec = replace(plain, name=name, fingerprint=name, note="", **changes)
    return ModelSource(name=name, open=lambda: Engine(Actor(spec)), spec=spec, about="")


def cast_of_models():
    """Two ordinary models, and one that only designs."""
    plain = describe("builtin")
    stage = actor(
        "stage",
        voices=("grace", "otto", "lucie"),
        default_voice="grace",
        voice_languages={"grace": "english", "otto": "german", "lucie": "french"},
        languages=("english", "french", "german"),
        capabilities=plain.capabilities | POWERS - {"voice_design"},
        sampling={"temperature": 0.9, "top_k": 50},
    )
    designer = actor(
        "designer",
        voices=(),
        default_voice=None,
        needs_instruction=True,
        capabilities=frozenset({"voice_design", "instruction", "seed", "speed"}),
    )
    builtin = ModelSource(name="builtin", open=lambda: load("builtin"), spec=plain)
    return [builtin, stage, designer]


def serve(folder, sources=None, settings=None):
    """A server over these models that keeps its voices and books in `folder`."""
    settings = settings if settings is not None else ServerSettings()
    library = VoiceLibrary(folder / "voices")
    pool = ModelPool(sources if sources is not None else cast_of_models())
    clips = Clips(settings.uploads, allow_urls=False)
    return ThreadServer(create_app(pool, library, settings, clips=clips))


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """Two sentences in a file: what the browser's fake microphone hears."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with load("builtin") as engine:
        speech = engine.synthesize(SpeechRequest(SPOKEN, seed=1))
    write_audio(path, np.concatenate([speech.samples] * 2), speech.sample_rate)
    return path


@pytest.fixture(scope="session")
def browser(spoken):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    options = [f"--{name}" for name in OPTIONS.split()]
    with playwright.sync_playwright() as made:
        running = made.chromium.launch(
            executable_path=CHROMIUM, args=[*options, f"--use-file-for-fake-audio-capture={spoken}"]
        )
        yield running
        running.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    server = serve(tmp_path_factory.mktemp("voices"))
    yield server
    server.stop()


@pytest.fixture
def open_page(browser, studio):
    """Open the studio: open_page("clone", width=390, scheme="dark"). What goes wrong on it fails the test."""
    contexts, problems = [], []

    def begin(name="speak", *, url=None, width=1280, height=844, scheme="light", locale="en-US", setup=None):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            locale=locale,
            permissions=["microphone"],
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("request", lambda request: problems.extend(outside(request.url, url or studio.url)))
        if setup is not None:
            setup(page)
        page.goto(f"{url or studio.url}/#{name}")
        page.wait_for_selector(f"#page-{name}[data-ready=true]")
        page.wait_for_selector("body[data-ready=true]")
        return page

    yield begin
    for context in contexts:
        context.close()
    assert [one for one in problems if "Failed to load resource" not in one] == []


def outside(url, home):
    return [] if url.startswith((home, "blob:", "data:")) else [f"asked another host: {url}"]


def words(text):
    return re.sub(r"[^a-z' ]", "", text.lower().replace("-", " ")).split()


def hear(recogniser, path):
    """What a recogniser understands of a sound file, as plain words."""
    segments, _ = recogniser.transcribe(str(path), language="en", beam_size=5)
    return words(" ".join(segment.text for segment in segments))


def until(page, expression):
    """Wait until an expression is true on the page. The page's own rules forbid Playwright's way to wait."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"did not come true: {expression}")


def speech_requests(page):
    """A list that grows with each request that speaks."""
    sent = []
    page.on("request", lambda one: sent.append(one) if one.url.endswith("/v1/audio/speech") else None)
    return sent


def speak(page, text, *, stop=True):
    """Say a text on the Speak page and wait until it is kept."""
    before = page.locator("#takes li").count()
    page.fill("#text", text)
    page.click("#speak")
    page.wait_for_selector(f"#takes li:nth-child({before + 1})", timeout=60_000)
    if stop and "Stop" in page.inner_text("#speak"):
        page.click("#speak")
        page.wait_for_selector("#speak:has-text('Speak')")
