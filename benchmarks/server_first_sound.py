"""First sound through a real server: of a long text against its first sentence, and behind long readers.

    python benchmarks/server_first_sound.py [--rounds 7]

Starts `sonant serve` on the built-in voice. A text of 90,000 characters and its first sentence alone are
asked for in turn, and so is a short text on the idle server and behind eight readers of 11,000
characters. Printed are seconds until the first bytes of sound, by the clock and of the server's
processor; medians of the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import httpx
import psutil

PROSE = "It was a bright cold day in April, and the clocks were striking thirteen. "
LONG = (PROSE * 1_300)[:90_000]
READERS = 8


class Server:
    def __init__(self):
        command = [sys.executable, "-m", "sonant", "serve", "--model", "builtin", "--port", "0"]
        command += ["--voices", tempfile.mkdtemp(prefix="sonant-first-"), "--log-level", "warning"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        self.url = self.process.stdout.readline().split()[-1]
        self.client = httpx.Client(timeout=600)
        while self.client.get(f"{self.url}/ready").status_code != 200:
            time.sleep(0.1)

    def work(self):
        used = psutil.Process(self.process.pid).cpu_times()
        return used.user + used.system

    def first(self, text):
        """Seconds to the first bytes of sound: by the clock, and of the server's processor."""
        body = {"input": text, "response_format": "pcm", "seed": 1}
        began, work = time.perf_counter(), self.work()
        with self.client.stream("POST", f"{self.url}/v1/audio/speech", json=body) as answer:
            assert answer.status_code == 200
            next(answer.iter_bytes(1))
            return time.perf_counter() - began, self.work() - work

    def idle(self):
        while self.client.get(f"{self.url}/v1/status").json()["running"]:
            time.sleep(0.02)


def medians(rounds):
    clock, work = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {"clock, s": round(clock, 3), "processor, s": round(work, 3)}


def behind_readers(server, rounds):
    stop = threading.Event()

    def read(number):
        body = {"input": PROSE * 150, "response_format": "pcm", "seed": number}
        url = f"{server.url}/v1/audio/speech"
        while not stop.is_set():
            with httpx.Client(timeout=600) as client, client.stream("POST", url, json=body) as answer:
                for _ in answer.iter_bytes(65_536):
                    if stop.is_set():
                        return

    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(READERS)]
    for reader in readers:
        reader.start()
    while len(server.client.get(f"{server.url}/v1/status").json()["running"]) < READERS:
        time.sleep(0.02)
    found = [server.first("Hello there.") for _ in range(rounds)]
    stop.set()
    for reader in readers:
        reader.join(60)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    server = Server()
    try:
        whole, alone, short = [], [], []
        server.first(PROSE)
        for _ in range(options.rounds):
            for text, found in ((LONG, whole), (PROSE, alone), ("Hello there.", short)):
                server.idle()
                found.append(server.first(text))
        server.idle()
        behind = behind_readers(server, options.rounds)
    finally:
        server.process.terminate()
        server.process.wait(30)
    report = {
        "90,000 characters": medians(whole),
        "their first sentence alone": medians(alone),
        "a short text, idle": medians(short),
        f"a short text behind {READERS} readers of 11,000 characters": medians(behind),
    }
    ratios = [
        report["90,000 characters"][kind] / max(report["their first sentence alone"][kind], 0.01)
        for kind in ("clock, s", "processor, s")
    ]
    report["ratio of the first two"] = {"clock": round(ratios[0], 2), "processor": round(ratios[1], 2)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
