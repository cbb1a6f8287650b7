"""A server under everything at once: short streams, books, idle sockets and a slow reader, byte for byte.

    python benchmarks/server_soak.py --minutes 5 --keep out/soak.json

Starts `sonant serve` on the built-in voice with two keys and talks to it over loopback alone. First every
short text, and the beginning of every book, is asked for on the idle server. Then, for so many minutes,
`streams` clients of one key ask for short texts again and again, `books` readers with the other key take
long ones, `idle` WebSockets say nothing, and one client reads a kilobyte a second. Each short answer has
to be the bytes of the idle server's, and so has the beginning of each book and of what the slow one
reads. Printed are how many were, first sound, and memory by thirds of the time; status 1 where anything
was lost, mixed or broken.

With --keep the minutes may be done in parts: a run does what is left, at most `--part` seconds of it, and
what was measured is kept in the file; run it again until it says that nothing is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state")
SHORT, LONG = ({"Authorization": f"Bearer sk-{who}"} for who in ("short", "long"))
PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. "
BEGINNING = 100_000
"""Bytes of a book that are compared."""
STILL_THERE = 120.0
"""Seconds after which an idle socket says that it is one: the server closes it after 300."""


def short_text(number: int) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 9))).capitalize() + "."


def book(who: int) -> dict[str, Any]:
    return {"input": PROSE * 600, "response_format": "mp3", "seed": who}


SLOW = {"input": PROSE * 300, "response_format": "wav", "seed": 99}


class Load:
    """The clients of one run, and what they met."""

    def __init__(self, url: str, texts: int) -> None:
        self.url = url
        self.texts = [short_text(number) for number in range(texts)]
        self.expected: list[bytes] = []
        self.beginnings: list[bytes] = []
        self.slow_beginning = b""
        self.idle_first: list[float] = []
        self.first: list[float] = []
        self.memory: list[float] = []
        self.counts: Counter[str] = Counter()
        self.until = 0.0

    async def ask(self, client: httpx.AsyncClient, number: int) -> tuple[bytes, float, int]:
        body = {"input": self.texts[number], "response_format": "pcm", "seed": number}
        began = time.monotonic()
        first, data = 0.0, b""
        async with client.stream("POST", f"{self.url}/v1/audio/speech", json=body) as answer:
            async for piece in answer.aiter_bytes():
                first = first or time.monotonic() - began
                data += piece
            return data, first, answer.status_code

    async def alone(self, books: int) -> None:
        """What the idle server answers."""
        async with httpx.AsyncClient(timeout=300, headers=SHORT) as client:
            for number in range(len(self.texts)):
                data, first, status = await self.ask(client, number)
                assert status == 200
                self.expected.append(data)
                self.idle_first.append(first)
            for who in range(books):
                self.beginnings.append(await self._beginning(client, book(who)))
            self.slow_beginning = await self._beginning(client, SLOW)

    async def _beginning(self, client: httpx.AsyncClient, body: dict[str, Any]) -> bytes:
        data = b""
        async with client.stream("POST", f"{self.url}/v1/audio/speech", json=body) as answer:
            assert answer.status_code == 200
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) >= BEGINNING:
                    break
        return data[:BEGINNING]

    async def stream(self, who: int) -> None:
        rng = random.Random(1000 + who)
        async with httpx.AsyncClient(timeout=120, headers=SHORT) as client:
            while time.monotonic() < self.until:
                number = rng.randrange(len(self.texts))
                try:
                    data, first, status = await self.ask(client, number)
                except httpx.HTTPError as error:
                    self.counts[f"broken off: {type(error).__name__}"] += 1
                    continue
                if status != 200:
                    self.counts[f"refused: {status}"] += 1
                    await asyncio.sleep(1)
                    continue
                self.first.append(first)
                self.counts["the same bytes" if data == self.expected[number] else "other bytes"] += 1
                await asyncio.sleep(rng.random() * 2)

    async def read_books(self, who: int) -> None:
        async with httpx.AsyncClient(timeout=None, headers=LONG) as client:
            while time.monotonic() < self.until:
                data = b""
                async with client.stream("POST", f"{self.url}/v1/audio/speech", json=book(who)) as answer:
                    assert answer.status_code == 200
                    async for piece in answer.aiter_bytes():
                        self.counts["bytes of books"] += len(piece)
                        data += piece if len(data) < BEGINNING else b""
                        if time.monotonic() > self.until:
                            break
                same = self.beginnings[who].startswith(data[:BEGINNING])
                told = "books that began the same" if same else "books that began otherwise"
                self.counts[told if data else "books without a byte"] += 1

    async def idle(self) -> None:
        address = self.url.replace("http", "ws") + "/v1/audio/speech/stream"
        # A hundred open at once, on a machine that is full: the client's own ten seconds may not do.
        async with connect(address, additional_headers=SHORT, ping_interval=None, open_timeout=60) as one:
            try:
                while (left := self.until - time.monotonic()) > 0:
                    await one.send(json.dumps({"type": "flush"}))
                    await asyncio.sleep(min(left, STILL_THERE))
                await asyncio.wait_for(await one.ping(), 60)
                self.counts["idle sockets still open"] += 1
            except (ConnectionClosed, TimeoutError):
                self.counts["idle sockets lost"] += 1

    async def slow(self) -> None:
        body = json.dumps(SLOW).encode()
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: {LONG['Authorization']}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        got = b""
        while time.monotonic() < self.until and not reader.at_eof():
            got += await reader.read(1024)
            await asyncio.sleep(1)
        if reader.at_eof():
            self.counts["slow readers cut off"] += 1
        writer.close()
        status, _, chunks = got.partition(b"\r\n\r\n")
        sound = unchunked(chunks)
        same = status.startswith(b"HTTP/1.1 200") and self.slow_beginning.startswith(sound[:BEGINNING])
        same = same and len(sound) > 0
        self.counts["bytes of the slow reader"] += len(sound)
        self.counts["slow readers with the same bytes" if same else "slow readers with others"] += 1

    async def watch(self, process: psutil.Process) -> None:
        while time.monotonic() < self.until:
            self.memory.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(1)

    async def run(self, process: psutil.Process, arguments: argparse.Namespace, seconds: float) -> None:
        await self.alone(arguments.books)
        self.until = time.monotonic() + seconds
        tasks = [self.stream(number) for number in range(arguments.streams)]
        tasks += [self.read_books(number) for number in range(arguments.books)]
        tasks += [self.idle() for _ in range(arguments.idle)]
        results = await asyncio.gather(*tasks, self.slow(), self.watch(process), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self.counts[f"clients that broke: {result!r}"[:200]] += 1
        async with httpx.AsyncClient(timeout=60, headers=SHORT) as client:
            for _ in range(600):
                if not (await client.get(f"{self.url}/v1/status")).json()["running"]:
                    break
                await asyncio.sleep(0.1)
            else:
                self.counts["still running at the end"] += 1


def unchunked(data: bytes) -> bytes:
    """The bytes of a chunked body as far as it goes."""
    whole = b""
    while (end := data.find(b"\r\n")) > 0:
        size = int(data[:end], 16)
        whole += data[end + 2 : end + 2 + size]
        data = data[end + 2 + size + 2 :]
    return whole


def percentile(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 3) if values else -1.0


GOOD = (
    "the same bytes", "bytes of books", "books that began the same", "idle sockets still open",
    "bytes of the slow reader", "slow readers with the same bytes",
)  # fmt: skip


def report(parts: list[dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part["counts"])
    idle, busy = ([value for part in parts for value in part[kind]] for kind in ("idle_first", "first"))
    thirds = []
    for part in parts:
        memory = part["memory"]
        third = max(1, len(memory) // 3)
        thirds.append([round(statistics.median(memory[at * third :][:third] or memory)) for at in range(3)])
    return {
        "seconds": round(sum(part["seconds"] for part in parts), 1),
        "left, s": round(max(0.0, 60 * arguments.minutes - sum(part["seconds"] for part in parts)), 1),
        "clients": {name: getattr(arguments, name) for name in ("streams", "books", "idle")} | {"slow": 1},
        "counts": dict(counts),
        "first sound idle, s": {"p50": percentile(idle, 0.5), "p95": percentile(idle, 0.95)},
        "first sound busy, s": {"p50": percentile(busy, 0.5), "p95": percentile(busy, 0.95)},
        "memory, MiB, by thirds of each part": thirds,
        "bad": {name: count for name, count in counts.items() if name not in GOOD},
    }


def part_of(seconds: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One part of the soak on a server of its own."""
    command = [sys.executable, "-m", "sonant", "serve", "--model", "builtin", "--port", "0"]
    command += ["--voices", tempfile.mkdtemp(prefix="sonant-soak-"), "--queue-limit", "128"]
    command += ["--max-per-client", "128", "--log-level", "warning"]
    # The first may see everybody's requests, to tell whether any is left at the end.
    environment = {**os.environ, "SONANT_ADMIN_KEYS": "sk-short", "SONANT_API_KEYS": "sk-long"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.1)
        load = Load(url, arguments.texts)
        asyncio.run(load.run(psutil.Process(server.pid), arguments, seconds))
    finally:
        server.terminate()
        server.wait(30)
    kept = {"idle_first": load.idle_first, "first": load.first, "memory": load.memory}
    return {"seconds": seconds, "counts": dict(load.counts), **kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--part", type=float, default=400.0, help="the most seconds of one run")
    parser.add_argument("--keep", type=Path, help="a file that keeps the parts done so far")
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--books", type=int, default=6)
    parser.add_argument("--idle", type=int, default=100)
    parser.add_argument("--texts", type=int, default=40, help="different short texts")
    arguments = parser.parse_args()
    keep: Path | None = arguments.keep
    parts = json.loads(keep.read_text()) if keep is not None and keep.exists() else []
    left = 60 * arguments.minutes - sum(part["seconds"] for part in parts)
    if left > 0.5:
        parts.append(part_of(min(left, arguments.part), arguments))
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            keep.write_text(json.dumps(parts))
    found = report(parts, arguments)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["bad"] else 0)


if __name__ == "__main__":
    main()
