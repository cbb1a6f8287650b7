"""Every way a process can end while an engine lives, many times over: does it end quietly?

    python benchmarks/endings.py OUT.json --runs 20 --model builtin --model nano --model NAME=FOLDER=CLIP

Each run is a process of its own. What was counted is kept in OUT.json and not run again, so the whole can be
done in pieces (`--seconds`); the table is printed at the end. An abort is a process that a signal ended (but
Ctrl-C's own), or one that says "terminate called" or "Fatal Python error" on its way out. Ctrl-C is pressed
again after five seconds, as one does: where the first falls into a destructor, Python says so and goes on.
A notebook's kernel is restarted where ipykernel and jupyter_client are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEXT = "It goes on for quite a while, and on, and on. " * 40
HEAD = """import asyncio, multiprocessing, os, signal, sys, threading, time, sonant
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
"""
LOAD = "e = sonant.load(MODEL)\n"
WAYS = {
    "the last line streams": LOAD + "next(iter(e.stream(TEXT, **HOW)))",
    "break out of a stream": LOAD + "for chunk in e.stream(TEXT, **HOW): break",
    "an exception": LOAD + "s = e.stream(TEXT, **HOW)\ns.get()\nraise ValueError('on purpose')",
    "sys.exit": LOAD + "s = e.stream(TEXT, **HOW)\ns.get()\nsys.exit(3)",
    "Ctrl-C": LOAD
    + "def press():\n    for wait in (0.2, 5, 5):\n"
    + "        time.sleep(wait)\n        os.kill(os.getpid(), signal.SIGINT)\n"
    + "threading.Thread(target=press, daemon=True).start()\n"
    + "while True:\n    for chunk in e.stream(TEXT, **HOW): time.sleep(0.01)",
    "asyncio.run": (
        "async def main():\n    async for chunk in sonant.load(MODEL).astream(TEXT, **HOW):\n        return\n"
        "asyncio.run(main())"
    ),
    "threads": LOAD
    + "streams = [e.stream(TEXT, **{**HOW, 'seed': n}) for n in range(3)]\n"
    + "threading.Thread(target=streams[0].get, daemon=True).start()\nstreams[1].get()",
    "multiprocessing": LOAD
    + "s = e.stream(TEXT, **HOW)\ns.get()\n"
    + "p = multiprocessing.get_context('spawn').Process(target=print)\np.start()\np.join()",
    "a notebook's kernel restarts": (
        "from jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel()\n"
        "cell = f'import sonant; s = sonant.load({MODEL!r}).stream({TEXT!r}, **{HOW!r}); s.get(); 0'\n"
        "answer = client.execute_interactive(cell, store_history=False)\n"
        "assert answer['content']['status'] == 'ok', answer\n"
        "kernel = manager.provisioner.process\n"
        "manager.restart_kernel()\n"
        "client.wait_for_ready(timeout=60)\n"
        "manager.shutdown_kernel()\n"
        "sys.exit(kernel.wait())"  # what the first kernel said of its end is among this process's errors
    ),
    "a whole sentence, then the end": LOAD + "e.synthesize('Hello.', **HOW)",
    "the one-liner": "sonant.say('Hello.', model=MODEL, **HOW)",
}
"""What the script does, by the name of the way. MODEL, TEXT and HOW (settings) stand for what is meant."""
STATUS = {"an exception": 1, "sys.exit": 3, "Ctrl-C": -signal.SIGINT}
"""How each is meant to end; 0 where nothing is said."""
NEEDS = {"a notebook's kernel restarts": ("ipykernel", "jupyter_client")}
"""Packages without which a way cannot be tried."""
TALKATIVE = ("an exception", "Ctrl-C", "a notebook's kernel restarts")
"""Ways in which others speak: Python its traceback, Jupyter of its ports."""
ABORTED = ("terminate called", "Fatal Python error", "core dumped")


def can_be_tried(way: str) -> bool:
    """Whether this machine has what the way needs."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDS.get(way, ()))


def script(way: str, model: str, clip: str = "") -> str:
    """The program for a way to end."""
    how: dict[str, object] = {"seed": 1}
    if clip:
        how["voice"] = clip
    body = "".join(f"    {line}\n" for line in WAYS[way].split("\n"))
    given = f"MODEL, TEXT, HOW = {model!r}, {TEXT!r}, {how!r}\n"
    return f"{HEAD}{given}if __name__ == '__main__':\n{body}"


def end(way: str, model: str, clip: str = "") -> tuple[bool, str]:
    """Whether a process that ends this way did so as it was meant to, and what it said where not."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.py"
        path.write_text(script(way, model, clip), encoding="utf-8")
        try:
            done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=240)
        except subprocess.TimeoutExpired:
            return False, "did not end"
    is_quiet = done.returncode == STATUS.get(way, 0) and not any(word in done.stderr for word in ABORTED)
    if way not in TALKATIVE:
        is_quiet = is_quiet and not done.stderr
    return is_quiet, f"status {done.returncode}: {done.stderr[-400:]}"


def table(counts: dict[str, dict[str, list[int]]]) -> str:
    """Ways by models as Markdown; each cell is how many of the runs ended quietly."""
    models = list(counts)
    lines = [f"| way to end | {' | '.join(models)} |", "| --- |" + " --- |" * len(models)]
    for way in WAYS:
        cells = ("{}/{}".format(*counts[model].get(way, [0, 0])) for model in models)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Count, within the time given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument(
        "--model", action="append", default=[], help="a name, NAME=FOLDER or NAME=FOLDER=CLIP"
    )
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further run after these")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    counts = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {}
    for given in chosen.model:
        name, folder, clip = [*given.split("="), "", ""][:3]
        for way in filter(can_be_tried, WAYS):
            tally = counts.setdefault(name, {}).setdefault(way, [0, 0])
            while tally[1] < chosen.runs and time.monotonic() < until:
                is_quiet, said = end(way, folder or name, clip)
                tally[0] += is_quiet
                tally[1] += 1
                chosen.out.write_text(json.dumps(counts, indent=1))
                if not is_quiet:
                    print(f"{name}, {way}: {said}", file=sys.stderr)
    print(table(counts))


if __name__ == "__main__":
    main()
