"""A server under everything at once: short streams, books, idle sockets and a slow reader, byte for byte.

    python benchmarks/server_soak.py --minutes 5

Starts `sonant serve` on the built-in voice and talks to it over loopback alone. First every short text is
asked for on the idle server; then, for so many minutes, `streams` clients ask for them again and again,
`books` readers with another key take long texts, `idle` WebSockets say nothing, and one client reads a
kilobyte a second. Each short answer has to be the bytes of the idle server's; printed are how many were,
first audio, and memory.
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
import time

import httpx
import psutil
from websockets.asyncio.client import connect

WORDS = ("time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state")
SHORT, LONG = ({"Authorization": f"Bearer sk-{who}"} for who in ("short", "long"))
PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. "


def short_text(number: int) -> str:
    rng = random.Random(number)
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(2, 9))).capitalize() + "."


class Load:
    def __init__(self, url: str, texts: int) -> None:
        self.url = url
        self.texts = [short_text(number) for number in range(texts)]
        self.expected: list[bytes] = []
        self.first: list[float] = []
        self.same = self.wrong = self.failed = self.book_bytes = 0
        self.statuses: dict[int, int] = {}
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

    async def stream(self, who: int) -> None:
        rng = random.Random(1000 + who)
        async with httpx.AsyncClient(timeout=120, headers=SHORT) as client:
            while time.monotonic() < self.until:
                number = rng.randrange(len(self.texts))
                try:
                    data, first, status = await self.ask(client, number)
                except httpx.HTTPError:
                    self.failed += 1
                    continue
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status != 200:
                    await asyncio.sleep(1)
                    continue
                self.first.append(first)
                self.same += data == self.expected[number]
                self.wrong += data != self.expected[number]
                await asyncio.sleep(rng.random() * 2)

    async def book(self, who: int) -> None:
        async with httpx.AsyncClient(timeout=None, headers=LONG) as client:
            while time.monotonic() < self.until:
                body = {"input": PROSE * 600, "response_format": "mp3", "seed": who}
                async with client.stream("POST", f"{self.url}/v1/audio/speech", json=body) as answer:
                    async for piece in answer.aiter_bytes():
                        self.book_bytes += len(piece)
                        if time.monotonic() > self.until:
                            return

    async def idle(self) -> None:
        async with connect(
            self.url.replace("http", "ws") + "/v1/audio/speech/stream", ping_interval=None
        ) as one:
            await one.send(json.dumps({"type": "start"}))
            await asyncio.sleep(max(0.0, self.until - time.monotonic()))

    async def slow(self) -> None:
        body = json.dumps({"input": PROSE * 300, "response_format": "wav"}).encode()
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: {LONG['Authorization']}\r\n"
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        while time.monotonic() < self.until:
            await reader.read(1024)
            await asyncio.sleep(1)
        writer.close()


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def run(load: Load, process: psutil.Process, arguments: argparse.Namespace) -> None:
    idle: list[float] = []
    async with httpx.AsyncClient(timeout=120, headers=SHORT) as client:
        for number in range(len(load.texts)):
            data, first, status = await load.ask(client, number)
            assert status == 200
            load.expected.append(data)
            idle.append(first)
    print(f"idle: first audio p50 {statistics.median(idle):.3f} s, p95 {percentile(idle, 0.95):.3f} s")
    load.until = time.monotonic() + 60 * arguments.minutes
    memory: list[float] = []

    async def watch() -> None:
        while time.monotonic() < load.until:
            memory.append(process.memory_info().rss / 2**20)
            await asyncio.sleep(2)

    tasks = [load.stream(number) for number in range(arguments.streams)]
    tasks += [load.book(number) for number in range(arguments.books)]
    tasks += [load.idle() for _ in range(arguments.idle)]
    results = await asyncio.gather(*tasks, load.slow(), watch(), return_exceptions=True)
    broken = [result for result in results if isinstance(result, BaseException)]
    third = max(1, len(memory) // 3)
    print(
        f"answers: {load.same} the same bytes, {load.wrong} others, {load.failed} broken off; {load.statuses}"
    )
    print(
        f"busy: first audio p50 {percentile(load.first, 0.5):.3f} s, p95 {percentile(load.first, 0.95):.3f} s"
    )
    print(f"books: {load.book_bytes / 2**20:.1f} MiB of mp3; tasks that broke: {len(broken)} {broken[:2]}")
    parts = (memory[:third], memory[third : 2 * third], memory[2 * third :])
    print(
        "memory, thirds of the run: " + ", ".join(f"{statistics.median(part):.0f}" for part in parts) + " MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=60)
    parser.add_argument("--books", type=int, default=6)
    parser.add_argument("--idle", type=int, default=100)
    arguments = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "sonant",
        "serve",
        "--model",
        "builtin",
        "--port",
        "0",
        "--queue-limit",
        "128",
    ]
    command += ["--max-per-client", "128"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        while httpx.get(f"{url}/ready").status_code != 200:
            time.sleep(0.1)
        asyncio.run(run(Load(url, 40), psutil.Process(server.pid), arguments))
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
