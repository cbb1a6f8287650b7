"""Whose turn it is, as clients of a server meet it: by the order of beginnings, not by the clock."""

import threading

import httpx
import pytest

from sonant.engine.engine import Engine
from sonant.server.auth import hash_key
from sonant.server.models import ModelSource
from sonant.server.settings import ApiKey, ServerSettings
from tests.engine.faulty import LazyToy
from tests.engine.test_faults import ENDLESS, PATIENCE
from tests.engine.test_turns import book
from tests.server.conftest import wait_until

SLOTS = 4


class Order(LazyToy):
    """Notes which segment was begun when. Nothing steps while `go` is cleared."""

    def __init__(self):
        super().__init__(end_bias=ENDLESS)
        self.begun, self.go = [], threading.Event()
        self.go.set()  # the server's first words

    def start(self, prompt, slots):
        self.begun.append(prompt.text.strip())
        return super().start(prompt, slots)

    def step(self, utterances):
        assert self.go.wait(PATIENCE)
        return super().step(utterances)


@pytest.fixture
def model():
    return Order()


@pytest.fixture
def ask(start, model):
    """ask(key, text): in a thread of its own; ends when all are read, or with the test."""
    keys = tuple(
        ApiKey(hash=hash_key(f"sk-{name}"), priority=priority)
        for name, priority in (("books", 0), ("short", 0), ("house", 5))
    )
    source = ModelSource(
        name="toy", open=lambda: Engine(model, slots=SLOTS, queue_limit=64, chunk_limit=10_000)
    )
    server = start(source, settings=ServerSettings(keys=keys))
    engine, threads, stop = server.engine(), [], threading.Event()

    def read(key, text):
        body = {"input": text, "response_format": "pcm", "seed": 1}
        headers = {"Authorization": f"Bearer sk-{key}"}
        url = f"{server.url}/v1/audio/speech"
        with httpx.stream("POST", url, json=body, headers=headers, timeout=PATIENCE) as answer:
            assert answer.status_code == 200
            for _ in answer.iter_bytes(4_096):
                if stop.is_set():
                    return

    def begin(key, text):
        thread = threading.Thread(target=read, args=(key, text), daemon=True)
        thread.start()
        threads.append(thread)
        return thread

    begin.engine = engine
    yield begin
    stop.set()
    model.go.set()
    for thread in threads:
        thread.join(PATIENCE)


def notes_submissions(engine, model, monkeypatch):
    """How many segments had been begun when the engine had a text, by its first word."""
    found, submit, one = {}, engine.submit, threading.Lock()

    def noted(request, **options):
        with one:
            model.go.clear()  # what is begun while it is being submitted is no wait
            stream = submit(request, **options)
            found[request.text.split(".")[0]] = len(model.begun)
            model.go.set()
        return stream

    monkeypatch.setattr(engine, "submit", noted)
    return found


@pytest.mark.parametrize("key", ["books", "short"])
def test_a_short_request_behind_eight_long_ones_begins_within_two_segments_time(ask, model, monkeypatch, key):
    """The client who has the long ones gets it too; of eight, four are being spoken and four wait."""
    submitted = notes_submissions(ask.engine, model, monkeypatch)
    for number in range(8):
        ask("books", book(chr(97 + number), 300))
    wait_until(lambda: len({name[0] for name in model.begun if name[0] != "R"}) == 8, PATIENCE)
    thread = ask(key, "hello")
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert model.begun.index("hello") - submitted["hello"] <= 2 * SLOTS


def test_a_key_of_higher_priority_goes_before_all_that_wait(ask, model):
    model.go.clear()
    for number in range(SLOTS):
        ask("books", f"now{number}")
    wait_until(lambda: sum(ask.engine.load) == SLOTS, PATIENCE)
    waiting = [ask("short", f"later{number}") for number in range(6)]
    wait_until(lambda: sum(ask.engine.load) == SLOTS + 6, PATIENCE)
    waiting.append(ask("house", "first"))
    wait_until(lambda: sum(ask.engine.load) == SLOTS + 7, PATIENCE)
    model.go.set()
    for thread in waiting:
        thread.join(PATIENCE)
    assert model.begun.index("first") < min(model.begun.index(f"later{number}") for number in range(6))
