"""The headers of an answer are those of the table, and the table is in one document."""

import re
from pathlib import Path

import httpx
import pytest

from sonant.server.headers import HEADERS
from sonant.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sonant"
TABLE = SOURCE / "server" / "headers.py"
OF_REQUESTS = {"x-api-key", "x-forwarded-for"}
OF_PROXIES = {"x-accel-buffering", "x-content-type-options"}
KNOWN = {name.lower() for name in HEADERS} | OF_REQUESTS | OF_PROXIES
OWN = re.compile(r"(?i)\bx-(?:sonant|sample|request|should|api|forwarded|accel|content)-[a-z-]*[a-z]")


def named(file):
    """Headers of our own and of proxies that a file speaks of, in whatever case."""
    return {name.lower() for name in OWN.findall(file.read_text(encoding="utf-8"))}


def test_the_document_has_the_rows_of_the_table_and_no_others():
    told = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8").split("## Headers of an answer")[1]
    rows = re.findall(r"^\| `([A-Za-z-]+)` \| (.*) \|$", told, flags=re.MULTILINE)
    assert dict(rows) == dict(HEADERS)
    assert len(rows) == len(HEADERS)


def test_every_header_of_the_table_is_sent_by_somebody():
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in (SOURCE / "server").glob("*.py") if file != TABLE
    ).lower()
    for name in HEADERS:
        assert f'"{name.lower()}"' in code, name


@pytest.mark.parametrize("place", ["src/sonant/server", "src/sonant/cli", "docs", "clients", "README.md"])
def test_no_code_page_or_document_speaks_of_a_header_that_is_not_in_the_table(place):
    path = ROOT / place
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.suffix in (".py", ".js", ".md")]
    assert files
    for file in files:
        assert named(file) <= KNOWN, file.name


def test_no_answer_carries_another(start):
    server = start()
    speech = f"{server.url}/v1/audio/speech"
    said = "Hello there."
    answers = [
        httpx.get(f"{server.url}/health"),
        httpx.get(f"{server.url}/v1/models/none"),
        *(httpx.post(speech, json={"input": said, "oddity": 1, **more}) for more in (
            {}, {"stream": False}, {"stream_format": "sse"}, {"voice": "nobody"}, {"deadline": 1e-9},
        )),
    ]  # fmt: skip
    sent = {name for answer in answers for name in answer.headers if name.startswith("x-")}
    assert sent <= KNOWN
    assert {"x-request-id", "x-sonant-seed", "x-sonant-guards", "x-sonant-warning"} <= sent


def test_a_page_of_an_allowed_origin_may_read_them(start):
    server = start(settings=ServerSettings(cors_origins=("https://a.example",)))
    answer = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://a.example"})
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == set(HEADERS)
