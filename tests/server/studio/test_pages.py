"""Design, Cast, Books, Compare and Server: each path to its end."""

from pathlib import Path

import pytest

from sonant.audio.io import read_audio
from sonant.catalogue.registry import describe, load
from sonant.server.models import ModelSource
from tests.server.studio.conftest import hear, serve, speak, speech_requests, until, words

pytestmark = pytest.mark.slow

BOOK = """# The Door

## One

The door opened slowly. Nobody was there.

## Two

The wind had done it, and the house was quiet again.
"""
SCRIPT = """The door opened slowly.
Ann: Is anybody there?
Tom: Only the wind, I think.
Ann: Then close it, please.
Tom: It is closed now."""


def test_a_described_voice_is_heard_three_times_and_one_is_kept(open_page):
    page = open_page("design")
    sent = speech_requests(page)
    page.click("#design")
    page.wait_for_selector("#page-design .problem:has-text('Describe the voice')")
    page.click(".chip >> nth=1")
    page.click("#design")
    page.wait_for_selector("#design-takes .take:nth-child(3) .pick:not([disabled])")
    seeds = [one.post_data_json["seed"] for one in sent]
    assert len(set(seeds)) == 3
    page.click("#design-takes .take:nth-child(2) .pick")
    page.fill("#page-design form:has(#keep-design) input", "Radio")
    with page.expect_request("**/v1/audio/voices/design") as kept:
        page.click("#keep-design")
    assert kept.value.post_data_json["seed"] == seeds[1]
    page.wait_for_selector("#page-design .done:has-text('radio is saved')")
    page.click("#page-design .done .primary")
    page.wait_for_selector("[data-voice=radio][aria-pressed=true]")
    speak(page, "I was only described.")


COUNTING = """
window.contexts = 0; window.watching = new Set();
window.AudioContext = class extends AudioContext { constructor(...given) { super(...given); contexts++; } };
window.ResizeObserver = class extends ResizeObserver {
  observe(...given) { super.observe(...given); watching.add(this); }
  disconnect() { super.disconnect(); watching.delete(this); }
};"""


def test_takes_that_are_replaced_leave_nothing_behind(open_page):
    page = open_page("design", setup=lambda page: page.add_init_script(COUNTING))
    page.click(".chip >> nth=1")
    counts = []
    for _ in range(2):
        page.click("#design")
        page.wait_for_selector("#design-takes .take:nth-child(3) .pick:not([disabled])")
        page.wait_for_selector("#design:has-text('Three more')")
        counts.append(page.evaluate("[contexts, watching.size]"))
    assert counts[0] == counts[1]
    assert counts[0][0] == 1


def test_without_a_model_that_designs_it_is_said(open_page, tmp_path):
    server = serve(
        tmp_path, [ModelSource(name="builtin", open=lambda: load("builtin"), spec=describe("builtin"))]
    )
    try:
        page = open_page("design", url=server.url)
        page.wait_for_selector("#page-design .empty:has-text('sonant pull')")
        assert page.is_hidden("#design")
    finally:
        server.stop()


def test_two_that_differ_are_compared_blind_and_told_after_the_choice(open_page):
    page = open_page("compare")
    voices = [page.input_value(f"[data-side={side}] select >> nth=0") for side in "AB"]
    assert voices[0] != voices[1], "a comparison of a voice with itself tells nothing"
    page.fill("#compare-text", "Which of the two is better?")
    page.click("#compare")
    page.wait_for_selector("#compare-result", state="visible")
    assert page.locator("#compare-result h3").all_inner_texts() == ["First", "Second"]
    assert page.inner_text("#compare-result .figures >> nth=0") == ""
    page.click("#compare-result .pick >> nth=0")
    named = page.locator("#compare-result h3").all_inner_texts()
    assert sorted(name[0] for name in named) == ["A", "B"]
    assert "faster than speech" in page.inner_text("#compare-result .figures >> nth=0")
    assert f"You chose {named[0][0]}" in page.inner_text(".outcome")
    page.click("#compare")
    page.wait_for_selector("#same:not([disabled])")
    page.click("#same")
    page.fill("[data-side=B] [inputmode=numeric]", str(2**53 + 1))
    page.click("#compare")
    assert "Seed has to be a whole number" in page.inner_text("#page-compare .problem")
    page.reload()
    page.wait_for_selector("#page-compare[data-ready=true]")
    assert "no difference 1" in page.inner_text("#score")


def test_the_server_page_loads_models_and_lists_requests(open_page):
    page = open_page()
    speak(page, "Something for the list.")
    page.click("nav a[href='#server']")
    page.wait_for_selector("#requests tbody tr:has-text('heart')")
    assert "English · has voices of its own" in page.inner_text("#models")
    assert "checkpoint" not in page.inner_text("#models"), "no jargon before Details"
    assert "No key is needed" in page.inner_text("#page-server")
    states = ["Load Designer", "Unload Designer"]
    if page.get_attribute("#models [data-model=designer]", "aria-label") == states[1]:
        states.reverse()
    for now, then in (states, states[::-1]):
        page.click(f"#models button[aria-label='{now}']")
        page.wait_for_selector(f"#models button[aria-label='{then}']:not([disabled])")


def test_a_book_is_read_and_what_is_downloaded_says_its_words(open_page, recogniser, tmp_path):
    path = tmp_path / "door.md"
    path.write_text(BOOK)
    page = open_page("books")
    page.set_input_files("#page-books .drop input", path)
    page.wait_for_selector("#chapters li")
    assert "The Door" in page.inner_text(".book-head")
    names = page.locator("#chapters .name").all_inner_texts()
    assert names[-2:] == ["One", "Two"]
    for box in page.locator("#chapters li:not(:has-text('Two')) input").all():
        box.set_checked(False)
    page.select_option("form.book select >> nth=1", "mp3")
    page.click("#read-book")
    page.wait_for_selector("#readings li[data-status=completed]", timeout=90_000)
    assert page.get_attribute("#readings audio", "controls") is not None
    with page.expect_download() as taken:
        page.click("#readings button:has-text('.mp3')")
    sound = Path(taken.value.path())
    samples, rate = read_audio(sound)
    assert 2 < len(samples) / rate < 10
    heard = hear(recogniser, sound)
    assert heard[-len(words("and the house was quiet again")) :] == words("and the house was quiet again")
    page.click("#readings button:has-text('Remove')")
    page.click("dialog .danger")
    page.wait_for_selector("#readings li", state="detached")
    page.click("#shelf [aria-label^='Remove']")
    page.click("dialog .danger")
    page.wait_for_selector("#shelf li", state="detached")


READING = {
    "id": "reading-1", "title": "The Door", "status": "completed", "error": None, "failed": 0, "failures": [],
    "progress": {"share": 1.0, "seconds": 3.0, "seconds_left": None, "line": ""},
    "files": [{"name": "door.wav", "media_type": "audio/wav", "bytes": 100_000,
               "url": "/v1/audio/readings/reading-1/files/door.wav"}],
}  # fmt: skip
WITH_KEY = """
sessionStorage.setItem("sonant-key", "any");
window.addresses = new Set();
const create = URL.createObjectURL, revoke = URL.revokeObjectURL;
URL.createObjectURL = (blob) => { const made = create(blob); addresses.add(made); return made; };
URL.revokeObjectURL = (address) => { revoke(address); addresses.delete(address); };"""


def test_with_a_key_an_audiobook_is_fetched_when_it_is_played_and_let_go(open_page, spoken):
    readings, fetched = [READING], []

    def sound(route):
        fetched.append(route.request.url)
        route.fulfill(body=spoken.read_bytes(), content_type="audio/wav")

    def setup(page):
        page.add_init_script(WITH_KEY)
        page.route("**/v1/audio/readings", lambda route: route.fulfill(json={"data": readings}))
        page.route("**/v1/audio/readings/reading-1/files/door.wav", sound)
        page.route("**/v1/audio/readings/reading-1", lambda route: (readings.clear(), route.fulfill(json={})))

    page = open_page("books", setup=setup)
    page.wait_for_selector("#readings li[data-status=completed]")
    page.wait_for_timeout(200)
    assert fetched == []
    page.click("#readings button:has-text('Play')")
    until(page, "document.querySelector('#readings audio')?.currentTime > 0")
    assert len(fetched) == page.evaluate("addresses.size") == 1
    page.click("#readings button:has-text('Remove')")
    page.click("dialog .danger")
    page.wait_for_selector("#readings li", state="detached")
    assert page.evaluate("addresses.size") == 0


def test_a_script_longer_than_a_form_field_may_be_is_taken(open_page):
    page = open_page("cast")
    page.fill("#script", SCRIPT + "\n" + "It was a quiet evening by the river. " * 30_000)
    page.click("#take-script")
    page.wait_for_selector("[data-role=Ann], #page-cast .problem:not([hidden])")
    assert page.is_hidden("#page-cast section .problem")


def test_a_script_is_cast_heard_and_recorded(open_page, recogniser):
    page = open_page("cast")
    sent = speech_requests(page)
    page.fill("#script", SCRIPT)
    page.fill("label:has-text('Name of the script') + input", "Wind")
    page.click("#take-script")
    page.wait_for_selector("[data-role=Ann]")
    assert page.locator("#roles > li strong").all_inner_texts()[:3] == ["Narrator", "Ann", "Tom"]
    page.select_option("[data-role=Ann] select", "preset:grace")
    page.click("[data-role=Ann] .sample")
    page.wait_for_selector("[data-role=Ann] .sample:not(.busy)")
    assert sent[0].post_data_json["voice"] == "grace"
    page.click("summary:has-text('Who says what')")
    page.wait_for_selector("#lines li:has-text('Only the wind')")
    assert page.inner_text("#lines li:has-text('Only the wind') .who") == "Tom"
    page.select_option("#page-cast form:has(#record-cast) select", "wav")
    with page.expect_request("**/v1/audio/readings") as asked:
        page.click("#record-cast")
    assert asked.value.post_data_json["cast"]["roles"]["Ann"]["voice"] == "grace"
    page.wait_for_selector("#readings li[data-status=completed]", timeout=90_000)
    with page.expect_download() as taken:
        page.click("#readings button:has-text('.wav')")
    heard = hear(recogniser, Path(taken.value.path()))
    assert heard[-4:] == words("it is closed now")


def test_a_server_without_books_says_so(open_page):
    def setup(page):
        page.route("**/v1/audio/books", lambda route: route.fulfill(status=404, json={"error": {}}))

    for name in ("books", "cast"):
        page = open_page(name, setup=setup)
        page.wait_for_selector(f"#page-{name} .notice:has-text('cannot read books')")
        assert page.locator(f"#page-{name} form:visible").count() == 0
