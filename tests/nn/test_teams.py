"""OpenMP's helper threads are given back by threads that only prepare work."""

import ctypes
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from sonant.native import teams

TASKS = Path("/proc/self/task")
NAME = "sonant-team-tst"
"""A thread has the name of the one that made it, so this tells the test's own helpers from others."""


def helpers():
    """How many threads the test's own thread has made."""
    count = 0
    for task in TASKS.iterdir():
        try:
            count += (task / "comm").read_text(encoding="utf-8").strip() == NAME
        except OSError:  # it has just ended
            continue
    return count


def helpers_once_gone(others):
    """The same when those that were let go have ended, which they do in their own time."""
    until = time.monotonic() + 30
    while helpers() > others and time.monotonic() < until:
        time.sleep(0.01)
    return helpers()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at the threads of a Linux process")
@pytest.mark.parametrize("others", [0, 4])
def test_a_thread_lets_its_helpers_go_and_gets_new_ones(others, tmp_path):
    """Also beside further copies of the runtime, as ctranslate2 and sentencepiece bring them."""
    counts, sums = [], []
    for copy in range(others):
        for lib in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
            ctypes.CDLL(shutil.copy(lib, tmp_path / f"libgomp-{copy}.so.1"))
    teams._pauses.cache_clear()

    def work():
        (TASKS / str(threading.get_native_id()) / "comm").write_text(NAME, encoding="utf-8")
        torch.set_num_threads(3)  # torch has other threads beside OpenMP's, and makes some of them here
        before = helpers()
        try:
            for _ in range(2):
                sums.append(torch.ones(1 << 22).sum().item())
                counts.append(helpers() - before)
                teams.release()
                counts.append(helpers_once_gone(before) - before)
        finally:
            torch.set_num_threads(1)

    before = torch.get_num_threads()
    if not teams._pauses():
        pytest.skip("torch runs on another OpenMP than GNU's")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert sums == [float(1 << 22)] * 2
    assert counts == [2, 0, 2, 0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at the threads of a Linux process")
def test_a_runtime_that_was_replaced_on_disk_stops_nobody(tmp_path):
    """Its path is then listed with "(deleted)" behind it, and cannot be opened again."""
    for lib in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        copy = Path(shutil.copy(lib, tmp_path / "libgomp-old.so.1"))
        ctypes.CDLL(copy)
        copy.unlink()
    teams._pauses.cache_clear()
    teams.release()
