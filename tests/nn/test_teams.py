"""OpenMP's helper threads are given back by threads that only prepare work."""

import os
import sys
import threading

import pytest
import torch

from sonant.native import teams


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads of a Linux process")
def test_a_thread_lets_its_helpers_go_and_gets_new_ones():
    counts, sums = [], []

    def work():
        torch.set_num_threads(3)
        try:
            for _ in range(2):
                sums.append(torch.ones(1 << 22).sum().item())
                counts.append(len(os.listdir("/proc/self/task")))
                teams.release()
                counts.append(len(os.listdir("/proc/self/task")))
        finally:
            torch.set_num_threads(1)

    before = torch.get_num_threads()
    if teams._pause() is None:
        pytest.skip("torch runs on another OpenMP than GNU's")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    torch.set_num_threads(before)
    assert sums == [float(1 << 22)] * 2
    busy, calm, busy_again, calm_again = counts
    assert calm < busy
    assert calm_again < busy_again
