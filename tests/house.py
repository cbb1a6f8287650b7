"""The package as a house: files, lines and arrows of its rooms, as it is or was at a commit.

    python -m tests.house [COMMIT]

A room is a folder or a file of `src/sonant`; files and lines are those of .py, .c and .h, blank ones
included; an arrow is one room that imports from another, however often, inside functions too.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.test_imports import SOURCE, imported

DOORS = {"__init__", "__main__"}


def rooms(source=SOURCE):
    """Of each room its files."""
    found = {}
    for path in sorted(source.rglob("*")):
        room = path.relative_to(source).parts[0].removesuffix(".py")
        if path.suffix in {".py", ".c", ".h"} and room not in DOORS:
            found.setdefault(room, []).append(path)
    return found


def arrows(source=SOURCE):
    """Of each room the rooms that it imports from."""
    found = rooms(source)
    return {
        room: sorted(
            {name.split(".")[0] for path in paths if path.suffix == ".py" for name in imported(path)}
            & found.keys() - {room}
        )
        for room, paths in found.items()
    }


def table(source=SOURCE):
    """A line for each room, then their sums."""
    to = arrows(source)
    lines = {
        room: (len(paths), sum(len(p.read_text(encoding="utf-8").splitlines()) for p in paths), len(to[room]))
        for room, paths in rooms(source).items()
    }
    lines[f"{len(lines)} rooms"] = tuple(map(sum, zip(*lines.values(), strict=True)))
    return [f"| {room} | {files} | {size:,} | {out} |" for room, (files, size, out) in lines.items()]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        source = SOURCE
        if sys.argv[1:]:
            command = ["git", "archive", sys.argv[1], "src/sonant"]
            packed = subprocess.run(command, check=True, capture_output=True, cwd=SOURCE.parents[1]).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                archive.extractall(folder, filter="data")
            source = Path(folder) / "src" / "sonant"
        print("| room | files | lines | arrows |\n| --- | ---: | ---: | ---: |", *table(source), sep="\n")
