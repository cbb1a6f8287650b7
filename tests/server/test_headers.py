"""The headers of an answer are those of the table, and the table is in the documents."""

import re
from pathlib import Path

import httpx

from sonant.server.headers import HEADERS
from sonant.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]
OF_REQUESTS = {"X-Api-Key", "X-Forwarded-For"}
OF_PROXIES = {"X-Accel-Buffering", "X-Content-Type-Options"}


def test_every_header_is_told_in_one_document():
    told = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    for name, meaning in HEADERS.items():
        assert f"| `{name}` | {meaning} |" in told


def test_the_server_has_no_header_that_is_not_in_the_table():
    for file in (ROOT / "src" / "sonant" / "server").glob("*.py"):
        named = set(re.findall(r"[\"'](X-[A-Za-z-]+)[\"']", file.read_text(encoding="utf-8")))
        assert named <= {*HEADERS, *OF_REQUESTS, *OF_PROXIES}, file.name


def test_a_page_of_an_allowed_origin_may_read_them(start):
    server = start(settings=ServerSettings(cors_origins=("https://a.example",)))
    answer = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://a.example"})
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == set(HEADERS)
