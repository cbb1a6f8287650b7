"""Each release as a sparse folder, loaded in a process of its own: time, memory and what it took on disk.

    python -m benchmarks.release_loads [NAME ...]

The folders are those of the tests: true names, headers, configs and shapes, holes for weights. Loading is
strict, on the CPU, in bfloat16. Holes cost no disk, so the time is what Sonant itself does. Of the memory,
only what lies in no file is kept from others.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from sonant.catalogue.hub import KNOWN
from tests.releases import catalogue, lay_out

CHILD = """
import json, sys, time
from sonant.catalogue import registry
begin = time.process_time()
model = registry.load_model(sys.argv[1], device="cpu", dtype="bfloat16", strict=True)
seconds = time.process_time() - begin
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
sizes = {key: int(status[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon")}
print(json.dumps({"seconds": seconds, **sizes}))
"""


def measured(name: str, folder: Path) -> dict[str, float]:
    """Seconds of processor time, and bytes."""
    lay_out(name, folder)
    done = subprocess.run([sys.executable, "-c", CHILD, folder], capture_output=True, text=True, check=True)
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    found = json.loads(done.stdout.splitlines()[-1])
    sizes = {"size": sum(file.st_size for file in files), "disk": sum(file.st_blocks * 512 for file in files)}
    return sizes | found


def main(names: list[str]) -> None:
    """A row of a table for each release."""
    columns = (
        "known name",
        "bytes",
        "on disk",
        "processor time",
        "most resident",
        "in the end without a file",
    )
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    for name in names or [model.name for model in KNOWN if model.repository in catalogue()]:
        with tempfile.TemporaryDirectory() as scratch:
            found = measured(name, Path(scratch) / name)
        print(
            f"| `{name}` | {found['size']:,} | {found['disk'] / 1e6:.1f} MB | {found['seconds']:.1f} s | "
            f"{found['VmHWM'] / 1e9:.2f} GB | {found['RssAnon'] / 1e9:.2f} GB |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
