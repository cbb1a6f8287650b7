"""Recording: once a key, checked against the work itself, told when it fails; by a pretended recorder."""

import pytest
import torch

from sonant.nn.replay import Replay


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
