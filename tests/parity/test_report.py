import base64
import re
import shutil
import struct
import subprocess
import zlib

import numpy as np
import pytest

from sonant.parity.compare import compare
from sonant.parity.report import report_page, write_report
from tests.parity.toy_stages import TABLE, toy_trace
from tests.toy import ToyModel

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def pair():
    model = ToyModel(end_bias=float("-inf"))
    model.stack.layers[1].mlp.down_proj.weight.data *= 1.01
    reference = toy_trace()
    other = toy_trace(model, forced=reference)
    return compare(reference, other, table=TABLE), reference, other


@pytest.fixture(scope="module")
def page(pair):
    return report_page(*pair, command="sonant parity compare 'a b.safetensors' <other>")


def test_the_page_says_what_the_comparison_says(page, pair):
    assert "First stage out of budget: toy.layer.1.mlp" in page
    for title in ("Single forward", "Teacher-forced decode", "Free decode"):
        assert title in page
    rows = re.findall(r"<tr class=\"([^\"]*)\"[^>]*><td>([^<]+)", page)
    names = {stage.key.split("@")[0] for stage in pair[0].stages}
    assert {name.split("@")[0] for _, name in rows} == names
    first = next(name for kinds, name in rows if "first" in kinds)
    assert first.split("@")[0] == "toy.layer.1.mlp"


def test_the_command_is_escaped_and_can_be_copied(page):
    assert "sonant parity compare &#x27;a b.safetensors&#x27; &lt;other&gt;" in page
    assert 'id="copy"' in page


def test_the_steps_are_drawn_with_the_budget_line(page):
    assert page.count("<circle") == 13  # the prefill and twelve steps
    assert "stroke-dasharray" in page


def test_pictures_are_valid_pngs_of_the_worst_tensor(page):
    pictures = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(pictures) == 3
    for text in pictures:
        data = base64.b64decode(text)
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        length = struct.unpack(">I", data[33:37])[0]
        raw = np.frombuffer(zlib.decompress(data[41 : 41 + length]), dtype=np.uint8)
        assert raw.size == height * (1 + 3 * width)


def test_a_page_of_equal_traces_needs_no_picture():
    trace = toy_trace()
    page = report_page(compare(trace, toy_trace(), table=TABLE), trace, trace, command="x")
    assert "No tensor of equal shape differs." in page
    assert "headline bad" not in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_page(pair, tmp_path):
    path, picture = tmp_path / "report.html", tmp_path / "report.png"
    write_report(path, *pair, command="sonant parity compare a b")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/profile",
    ]
    subprocess.run(
        [CHROMIUM, *options, "--window-size=1280,2400", f"--screenshot={picture}", path.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 30_000
    shown = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", path.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
        text=True,
    ).stdout
    assert "First stage out of budget: toy.layer.1.mlp" in shown
    assert shown.count("<tr class=") == len({stage.key.split("@")[0] for stage in pair[0].stages})
