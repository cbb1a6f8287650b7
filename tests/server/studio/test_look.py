"""How the studio looks: as approved, at desk and in hand, light and dark; axe-core is content; six languages.

SONANT_APPROVE=1 writes the approved pictures anew; look at each of them before you commit it.
"""

import base64
import json
import os
import re
import time
from pathlib import Path

import httpx
import pytest

from tests.server.studio.conftest import serve
from tests.server.studio.test_pages import BOOK, SCRIPT

ROOT = Path(__file__).parents[3]
STATIC = ROOT / "src" / "sonant" / "server" / "static"
APPROVED = ROOT / "docs" / "images" / "studio"
TICKET = "The ticket costs $23.50, and Dr. Bell arrives on 5 May. Will you meet her at the station?"
PAGES = ("speak", "clone", "design", "cast", "books", "compare", "server")
LANGUAGES = ("en", "de", "fr", "es", "ja", "zh")
MOST_CHANGED, MOST_APART = 0.02, 0.01
"""Share of the blocks of 10 x 10 points that may look different, and how different all may be on average."""


def test_every_language_has_the_same_words_and_the_pages_use_no_others():
    words = {code: json.loads((STATIC / "i18n" / f"{code}.json").read_text("utf-8")) for code in LANGUAGES}
    places = re.compile(r"\{\w+\}")
    for code, found in words.items():
        assert list(found) == list(words["en"]), code
        for key, text in found.items():
            assert sorted(places.findall(text)) == sorted(places.findall(words["en"][key])), (code, key)
            assert text.strip(), (code, key)
    source = "".join(path.read_text("utf-8") for path in STATIC.rglob("*.js"))
    used = set(re.findall(r"""\bt\(\s*["']([\w. ]+)["']""", source))
    assert len(used) > 150
    assert used <= set(words["en"])
    computed = re.compile(
        r"(set|choice|panel|mood|able|right|books\.status|books\.format|emotion\.way|server\.col|nav|design)\b"
    )
    for key in words["en"]:
        assert key in source or computed.match(key) or key.rpartition(".")[0] + ".$" in source, key


@pytest.fixture(scope="module")
def furnished(tmp_path_factory, spoken):
    """A server with a stored voice, a book, a script that is cast, and a finished reading."""
    server = serve(tmp_path_factory.mktemp("voices"))
    with httpx.Client(base_url=server.url, timeout=60) as client:
        data = {"name": "ann", "consent": "made up", "language": "en"}
        client.post(
            "/v1/audio/voices", data=data, files={"audio_sample": ("a.wav", spoken.read_bytes())}
        ).raise_for_status()
        book = client.post("/v1/audio/books", files={"file": ("door.md", BOOK.encode())}).json()
        client.post("/v1/audio/books", data={"text": SCRIPT, "name": "Wind.txt"}).raise_for_status()
        asked = {"book": book["id"], "format": "m4b", "voice": "heart"}
        reading = client.post("/v1/audio/readings", json=asked).json()["id"]
        while (found := client.get(f"/v1/audio/readings/{reading}").json())["status"] != "completed":
            assert found["status"] in ("queued", "running"), found
            time.sleep(0.2)
    yield server
    server.stop()


def model_state(name, running, size):
    """A row of `/v1/status`."""
    slots, most = (4, 64) if size else (0, 0)
    counts = {"running": running, "waiting": 0, "slots": slots, "queue_limit": most}
    return {"id": name, "state": "loaded" if size else "unloaded", "bytes": size, **counts}


def request_state(number, model, voice, outcome):
    """A finished request in `/v1/status`."""
    told = {"model": model, "voice": voice, "outcome": outcome, "first_audio": 0.2 + number / 9}
    return {"started_at": 1_790_000_000 - 60 * number, "audio_seconds": 3.0 + number, **told}


STATUS = {
    "ready": True,
    "problem": "",
    "version": "1.0",
    "resident_bytes": 1_400_000_000,
    "memory_limit": 6_000_000_000,
    "key": {"is_asked": True, "rights": ["admin", "speak", "voices"]},
    "can_transcribe": True,
    "models": [
        model_state("builtin", 1, 314_572_800),
        model_state("stage", 0, 2_147_483_648),
        model_state("designer", 0, 0),
    ],
    "running": [],
    "recent": [
        request_state(0, "builtin", "heart", "ok"),
        request_state(1, "stage", "grace", "ok"),
        request_state(2, "stage", "ann", "client_gone"),
    ],
}


def furnish(page, name, spoken):
    """Bring a page into the state in which it is looked at."""
    if name == "speak":
        page.fill("#text", TICKET)
        page.wait_for_selector(".reading mark")
        page.click("[aria-label='Favourite: Grace']")
        page.click("#speak")
        page.wait_for_selector("#takes li")
        page.keyboard.press("Escape")
        page.focus(".result .wave")
        page.keyboard.press("Home")
        for _ in range(2):
            page.keyboard.press("ArrowRight")
    elif name == "clone":
        page.set_input_files("#page-clone .drop input", spoken)
        page.wait_for_selector(".verdict.good, .verdict.fair")
    elif name == "design":
        page.click(".chip >> nth=0")
        page.click("#design")
        page.wait_for_selector("#design-takes .take:nth-child(3) .pick:not([disabled])")
        page.click("#design-takes .take:nth-child(2) .pick")
    elif name == "cast":
        page.select_option("label:has-text('script or book that is here') + select", label="Wind")
        page.wait_for_selector("[data-role=Ann]")
        page.select_option("[data-role=Ann] select", "preset:grace")
        page.click("summary:has-text('Who says what')")
        page.wait_for_selector("#lines li:has-text('Only the wind')")
    elif name == "books":
        page.click("#shelf .choose:has-text('The Door')")
        page.wait_for_selector("#chapters li")
    elif name == "compare":
        page.click("#compare")
        page.wait_for_selector("#compare-result", state="visible")
        page.click("#compare-result .pick >> nth=0")
    for pause in page.locator(".sound [aria-label^='Pause']:visible").all():
        pause.click()
    for wave in page.locator(".sound .wave:visible").all() if name in ("design", "compare") else []:
        wave.focus()
        page.keyboard.press("Home")
    page.evaluate("() => document.activeElement?.blur()")
    page.wait_for_timeout(250)


def asked_by_look(page):
    page.route("**/v1/status", lambda route: route.fulfill(json=STATUS))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_each_page_is_clean_to_axe_fits_and_looks_as_approved(
    open_page, furnished, browser, spoken, width, scheme
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    is_new = os.environ.get("SONANT_APPROVE") == "1"
    for name in PAGES:
        page = open_page(name, url=furnished.url, width=width, height=900, scheme=scheme, setup=asked_by_look)
        furnish(page, name, spoken)
        found = axe.run(page).response["violations"]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
        assert told == [], (name, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        page.evaluate("scrollTo(0, 0)")
        picture = page.screenshot(type="jpeg", quality=62)
        path = APPROVED / f"{name}-{'desk' if width > 600 else 'hand'}-{scheme}.jpg"
        if is_new:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        elif has_fonts_of_approval(page):
            changed, apart = difference(browser, path.read_bytes(), picture)
            assert changed < MOST_CHANGED, (path.name, changed, apart)
            assert apart < MOST_APART, (path.name, changed, apart)
        page.context.close()


@pytest.mark.slow
def test_the_comparison_overlooks_a_line_and_sees_a_missing_part(open_page, browser, furnished):
    page = open_page("compare", url=furnished.url, setup=asked_by_look)
    whole = page.screenshot(type="jpeg", quality=62)
    page.evaluate("() => { document.querySelector('#score').textContent = 'So far: A 3, B 1'; }")
    changed, apart = difference(browser, whole, page.screenshot(type="jpeg", quality=62))
    assert changed < MOST_CHANGED
    assert apart < MOST_APART
    page.evaluate("() => document.querySelector('#page-compare .two').remove()")
    changed, _ = difference(browser, whole, page.screenshot(type="jpeg", quality=62))
    assert changed > MOST_CHANGED


def has_fonts_of_approval(page):
    """The pictures were taken with DejaVu Sans as the system's font; other fonts break lines elsewhere."""
    width = page.evaluate(
        """() => { const brush = document.createElement("canvas").getContext("2d");
        brush.font = "100px system-ui"; return brush.measureText("Hamburgefonstiv").width; }"""
    )
    return abs(width - 852) < 3


def difference(browser, one, other):
    """Share of blocks of 10 x 10 points that differ by more than a tenth, and the mean difference of all."""
    page = browser.new_page()
    urls = [f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" for data in (one, other)]
    found = page.evaluate(
        """async (urls) => {
        const shrunk = await Promise.all(urls.map(async (url) => {
          const image = new Image(); image.src = url; await image.decode();
          const canvas = document.createElement("canvas");
          canvas.width = Math.round(image.width / 10); canvas.height = Math.round(image.height / 10);
          const brush = canvas.getContext("2d"); brush.imageSmoothingQuality = "high";
          brush.drawImage(image, 0, 0, canvas.width, canvas.height);
          return brush.getImageData(0, 0, canvas.width, canvas.height); }));
        const [a, b] = shrunk;
        if (a.width !== b.width || a.height !== b.height) return [1, 1];
        let changed = 0, sum = 0; const blocks = a.data.length / 4;
        for (let i = 0; i < a.data.length; i += 4) {
          const parts = [0, 1, 2].map((k) => Math.abs(a.data[i + k] - b.data[i + k]));
          const apart = Math.max(...parts);
          sum += apart / 255; if (apart > 25) changed++; }
        return [changed / blocks, sum / blocks]; }""",
        urls,
    )
    page.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("code", LANGUAGES[1:])
def test_the_pages_speak_the_language_of_the_browser(open_page, furnished, code):
    words = json.loads((STATIC / "i18n" / f"{code}.json").read_text("utf-8"))
    page = open_page("speak", url=furnished.url, width=390, locale=code)
    assert page.get_attribute("html", "lang") == code
    for name in PAGES:
        page.click(f"nav a[href='#{name}']")
        page.wait_for_selector(f"#page-{name}[data-ready=true]", state="attached")
        page.wait_for_timeout(150)
        assert page.inner_text(f"nav a[href='#{name}']") == words[f"nav.{name}"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        shown = page.inner_text("body")
        assert [key for key in words if "." in key and key in shown] == [], name
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.querySelector('nav').scrollWidth") <= 360, "all in reach of a thumb"
    page.set_viewport_size({"width": 1280, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    with page.expect_navigation():
        page.select_option("#tongue", "en")
    page.wait_for_selector("body[data-ready=true]")
    assert page.get_attribute("html", "lang") == "en", "what is chosen outweighs the browser"


@pytest.mark.slow
def test_every_control_of_every_page_is_reached_by_the_tab_key(open_page, furnished):
    for name in PAGES:
        page = open_page(name, url=furnished.url)
        page.wait_for_timeout(300)
        wanted = page.evaluate(CONTROLS, name)
        page.evaluate("() => { window.seen = new Set(); }")
        for _ in range(wanted + 12):
            page.keyboard.press("Tab")
            reached = page.evaluate(REACHED)
        assert reached >= wanted, (name, reached, wanted)
        page.context.close()


CONTROLS = """(name) => { const kinds = ":is(a, button, input, select, textarea, [tabindex], summary)";
  const all = [...document.querySelectorAll(`header ${kinds}, #page-${name} ${kinds}`)];
  return all.filter((one) => one.checkVisibility() && !one.disabled).length; }"""
REACHED = """() => { if (document.activeElement !== document.body) seen.add(document.activeElement);
  return seen.size; }"""
