"""Recording: once a key, checked against the work itself, told when it fails; by a pretended recorder."""

import gc
import threading
import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from sonant.nn.replay import Replay, free_memory


class Recorded:
    """Does the work again, as a graph would; `error` is added to what it writes."""

    def __init__(self, work, result, error):
        self.work, self.result, self.error = work, result, error
        self.replays = 0

    def replay(self):
        self.replays += 1
        self.work()
        self.result += self.error


@pytest.fixture
def made(monkeypatch):
    """A Replay, its work (a running sum), and what was recorded."""
    replay = Replay(torch.device("cpu"), records=True)
    state, result, graphs = torch.zeros(2), torch.full((3,), 9.0), []

    def work():
        state.add_(1)
        result[:2] = state

    def capture(self, given):
        given()
        graphs.append(Recorded(given, result, replay.error))
        return graphs[-1]

    replay.error = 0.0
    monkeypatch.setattr(Replay, "_capture", capture)
    return replay, work, state, result, graphs


def test_a_key_is_recorded_once_and_replayed(made):
    replay, work, state, result, graphs = made
    for _ in range(2):
        replay.record("one", work, result, reset=state.zero_)
    assert len(graphs) == len(replay) == 1
    assert replay.has("one")
    assert not replay.has("two")
    state.zero_()
    replay.run("one", work)
    assert result.tolist() == [1, 1, 0]
    assert graphs[0].replays == 2  # the check and the run
    replay.run("two", work)
    assert len(graphs) == 1


def test_work_that_is_not_reset_is_found_out(made, caplog):
    replay, work, _, result, _ = made
    replay.record("one", work, result)
    assert len(replay) == 0
    assert "differs by" in caplog.text


def test_a_replay_that_gives_something_else_is_never_used(made, caplog):
    replay, work, state, result, graphs = made
    replay.error = 0.5
    replay.record("one", work, result, reset=state.zero_)
    assert not replay.records
    assert "differs by 0.5" in caplog.text
    used = graphs[0].replays
    replay.run("one", work)
    assert graphs[0].replays == used
    assert replay.has("another"), "nothing is recorded any more"


def test_nothing_is_recorded_where_the_device_cannot():
    replay, result = Replay(torch.device("cpu")), torch.zeros(1)
    replay.record("one", lambda: pytest.fail("the work ran"), result)
    assert len(replay) == 0


# -- what a recording does with streams, by a device that keeps torch's rules ------------------


class FakeCuda:
    """torch.cuda as far as a recording needs it: one current stream, one capture at a time."""

    def __init__(self, monkeypatch):
        self.current = "usual"
        self.captures, self.capturing, self.fails = [], False, False
        self.collects = []
        cuda = self

        class Stream:
            def wait_stream(self, other):
                assert not cuda.capturing

        self.usual, self.stream_type = Stream(), Stream
        self.current = self.usual

        @contextmanager
        def on(stream):
            before, cuda.current = cuda.current, stream
            yield
            cuda.current = before

        class Capture:
            """As torch.cuda.graph: when the end of a capture fails, the stream stays as it is."""

            def __init__(self, graph, *, pool, stream, capture_error_mode):
                cuda.captures.append((pool, stream, capture_error_mode))
                self.graph, self.stream = graph, stream

            def __enter__(self):
                assert not cuda.capturing, "two captures at once"
                cuda.capturing, cuda.current = True, self.stream
                time.sleep(0.01)
                cuda.collects.append(gc.isenabled())

            def __exit__(self, *_):
                cuda.capturing = False
                if cuda.fails:
                    raise RuntimeError("operation failed due to a previous error during capture")
                cuda.current = cuda.usual

        for name, value in {
            "device": lambda device: nullcontext(),
            "Stream": Stream,
            "current_stream": lambda: cuda.current,
            "set_stream": lambda stream: setattr(cuda, "current", stream),
            "stream": on,
            "graph_pool_handle": object,
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
            "graph": Capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)


@pytest.fixture
def cuda(monkeypatch):
    return FakeCuda(monkeypatch)


def nothing(result):
    return Replay(torch.device("cpu"), records=True), lambda: None, result.zero_()


def test_recordings_that_share_memory_share_their_stream_and_collect_no_garbage(cuda):
    replay, work, result = nothing(torch.zeros(1))
    for key in ("one", "two"):
        replay.record(key, work, result)
    assert len(replay) == 2
    assert len(set(cuda.captures)) == 1
    assert cuda.captures[0][2] == "thread_local"
    assert cuda.collects == [False, False]
    assert gc.isenabled()
    assert cuda.current is cuda.usual


def test_after_a_recording_that_fails_the_stream_is_the_usual_one(cuda, caplog):
    replay, work, result = nothing(torch.zeros(1))
    cuda.fails = True
    replay.record("one", work, result)
    assert "previous error during capture" in caplog.text
    assert not replay.records
    assert cuda.current is cuda.usual
    assert gc.isenabled()


def test_one_recording_at_a_time_in_the_whole_process(cuda, caplog):
    made = [nothing(torch.zeros(1)) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda m=m: [m[0].record(key, m[1], m[2]) for key in range(3)]) for m in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not caplog.text
    assert [len(replay) for replay, _, _ in made] == [3] * 4


def test_memory_is_not_freed_inside_a_recording(cuda, monkeypatch):
    freed = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(cuda.capturing))
    replay, work, result = nothing(torch.zeros(1))
    has_freed, is_done = threading.Event(), threading.Event()

    def free_all_the_time():
        while not is_done.is_set():
            free_memory()
            has_freed.set()
            time.sleep(0.001)  # or nobody else gets the lock

    thread = threading.Thread(target=free_all_the_time)
    thread.start()
    assert has_freed.wait(60)
    for key in range(5):
        replay.record(key, work, result)
    is_done.set()
    thread.join()
    assert freed
    assert not any(freed)
    assert len(replay) == 5


def test_a_row_of_no_numbers_does_not_end_recording(cuda):
    result = torch.zeros(2)
    replay = Replay(torch.device("cpu"), records=True)
    replay.record("one", lambda: result.fill_(0), result)
    assert len(replay) == 1

    def work():
        result[0] = float("nan")

    graph = SimpleNamespace(replay=work)
    replay._capture = lambda work: graph
    replay.record("two", work, result)
    assert replay.records
    assert len(replay) == 2


def test_there_is_an_end_to_recordings(cuda, monkeypatch):
    monkeypatch.setattr("sonant.nn.replay.MOST", 3)
    replay, work, result = nothing(torch.zeros(1))
    for key in range(5):
        replay.record(key, work, result)
    assert len(replay) == 3
    ran = []
    replay.run(4, lambda: ran.append(4))
    assert ran == [4]
