"""OpenMP's helper threads are given back by threads that only prepare work."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks at the threads of a Linux process"
)

CHILD = """
import ctypes, json, shutil, sys, threading, time
from pathlib import Path
import torch
from sonant.native import teams

folder, copies = Path(sys.argv[1]), int(sys.argv[2])
ours = list((Path(torch.__file__).parent / "lib").glob("libgomp*"))
for copy in range(copies):  # as ctranslate2 and sentencepiece bring them
    for lib in ours:
        path = Path(shutil.copy(lib, folder / f"libgomp-{copy}.so.1"))
        ctypes.CDLL(path)
        if copy == 0:
            path.unlink()  # replaced on disk: listed with "(deleted)" behind it, and cannot be opened again

TASKS, NAME = Path("/proc/self/task"), "sonant-team-tst"
counts = []

def helpers():  # threads have the name of the one that made them, so others are not counted
    count = 0
    for task in TASKS.iterdir():
        try:
            count += (task / "comm").read_text(encoding="utf-8").strip() == NAME
        except OSError:  # it has just ended
            continue
    return count

def helpers_once_gone(others):  # they end in their own time
    until = time.monotonic() + 60
    while helpers() > others and time.monotonic() < until:
        time.sleep(0.01)
    return helpers()

def work():
    (TASKS / str(threading.get_native_id()) / "comm").write_text(NAME, encoding="utf-8")
    torch.set_num_threads(3)  # torch has other threads beside OpenMP's, and makes some of them here
    others = helpers()
    for _ in range(2):
        total = torch.ones(1 << 22).sum().item()
        counts.append(helpers() - others)
        teams.release()
        counts.append(helpers_once_gone(others) - others)
        counts.append(total)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(json.dumps({"found": len(teams._pauses()), "ours": len(ours), "counts": counts}))
"""


@pytest.mark.parametrize("copies", [0, 4])
def test_a_thread_lets_its_helpers_go_and_gets_new_ones(copies, tmp_path):
    """Also beside further copies of the runtime, one of which has been replaced on disk since."""
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(copies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if not found["found"]:
        pytest.skip("torch runs on another OpenMP than GNU's")
    if found["ours"]:
        assert found["found"] >= 1 + max(0, copies - 1)
    assert found["counts"] == [2, 0, float(1 << 22)] * 2
