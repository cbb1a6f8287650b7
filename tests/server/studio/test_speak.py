"""The Speak page: what it says is heard, nothing is lost, and every fault of its older self stays mended."""

import base64
import re
from pathlib import Path

import pytest

from sonant.audio.io import read_audio
from sonant.server.auth import keys_of
from sonant.server.settings import ServerSettings
from tests.server.studio.conftest import hear, serve, speak, speech_requests, words

pytestmark = pytest.mark.slow

TEXT = "It costs $23.50 today. Please bring the small blue book to the library."
READ = "It costs twenty-three dollars and fifty cents today."


def colours(page, selector):
    """How many different colours a canvas shows."""
    return page.eval_on_selector(
        selector,
        """canvas => { const brush = canvas.getContext("2d");
        const data = brush.getImageData(0, 0, canvas.width, canvas.height).data;
        const seen = new Set();
        for (let i = 0; i < data.length; i += 4) seen.add(data[i] * 65536 + data[i + 1] * 256 + data[i + 2]);
        return seen.size; }""",
    )


def download(page, form):
    page.select_option(".deliver select", form)
    with page.expect_download() as taken:
        page.click("#download")
    return Path(taken.value.path())


def test_a_text_is_shown_as_read_and_its_words_light_up_while_they_are_said(open_page):
    page = open_page()
    page.fill("#text", TEXT)
    page.wait_for_selector(".reading mark")
    assert page.inner_text(".reading p").startswith(READ)
    assert page.get_attribute(".reading mark", "title") == "$23.50"
    page.click("#speak")
    page.wait_for_selector(".words span.said")
    assert "Stop" in page.inner_text("#speak"), "it can be stopped while sound plays"
    page.wait_for_selector("#takes li")
    assert "Stop" in page.inner_text("#speak"), "also when all is made and still plays"
    assert page.inner_text(".words").startswith(READ)
    page.click("#speak")
    page.wait_for_selector("#speak:has-text('Speak')")
    page.click(".words span:has-text('library')")
    page.wait_for_selector(".words span.said:has-text('library')")
    assert colours(page, ".result .wave") > 2
    page.click(".result details summary")
    assert colours(page, ".spectrogram") > 20
    figures = page.inner_text(".result .figures")
    assert "faster than speech" in figures
    assert re.search(r"Seed\s+\d+", figures)


def test_what_is_downloaded_says_the_text_and_nothing_is_spoken_twice(open_page, recogniser):
    page = open_page()
    sent = speech_requests(page)
    speak(page, "The weather is cold, but the sky is clear. After dinner, they played cards until midnight.")
    spoken = words(page.input_value("#text"))
    assert len(sent) == 1
    wav = download(page, "wav")
    assert wav.read_bytes()[:4] == b"RIFF"
    assert hear(recogniser, wav) == spoken
    length = len(read_audio(wav)[0]) / 24_000
    for form, head in (
        ("mp3", (b"ID3", b"\xff\xfb", b"\xff\xf3")),
        ("flac", (b"fLaC",)),
        ("opus", (b"OggS",)),
    ):
        packed = download(page, form)
        assert packed.read_bytes().startswith(head), form
        samples, rate = read_audio(packed.read_bytes())
        assert len(samples) / rate == pytest.approx(length, abs=0.15), form
    assert hear(recogniser, download(page, "mp3")) == spoken
    subtitles = download(page, "srt").read_text()
    assert subtitles.startswith("1\n00:00:00,")
    assert "the sky is clear." in subtitles
    assert len(sent) == 1


def test_without_a_loudspeaker_what_is_spoken_is_kept(open_page):
    """As in Firefox on a machine without a sound device: the context is asked to wake and never does."""
    never = "AudioContext.prototype.resume = () => new Promise(() => {});"
    asleep = "Object.defineProperty(AudioContext.prototype, 'state', { get: () => 'suspended' });"
    page = open_page(setup=lambda page: page.add_init_script(never + asleep))
    page.fill("#text", "This is kept.")
    page.click("#speak")
    page.wait_for_selector("#takes li")


def test_a_number_out_of_range_in_a_closed_panel_is_shown_and_told(open_page):
    page = open_page()
    sent = speech_requests(page)
    page.click("summary:has-text('More settings')")
    page.fill("[data-setting=seed]", "1.5")
    page.click("summary:has-text('More settings')")
    assert page.is_hidden("[data-setting=seed]")
    page.click("#speak")
    page.wait_for_selector("[data-setting=seed]", state="visible")
    assert "Seed has to be a whole number" in page.inner_text("#page-speak form .problem")
    assert page.evaluate("document.activeElement.dataset.setting") == "seed"
    page.fill("[data-setting=seed]", str(2**53 + 1))
    page.click("#speak")
    assert "Seed has to be a whole number" in page.inner_text("#page-speak form .problem")
    assert sent == [], "a seed that the browser would round"
    page.fill("[data-setting=seed]", "5")
    page.click("#speak")
    page.wait_for_selector("#takes li")
    assert sent[0].post_data_json["seed"] == 5


def test_text_settings_and_history_are_there_after_a_reload(open_page):
    page = open_page()
    page.click("[data-voice=grace]")
    page.click("summary:has-text('More settings')")
    page.fill("[data-setting=temperature]", "0.5")
    speak(page, "This is kept.")
    page.fill("#text", "And this is still being written")
    page.wait_for_timeout(400)
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    assert page.input_value("#text") == "And this is still being written"
    assert page.get_attribute("[data-voice=grace]", "aria-pressed") == "true"
    assert page.input_value("[data-setting=temperature]") == "0.5"
    page.wait_for_selector("#takes li")
    assert "This is kept." in page.inner_text("#takes")
    kept = page.evaluate("async () => (await import('/static/core/store.js')).listTakes()")
    assert "body" not in kept[0], "the form has it already"
    page.click("#takes [aria-label^='Play again']")
    page.wait_for_selector(".words span.said")
    page.click("#takes [aria-label^='Remove']")
    page.wait_for_selector("#takes li", state="detached")


def test_what_is_kept_is_bounded(open_page):
    page = open_page()
    kept = page.evaluate(
        """async () => { const store = await import("/static/core/store.js");
        const take = (bytes) => store.keepTake({ pcm: new ArrayBuffer(bytes), form: { text: "" } });
        let takes; for (let n = 0; n < store.MOST_TAKES + 3; n++) takes = await take(10);
        const counted = takes.length;
        for (let n = 0; n < 3; n++) takes = await take(store.MOST_BYTES * 0.4);
        const listed = await store.listTakes();
        const isSmall = store.bytesOf(takes) <= store.MOST_BYTES;
        return [counted, store.MOST_TAKES, isSmall, listed.length === takes.length]; }"""
    )
    assert kept[0] == kept[1]
    assert kept[2:] == [True, True]


def test_a_recording_kept_twice_by_earlier_versions_counts_twice(open_page):
    page = open_page()
    counted = page.evaluate(
        """async () => { const store = await import("/static/core/store.js");
        const clip = "x".repeat(1000), take = { pcm: new ArrayBuffer(10), form: { clip } };
        return [take, { ...take, body: { emotion_audio: clip } }].map((one) => store.bytesOf([one])); }"""
    )
    assert 1010 <= counted[0] < 1100
    assert 2010 <= counted[1] < 2200


def test_kept_moments_of_voices_are_bounded(open_page):
    page = open_page()
    kept = page.evaluate(
        """async () => { const store = await import("/static/core/store.js");
        const blob = () => new Blob([new Uint8Array(store.MOST_SAMPLE_BYTES * 0.4)]), kept = [];
        const list = async () => {
          const found = [];
          for (const name of ["first", "bare", "second", "third"])
            if (await store.keptSample(name)) found.push(name);
          kept.push(found);
        };
        await store.keepSample("first", blob());
        const asked = indexedDB.open("sonant", 1);
        await new Promise((done) => { asked.onsuccess = done; });
        const going = asked.result.transaction("samples", "readwrite");
        going.objectStore("samples").put(blob(), "bare");
        await new Promise((done) => { going.oncomplete = done; });
        await list();
        for (const name of ["second", "third"]) {
          await new Promise((done) => setTimeout(done, 5));
          await store.keepSample(name, blob());
          await list();
        }
        const isBlob = await store.keptSample("third") instanceof Blob;
        return [kept, isBlob]; }"""
    )
    assert kept == [[["first", "bare"], ["first", "second"], ["second", "third"]], True]


def test_a_first_look_that_fails_is_tried_again(open_page):
    page = open_page(setup=lambda page: page.route("**/v1/models", lambda route: route.abort(), times=1))
    assert page.is_hidden("main > .problem")
    page.click("nav a[href='#compare']")
    page.wait_for_selector("#page-compare[data-ready=true]")


def test_a_page_that_did_not_come_comes_when_asked_again(open_page):
    page = open_page()
    page.route("**/pages/compare.js*", lambda route: route.abort(), times=1)
    page.click("nav a[href='#compare']")
    page.wait_for_selector("main > .problem:not([hidden])")
    page.click("nav a[href='#speak']")
    page.click("nav a[href='#compare']")
    page.wait_for_selector("#page-compare[data-ready=true]")
    assert page.is_hidden("main > .problem")
    assert page.locator("#page-compare").count() == 1


def test_change_and_say_again_brings_back_everything(open_page, spoken):
    page = open_page()
    sent = speech_requests(page)
    page.click("[data-voice=otto]")
    page.select_option("label:has-text('Language of the text') + select", "german")
    page.fill("label:has-text('How to say it') + textarea", "cheerful")
    page.check("input[value=mood]")
    page.fill("[data-emotion=happy]", "0.5")
    page.fill("#speed", "0.5")
    page.click("summary:has-text('More settings')")
    page.fill("[data-setting=temperature]", "0.7")
    page.fill("[data-setting=glossary]", "Nguyen = win")
    speak(page, "Everything comes back.")
    page.click("[data-voice=heart]")
    page.fill("#text", "Something else.")
    page.fill("#speed", "0")
    page.click("#takes [aria-label^='Change']")
    page.click("#speak")
    page.wait_for_selector("#takes li:nth-child(2)")
    first, again = (one.post_data_json for one in sent)
    assert first["emotion_vector"] == {"happy": 0.5}
    assert first["instructions"] == "cheerful"
    assert again.pop("seed") >= 0
    assert again == first


def test_one_emotion_at_a_time(open_page, spoken):
    page = open_page()
    sent = speech_requests(page)
    assert page.is_hidden("fieldset.emotion"), "the built-in voice takes none"
    page.click("[data-voice=grace]")
    page.check("input[value=mood]")
    page.fill("[data-emotion=sad]", "1")
    page.check("input[value=words]")
    page.fill("label:has-text('The emotion in words') + input", "I am so glad!")
    page.check("input[value=clip]")
    page.set_input_files("fieldset.emotion input[type=file]", spoken)
    page.wait_for_selector("fieldset.emotion:has-text('speech.wav is used')")
    page.fill("#emotion-strength", "0.5")
    assert page.locator("fieldset.emotion input[type=range]:visible").count() == 1
    speak(page, "Hello.")
    body = sent[0].post_data_json
    assert {name for name in body if name.startswith("emotion")} == {"emotion_audio", "emotion_strength"}
    assert base64.b64decode(body["emotion_audio"]) == spoken.read_bytes()
    page.check("input[value=none]")
    page.click("#speak")
    page.wait_for_selector("#takes li:nth-child(2)")
    assert not [name for name in sent[1].post_data_json if name.startswith("emotion")]


def test_the_gallery_shows_each_voice_once_and_lets_it_be_heard_and_liked(open_page):
    page = open_page()
    sent = speech_requests(page)
    names = page.locator(".voices [data-voice]").evaluate_all("all => all.map(one => one.dataset.voice)")
    assert sorted(names) == ["designer", "grace", "heart", "lucie", "otto"]
    assert "default" not in page.inner_text(".gallery").lower()
    assert page.inner_text("[data-voice=otto]").split("\n") == ["Otto", "German"]
    page.click("[aria-label='Hear Heart']")
    page.wait_for_selector("[aria-label='Hear Heart'].on:not(.busy)")
    page.click("[aria-label='Hear Heart']")
    page.wait_for_selector("[aria-label='Hear Heart']:not(.on)")
    page.click("[aria-label='Hear Heart']")
    page.wait_for_selector("[aria-label='Hear Heart'].on:not(.busy)")
    assert len(sent) == 1, "the second time the browser has it"
    page.click("[aria-label='Favourite: Lucie']")
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    assert page.locator(".voices [data-voice]").first.get_attribute("data-voice") == "lucie"
    page.select_option(".gallery select", "de")
    assert page.locator(".voices [data-voice]").evaluate_all("all => all.map(one => one.dataset.voice)") == [
        "otto"
    ]


def test_two_voices_of_one_name_are_told_apart_by_their_models(open_page):
    def setup(page):
        def more(route):
            listed = route.fetch().json()
            listed["voices"].append({"id": "af_heart", "kind": "preset", "models": ["stage"]})
            route.fulfill(json=listed)

        page.route("**/v1/audio/voices?model=all", more)

    page = open_page(setup=setup)
    assert page.inner_text("[data-voice=heart]").endswith("Builtin")
    assert page.inner_text("[data-voice=af_heart]").endswith("Stage")
    assert page.inner_text("[data-voice=grace]").split("\n") == ["Grace", "English"]


def test_everything_works_from_the_keyboard(open_page):
    page = open_page()
    page.fill("#text", " ".join(f"This is sentence number {n} of a long story." for n in range(120)))
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#speak:has-text('Stop')")
    page.wait_for_selector(".words span.said")
    page.keyboard.press("Escape")
    page.wait_for_selector("#speak:has-text('Speak')")
    page.wait_for_selector("#takes li:has-text('stopped'), #takes li")
    page.focus(".result .wave")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert float(page.get_attribute(".result .wave", "aria-valuenow")) == pytest.approx(1, abs=0.05)
    page.keyboard.press("Space")
    page.wait_for_selector(".result .round[aria-label^='Pause']")
    page.keyboard.press("Space")
    page.focus("[data-voice=grace]")
    page.keyboard.press("Enter")
    assert page.get_attribute("[data-voice=grace]", "aria-pressed") == "true"
    assert page.evaluate("document.activeElement.dataset.voice") == "grace", "focus stays where it was"


def test_a_described_voice_needs_its_description(open_page):
    page = open_page()
    sent = speech_requests(page)
    page.click("[data-voice=designer]")
    page.click("#speak")
    page.wait_for_selector("#page-speak form .problem:has-text('Describe the voice')")
    assert sent == []
    page.fill("label:has-text('Describe the voice') + textarea", "a calm old man")
    speak(page, "Hello.")
    assert sent[0].post_data_json["instructions"] == "a calm old man"
    assert "voice" not in sent[0].post_data_json


def test_what_the_server_refuses_is_told_beside_the_button(open_page):
    page = open_page()
    page.click("[data-voice=designer]")
    page.fill("label:has-text('Describe the voice') + textarea", "a calm old man")
    page.fill("#text", "[Worcester](/wʊstɚ/) takes no phonemes here.")
    page.click("#speak")
    page.wait_for_selector("#page-speak form .problem:has-text('takes no phonemes')")
    assert "Speak" in page.inner_text("#speak")
    assert page.is_hidden(".result")


def test_a_server_with_keys_asks_for_one(open_page, tmp_path):
    server = serve(tmp_path / "voices", settings=ServerSettings(keys=keys_of(["sk-test"])))
    try:
        page = with_key(open_page, server.url)
        speak(page, "Now it speaks.")
        page.click("nav a[href='#server']")
        page.wait_for_selector("#page-server:has-text('Your key may: manage the server, speak, add voices.')")
    finally:
        server.stop()


def with_key(open_page, url):
    def setup(page):
        page.goto(url)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "sk-test")
        page.click("#key-dialog .primary")

    return open_page(url=url, setup=setup)
