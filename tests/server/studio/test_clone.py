"""The Clone page: record or choose, hear what the doctor says, mend, try, keep, speak with it, remove it."""

import httpx
import numpy as np
import pytest

from sonant.audio.io import read_audio, write_audio
from sonant.catalogue.registry import describe, load
from sonant.server.models import ModelSource
from tests.server.studio.conftest import SPOKEN, serve, speak, speech_requests, until, words

pytestmark = pytest.mark.slow


def test_a_recording_becomes_a_voice_that_speaks(open_page, recogniser):
    page = open_page("clone")
    sent = speech_requests(page)
    page.click("#record")
    until(page, "Number(document.querySelector('.meter').getAttribute('aria-valuenow')) > -40")
    until(page, "/^[6-9]\\.\\d s$/.test(document.querySelector('.levels .clock').textContent)")
    page.click("#record")
    page.wait_for_selector(".verdict:is(.good, .fair, .bad), #page-clone .problem:not([hidden])")
    assert page.locator(".verdict:is(.good, .fair)").count(), page.inner_text("#page-clone")
    page.fill("label:has-text('What the recording says') + textarea", "")
    page.click("#transcribe")
    until(page, "document.querySelector('#page-clone textarea').value.length > 20")
    heard = words(page.input_value("label:has-text('What the recording says') + textarea"))
    assert len(set(heard) & set(words(SPOKEN))) >= 8
    page.click("#try-voice")
    page.wait_for_selector("#try-voice:has-text('Try')")
    page.wait_for_selector(".try .round:not([disabled])")
    assert sent[0].post_data_json["model"] == "stage", "a model that clones, whichever speaks otherwise"
    assert len(sent[0].post_data_json["ref_audio"]) > 100_000
    page.fill("label:has-text('Name') + input", "Änn Müller")
    assert "Kept as ann-muller." in page.inner_text("#page-clone")
    page.click("#save-voice")
    page.wait_for_selector("#page-clone .problem:has-text('confirm that the speaker agrees')")
    page.check("#consent")
    page.click("#save-voice")
    page.wait_for_selector(".done:has-text('ann-muller is saved')")
    page.click("#speak-with")
    page.wait_for_selector("[data-voice=ann-muller][aria-pressed=true]")
    speak(page, "I speak with it.")
    assert sent[-1].post_data_json["voice"] == "ann-muller"
    assert sent[-1].post_data_json["model"] == "stage"
    page.click("nav a[href='#clone']")
    page.click("#stored [aria-label='Hear ann-muller']")
    page.wait_for_selector("#stored .sample.on:not(.busy)")
    page.click("#stored [aria-label='Remove ann-muller']")
    page.click("dialog .danger")
    page.wait_for_selector("#stored li", state="detached")
    page.click("nav a[href='#speak']")
    page.wait_for_selector("[data-voice=ann-muller]", state="detached")


ASKING = """
const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);
window.prompts = 0; window.streams = [];
media.getUserMedia = (asked) => new Promise((done) => {
  prompts++;
  window.allow = async () => { const stream = await real(asked); streams.push(stream); done(stream); };
});"""
"""A browser that asks for the microphone until the test allows it."""
ALL_OFF = "streams.every((one) => one.getTracks().every((track) => track.readyState === 'ended'))"


def test_a_microphone_allowed_after_the_page_was_left_stays_off(open_page):
    page = open_page("clone", setup=lambda page: page.add_init_script(ASKING))
    page.click("#record")
    page.click("#record")
    assert page.evaluate("prompts") == 1, "one question, however often the button is pressed"
    page.click("nav a[href='#speak']")
    page.evaluate("allow()")
    until(page, f"streams.length === 1 && {ALL_OFF}")
    page.click("nav a[href='#clone']")
    assert page.get_attribute("#record", "aria-pressed") == "false"
    page.click("#record")
    page.evaluate("allow()")
    page.wait_for_selector("#record.on")
    page.click("nav a[href='#speak']")
    until(page, f"streams.length === 2 && {ALL_OFF}")


def test_a_recorder_that_cannot_begin_lets_go_of_the_microphone(open_page):
    page = open_page("clone", setup=lambda page: page.add_init_script(ASKING))
    page.evaluate(
        """() => { AudioWorklet.prototype.addModule = async () => {
        throw new DOMException("Unable to load a worklet's module.", "AbortError"); }; }"""
    )
    page.click("#record")
    page.evaluate("allow()")
    page.wait_for_selector("#page-clone .problem:not([hidden])")
    until(page, f"streams.length === 1 && {ALL_OFF}")
    assert page.get_attribute("#record", "aria-pressed") == "false"


def test_a_second_click_ends_the_sample_of_a_stored_voice(open_page, tmp_path, spoken):
    server = serve(tmp_path / "voices")
    try:
        clip = {"audio_sample": ("a.wav", spoken.read_bytes())}
        form = {"name": "ann", "consent": "made up", "language": "en"}
        httpx.post(f"{server.url}/v1/audio/voices", data=form, files=clip).raise_for_status()
        page = open_page("clone", url=server.url)
        page.click("#stored .sample")
        page.wait_for_selector("#stored .sample.on:not(.busy)")
        page.click("#stored .sample")
        assert page.locator("#stored .sample.on").count() == 0
    finally:
        server.stop()


def faint(path, spoken):
    samples, rate = read_audio(spoken)
    write_audio(path, 0.03 * samples[: 8 * rate], rate)
    return path


def test_a_faint_recording_is_fixed_and_can_be_had_back(open_page, spoken, tmp_path):
    page = open_page("clone")
    page.set_input_files("#page-clone .drop input", faint(tmp_path / "faint.wav", spoken))
    page.wait_for_selector(".verdict.fair")
    advice = page.inner_text(".verdict")
    assert "quiet" in advice
    page.click("#mend")
    page.wait_for_selector(".verdict .done")
    assert "LUFS" in page.inner_text(".verdict .done")
    page.click("#unmend")
    page.wait_for_selector("#mend")
    assert page.inner_text(".verdict") == advice


def test_silence_becomes_no_voice(open_page, tmp_path):
    path = tmp_path / "silent.wav"
    write_audio(path, np.zeros(72_000, np.float32), 24_000)
    page = open_page("clone")
    page.set_input_files("#page-clone .drop input", path)
    page.wait_for_selector(".verdict.bad")
    page.fill("label:has-text('Name') + input", "nobody")
    page.check("#consent")
    page.click("#save-voice")
    page.wait_for_selector("#page-clone form .problem:has-text('cannot become a voice')")
    assert page.is_hidden("#mend") or page.locator("#mend").count() == 0


def test_without_a_model_that_clones_it_is_said_at_once(open_page, tmp_path, spoken):
    plain = ModelSource(name="builtin", open=lambda: load("builtin"), spec=describe("builtin"))
    server = serve(tmp_path / "voices", [plain])
    try:
        page = open_page("clone", url=server.url)
        page.wait_for_selector("#page-clone .notice:has-text('sonant pull')")
        page.set_input_files("#page-clone .drop input", spoken)
        page.wait_for_selector(".verdict.good, .verdict.fair")
        assert page.is_hidden("#try-voice")
        page.fill("label:has-text('Name') + input", "later")
        page.check("#consent")
        page.click("#save-voice")
        page.wait_for_selector(".done:has-text('later is saved')")
        assert "No model here can speak with it yet" in page.inner_text("#stored")
    finally:
        server.stop()
