"""Load on a real server process: many streaming clients at once, some that leave, one that hardly reads.

    python benchmarks/server_load.py --seconds 300 --clients 50 --tiny FOLDER --tiny-clients 8

Every finished answer is compared byte for byte with the same request made alone before. Prints JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import httpx
import psutil

SENTENCES = (
    "Good morning.",
    "The train to the coast leaves at nine, and it will not wait.",
    "Please close the window, it is getting cold in here. And bring the blue cup.",
    "She read the letter twice. Then she put it away. Nobody asked her why.",
)
LONG = " ".join(f"This is sentence number {n} of a story without an end." for n in range(200))


@dataclass
class Tally:
    """What happened."""

    first: dict = field(default_factory=lambda: {"builtin": [], "tiny": []})
    answers: int = 0
    wrong: list = field(default_factory=list)
    refused: int = 0
    left: int = 0
    stopped: list = field(default_factory=list)
    trickled: int = 0
    memory: list = field(default_factory=list)


def start(options):
    """A server process with enough room in its queue, and its address."""
    voices = tempfile.mkdtemp(prefix="sonant-load-")
    command = [sys.executable, "-m", "sonant", "serve", "--port", "0", "--voices", voices, "--preload"]
    command += ["--queue-limit", "200", "--max-per-client", "200", "--slots", str(options.slots)]
    command += ["--log-level", "warning", "--model", "builtin"]
    if options.tiny:
        command += ["--model", f"tiny={options.tiny}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().split()[-1]
    while True:
        try:
            if httpx.get(f"{address}/ready").status_code == 200:
                return process, address
        except httpx.TransportError:
            pass
        assert process.poll() is None, "the server ended"
        time.sleep(0.1)


def request(model, number):
    """One of a small set of requests; `number` chooses text and seed."""
    text = SENTENCES[number % len(SENTENCES)]
    body = {"input": text, "model": model, "response_format": "pcm", "seed": number}
    if model == "tiny":
        body |= {"voice": "load", "sampling": {"max_frames": 40}}
    return body


async def speak(client, body):
    """The answer's bytes, and seconds to the first of them; None when refused."""
    began = time.perf_counter()
    first = None
    pieces = []
    async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
        if answer.status_code in (429, 503):
            return None, None
        assert answer.status_code == 200, (answer.status_code, await answer.aread())
        async for piece in answer.aiter_raw():
            if first is None and piece:
                first = time.perf_counter() - began
            pieces.append(piece)
    return b"".join(pieces), first


async def user(client, model, alone, tally, until, seed):
    """Asks again and again, one request at a time."""
    pick = random.Random(seed)
    while time.monotonic() < until:
        number = pick.randrange(len(alone[model]))
        data, first = await speak(client, request(model, number))
        if data is None:
            tally.refused += 1
            await asyncio.sleep(0.2)
            continue
        tally.answers += 1
        tally.first[model].append(first)
        if data != alone[model][number]:
            tally.wrong.append((model, number, len(data), len(alone[model][number])))


async def leaver(client, tally, until):
    """Leaves, every other time in the queue and in the middle of the answer; then asks the server when its
    work on that answer ended."""
    pick = random.Random(99)
    body = {"input": LONG, "model": "builtin", "response_format": "mp3"}
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pick.uniform(0.01, 1.5)):
                await speak(client, body)
        tally.left += 1
        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            if answer.status_code != 200:
                continue
            pieces = answer.aiter_raw()  # kept: a forgotten iterator closes its connection
            await anext(pieces)
            await asyncio.sleep(pick.uniform(0.0, 1.0))
            left = time.time()
        tally.left += 1
        for _ in range(100):
            record = (await client.get(f"/v1/requests/{answer.headers['x-request-id']}")).json()
            if record.get("outcome") == "client_gone":
                tally.stopped.append(record["started_at"] + record["seconds"] - left)
                break
            await asyncio.sleep(0.1)


async def trickle(address, expected, tally, until):
    """Reads one byte a second; what it gets must be the beginning of the true answer."""
    host, port = address.removeprefix("http://").split(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (host, int(port)))
    data = json.dumps({"input": LONG, "model": "builtin", "response_format": "wav", "seed": 7}).encode()
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    await loop.sock_sendall(made, f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    got = body = b""
    while time.monotonic() < until or len(body) < 3:
        got += await loop.sock_recv(made, 1 if b"\r\n\r\n" in got else 64)
        body = got.partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]  # after the first chunk's length
        await asyncio.sleep(1.0 if b"\r\n\r\n" in got else 0.0)
    made.close()
    assert expected.startswith(body), "the slow reader got other bytes"
    tally.trickled = len(body)


async def watch(process, tally, until):
    """Memory of the server, once a second."""
    watched = psutil.Process(process.pid)
    while time.monotonic() < until:
        tally.memory.append(watched.memory_info().rss)
        await asyncio.sleep(1.0)


def percentile(values, share):
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


async def work(options, process, address):
    """The whole run; a report as plain data."""
    tally = Tally()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=None, limits=limits, trust_env=False) as client:
        models = ["builtin"] + (["tiny"] if options.tiny else [])
        if options.tiny:
            clip = (
                await client.post(
                    "/v1/audio/speech", json={**request("builtin", 1), "response_format": "wav"}
                )
            ).content
            form = {"name": "load", "consent": "a made voice", "ref_text": SENTENCES[1]}
            (
                await client.post("/v1/audio/voices", data=form, files={"audio_sample": clip})
            ).raise_for_status()
        alone = {}
        for model in models:
            count = options.variants if model == "builtin" else max(4, options.variants // 2)
            alone[model] = [(await speak(client, request(model, number)))[0] for number in range(count)]
        slow = {"input": LONG[:2_000], "model": "builtin", "response_format": "wav", "seed": 7}
        expected, _ = await speak(client, {**slow, "input": LONG})
        single = [(await speak(client, request("builtin", number)))[1] for number in range(10)]
        until = time.monotonic() + options.seconds
        tasks = [user(client, "builtin", alone, tally, until, n) for n in range(options.clients)]
        tasks += [
            user(client, "tiny", alone, tally, until, n)
            for n in range(options.tiny_clients if options.tiny else 0)
        ]
        tasks += [
            leaver(client, tally, until),
            trickle(address, expected, tally, until),
            watch(process, tally, until),
        ]
        cpu = psutil.Process(process.pid).cpu_times()
        began = time.monotonic()
        await asyncio.gather(*tasks)
        wall = time.monotonic() - began
        used = psutil.Process(process.pid).cpu_times()
        for _ in range(200):
            status = (await client.get("/v1/status")).json()
            if not status["running"]:
                break
            await asyncio.sleep(0.05)
        metrics = (await client.get("/metrics")).text
    quarter = max(1, len(tally.memory) // 4)
    early, late = tally.memory[quarter : 2 * quarter] or tally.memory, tally.memory[-quarter:]
    return {
        "seconds": round(wall, 1),
        "clients": {"builtin": options.clients, "tiny": options.tiny_clients if options.tiny else 0},
        "answers": tally.answers,
        "wrong": tally.wrong,
        "refused": tally.refused,
        "left_in_the_middle": tally.left,
        "work_stopped_after_leaving": {
            "measured": len(tally.stopped),
            "p50": round(percentile(tally.stopped, 0.5) or 0.0, 3),
            "most": round(max(tally.stopped, default=0.0), 3),
        },
        "bytes_of_the_slow_reader": tally.trickled,
        "still_running_at_the_end": len(status["running"]),
        "first_audio_alone_p50": round(percentile(single, 0.5), 3),
        "first_audio": {
            model: {f"p{round(100 * share)}": round(percentile(values, share), 3) for share in (0.5, 0.95)}
            for model, values in tally.first.items()
            if values
        },
        "server_cpu_seconds": round(used.user + used.system - cpu.user - cpu.system, 1),
        "memory_mib": {"second_quarter": round(max(early) / 2**20), "last_quarter": round(max(late) / 2**20)},
        "clients_gone": next(
            line for line in metrics.splitlines() if line.startswith("sonant_clients_gone_total")
        ),
    }


def run(arguments=None):
    """Run with these command-line arguments; the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--tiny", default="", help="folder of a small cloning checkpoint")
    parser.add_argument("--tiny-clients", type=int, default=8)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--variants", type=int, default=16, help="different requests made alone first")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    process, address = start(options)
    try:
        return asyncio.run(work(options, process, address))
    finally:
        process.terminate()
        process.wait(timeout=60)


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
