"""The studio in a real browser: speak, record, clone, compare, remove a voice, by mouse and by keyboard."""

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from sonant.audio.io import write_audio
from sonant.catalogue.registry import load
from sonant.request.speech import SpeechRequest
from tests.families.indextts2.conftest import build_checkpoint
from tests.server.conftest import ProcessServer, wait_ready

TINY = Path(__file__).parents[1] / "data" / "qwen3_tts" / "checkpoints" / "base_1p7b"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

OPTIONS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync use-fake-device-for-media-stream use-fake-ui-for-media-stream "
    "autoplay-policy=no-user-gesture-required"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A sentence in a file: what the browser's fake microphone hears."""
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    with load("builtin") as engine:
        speech = engine.synthesize(
            SpeechRequest("Good morning to you. This is a clear recording of my own voice.", seed=1)
        )
    write_audio(path, np.concatenate([speech.samples] * 2), speech.sample_rate)
    return path


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    server = ProcessServer(
        *("--model", "builtin", "--model", f"tiny={TINY}"),
        *("--voices", str(tmp_path_factory.mktemp("voices")), "--preload"),
    )
    wait_ready(server.url)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser(spoken):
    playwright = pytest.importorskip("playwright.sync_api")
    options = [f"--{name}" for name in OPTIONS.split()]
    with playwright.sync_playwright() as made:
        running = made.chromium.launch(
            executable_path=CHROMIUM, args=[*options, f"--use-file-for-fake-audio-capture={spoken}"]
        )
        yield running
        running.close()


@pytest.fixture
def page(browser, studio):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, permissions=["microphone"])
    made = context.new_page()
    problems, outside = [], []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    made.on("request", lambda request: outside.append(request.url))
    made.goto(studio.url)
    made.wait_for_selector("body[data-ready=true]", timeout=60_000)
    yield made
    context.close()
    assert problems == []
    assert [url for url in outside if not url.startswith((studio.url, "blob:", "data:"))] == []


def number(text):
    return float(re.search(r"[\d.]+", text).group())


def speak(page, text):
    before = page.locator("#history li").count()
    page.fill("#text", text)
    page.click("#speak")
    page.wait_for_selector(f"#history li:nth-child({before + 1})", timeout=60_000)


def is_painted(page, selector):
    """How many different colours a canvas shows."""
    return page.eval_on_selector(
        selector,
        """canvas => { const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set(); for (let i = 0; i < data.length; i += 4) seen.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]);
        return seen.size; }""",  # noqa: E501
    )


def test_speaking_streams_draws_and_tells_its_figures(page):
    speak(page, "One sentence to begin with. And a second one, a little longer than the first.")
    assert number(page.inner_text("#fig-first")) > 0
    assert number(page.inner_text("#fig-rtf")) > 0
    assert 2 < number(page.inner_text("#fig-length")) < 15
    assert is_painted(page, "#waveform") > 1
    assert is_painted(page, "#spectrogram") > 20
    assert page.inner_text("#play") == "Pause"
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    with page.expect_download() as download:
        page.click("#download")
    data = Path(download.value.path()).read_bytes()
    assert data[:4] == b"RIFF"
    assert len(data) > 50_000


def test_segments_are_shown_while_typing(page):
    page.fill("#text", "First. Second. Third.")
    page.click("#segments-box summary")
    page.wait_for_selector("#segments li:nth-child(3)", timeout=20_000)
    assert page.locator("#segments li").all_inner_texts() == ["First.", "Second.", "Third."]


def test_everything_of_speaking_works_from_the_keyboard(page):
    page.fill("#text", " ".join(f"This is sentence number {n} of a long story." for n in range(60)))
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#stop:not([disabled])")
    page.keyboard.press("Escape")
    page.wait_for_selector("#stop[disabled]")
    page.focus("#tab-speak")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-voices", "aria-selected") == "true"
    assert page.is_visible("#panel-voices")
    page.keyboard.press("End")
    assert page.is_visible("#panel-health")
    page.keyboard.press("Home")
    assert page.is_visible("#panel-speak")


def test_history_plays_and_replays_with_the_same_seed(page):
    speak(page, "Say this again, please.")
    seed = page.inner_text("#fig-seed")
    page.click("#history li:first-child button:has-text('Replay')")
    page.wait_for_selector("#history li:nth-child(2)", timeout=60_000)
    assert page.inner_text("#fig-seed") == seed
    assert page.locator("#history li .facts").nth(0).inner_text().count(seed) == 1
    page.click("#history li:nth-child(2) button:has-text('Play')")
    assert page.inner_text("#play") == "Pause"


def test_record_save_speak_with_and_remove_a_voice(page):
    page.click("#tab-voices")
    page.click("#record")
    page.wait_for_timeout(6_500)
    level = number(page.get_attribute("#meter", "aria-valuenow").lstrip("-"))
    assert 0 <= level <= 60
    page.click("#record")
    page.wait_for_selector("#verdict.good, #verdict.fair")
    assert "dB" in page.inner_text("#verdict")
    assert is_painted(page, "#clip-wave") > 1
    page.fill("#transcript", "Good morning to you.")
    page.fill("#voice-name", "mine")
    page.check("#consent")
    page.click("#save-voice")
    page.wait_for_selector("#voice-list li")
    assert "mine" in page.inner_text("#voice-list")
    page.click("#tab-speak")
    page.select_option("#model", "tiny")
    page.wait_for_selector("#voice option[value=mine]", state="attached")
    page.select_option("#voice", "mine")
    page.click("summary:has-text('More settings')")
    page.fill("#seed", "3")
    page.fill("[data-setting=max_frames]", "20")
    speak(page, "Hello there.")
    assert "mine" in page.locator("#history li .facts").nth(0).inner_text()
    page.click("#tab-voices")
    page.click("#voice-list button:has-text('Remove')")
    page.wait_for_selector("#delete-dialog[open]")
    page.click("#delete-dialog .danger")
    page.wait_for_selector("#voices-empty", state="visible")


def test_a_chosen_file_can_be_tried_without_saving(page, spoken):
    page.click("#tab-voices")
    page.set_input_files("#clip-file", spoken)
    page.wait_for_selector("#verdict:not(:empty)")
    page.click("#tab-speak")
    page.select_option("#model", "tiny")
    page.wait_for_selector("#voice option", state="attached")
    page.click("#tab-voices")
    page.click("#try-voice")
    page.wait_for_selector("#panel-speak", state="visible")
    assert "clip:" in page.locator("#voice option:checked").inner_text()
    page.click("summary:has-text('More settings')")
    page.fill("[data-setting=max_frames]", "16")
    speak(page, "Hello.")


def test_a_model_that_needs_a_voice_says_so_before_it_is_asked(page):
    page.select_option("#model", "tiny")
    page.wait_for_selector("#voice option:has-text('add a voice first')", state="attached")
    page.click("#speak")
    page.wait_for_selector("#alert:has-text('under Voices')")
    assert page.locator("#history li").count() == 0


def test_a_bad_clip_is_called_bad(page, tmp_path):
    path = tmp_path / "quiet.wav"
    write_audio(path, np.zeros(24_000, np.float32), 24_000)
    page.click("#tab-voices")
    page.set_input_files("#clip-file", path)
    page.wait_for_selector("#verdict.bad")
    assert "Silent" in page.inner_text("#verdict")


def test_two_are_compared_blind_and_revealed_after_the_choice(page):
    page.click("#tab-compare")
    page.fill("#compare-text", "Which of the two is better?")
    page.fill("#side-b .side-seed", "9")
    page.click("#compare")
    page.wait_for_selector("#compare-result", state="visible", timeout=60_000)
    assert page.locator("#compare-result .reveal").all_inner_texts() == ["Hidden until you have chosen."] * 2
    page.click(".choose[data-choice='0']")
    revealed = page.locator("#compare-result .reveal").all_inner_texts()
    assert sorted(text[0] for text in revealed) == ["A", "B"]
    assert "You chose" in page.inner_text("#tally")


def test_health_shows_models_and_requests_and_loads_models(page):
    speak(page, "Something for the list.")
    page.click("#tab-health")
    page.wait_for_selector("#recent-table tbody tr")
    assert "builtin" in page.inner_text("#models-table")
    page.click("#models-table [data-model=tiny]")
    page.wait_for_selector("#models-table button[aria-label='Load tiny']")
    page.click("#models-table [data-model=tiny]")
    page.wait_for_selector("#models-table button[aria-label='Unload tiny']", timeout=30_000)


def test_the_emotion_of_a_clip_goes_with_the_request(browser, spoken, tmp_path):
    folder = build_checkpoint(tmp_path / "index")
    server = ProcessServer("--model", f"index={folder}", "--voices", str(tmp_path / "voices"))
    try:
        wait_ready(server.url)
        page = browser.new_page()
        bodies = []
        page.on("request", lambda request: bodies.append(request) if request.method == "POST" else None)
        page.goto(server.url)
        page.wait_for_selector("body[data-ready=true]", timeout=60_000)
        page.click("#tab-voices")
        page.set_input_files("#clip-file", spoken)
        page.wait_for_selector("#verdict:not(:empty)")
        page.click("#try-voice")
        page.wait_for_selector("#emotion-clip-field:not([hidden])")
        page.fill("#text", "Hello.")
        page.fill("#emotion-strength", "0.5")
        page.set_input_files("#emotion-clip", spoken)
        page.wait_for_selector("#emotion-clip-none:not([hidden])")
        page.click("#speak")
        page.wait_for_selector("#history li, [role=alert]:not([hidden])", timeout=120_000)
        said = next(r.post_data_json for r in bodies if r.url.endswith("/v1/audio/speech"))
        assert base64.b64decode(said["emotion_audio"].split(",")[-1]) == spoken.read_bytes()
        assert said["emotion_strength"] == 0.5
        page.click("#emotion-clip-none")
        assert page.is_hidden("#emotion-clip-none")
        with page.expect_request("**/v1/audio/speech") as sent:
            page.click("#speak")
        assert "emotion_audio" not in sent.value.post_data_json
        page.context.close()
    finally:
        server.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_contrast_suffices(browser, studio, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    page.goto(studio.url)
    page.wait_for_selector("body[data-ready=true]", timeout=60_000)
    for name in ("speak", "voices", "compare", "health"):
        page.click(f"#tab-{name}")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, name
        assert page.evaluate(UNNAMED) == [], name
        assert page.evaluate(LOW_CONTRAST) == [], (name, scheme)
    context.close()


UNNAMED = """() => [...document.querySelectorAll("input, select, textarea, button, audio, canvas")]
  .filter(e => e.offsetParent !== null)
  .filter(e => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
  .map(e => e.outerHTML.slice(0, 90))"""

LOW_CONTRAST = """() => {
  const part = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.5) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll("p, label, button, h1, h2, dt, dd, td, th, summary, legend, a, li")]
    .filter(e => e.offsetParent !== null && !e.disabled && e.textContent.trim())
    .filter(e => { const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; })
    .map(e => e.outerHTML.slice(0, 90)); }"""
