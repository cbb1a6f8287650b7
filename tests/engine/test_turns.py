"""Rows go by turns: nobody waits long behind others, and nobody waits for ever."""

import itertools
import threading
from types import SimpleNamespace

import pytest

from sonant.engine.engine import Engine
from sonant.engine.turns import Turns
from sonant.request.speech import SpeechRequest
from tests.engine.faulty import LazyToy
from tests.engine.test_faults import ENDLESS, PATIENCE, read


class Order(LazyToy):
    """Notes which segment was begun when. Nothing steps until `go` is set."""

    def __init__(self):
        super().__init__(end_bias=ENDLESS)
        self.begun, self.go = [], threading.Event()

    def start(self, prompt, slots):
        self.begun.append(prompt.text.strip())
        return super().start(prompt, slots)

    def step(self, utterances):
        assert self.go.wait(PATIENCE)
        return super().step(utterances)


def book(name, count):
    return ". ".join(f"{name}{number}" for number in range(count))


def speak(model, slots, *requests):
    """Names of the segments in the order of their beginning; requests are (text, options)."""
    with Engine(model, slots=slots, chunk_limit=10_000) as engine:
        streams = [
            engine.submit(SpeechRequest(text, seed=number), **options)
            for number, (text, options) in enumerate(requests)
        ]
        model.go.set()
        for stream in streams:
            read(stream)
    return model.begun


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("books", [8, 20])
def test_a_short_request_behind_any_load_begins_within_two_segments(slots, books):
    requests = [(book(f"{chr(97 + n // 26)}{chr(97 + n % 26)}", 2), {}) for n in range(books)]
    model = Order()
    begun = []
    with Engine(model, slots=slots, chunk_limit=10_000) as engine:
        streams = [engine.submit(SpeechRequest(text, seed=1)) for text, _ in requests]
        model.go.set()
        for stream in streams[:books]:
            stream.get(timeout=PATIENCE)  # each has begun
        model.go.clear()  # what is begun while it is being submitted is no wait
        short = engine.submit(SpeechRequest("hello", seed=1))
        before = len(model.begun)
        model.go.set()
        read(short)
        begun = list(model.begun)
        for stream in streams:
            read(stream)
    assert begun.index("hello") - before <= 2 * slots


def test_books_are_read_by_turns():
    begun = speak(Order(), 1, (book("a", 4), {}), (book("b", 4), {}), (book("c", 4), {}))
    for stop in range(1, 10):
        counts = [sum(name.startswith(book) for name in begun[:stop]) for book in "abc"]
        assert max(counts) - min(counts) <= 2, begun


def test_a_client_with_many_requests_gets_what_one_client_gets():
    crowd = [(f"crowd{n}", {"client": "crowd"}) for n in range(10)]
    begun = speak(Order(), 1, *crowd, ("one", {"client": "one"}), ("other", {"client": "other"}))
    assert begun.index("one") <= 3
    assert begun.index("other") <= 3


def test_short_requests_without_end_do_not_keep_a_book_waiting():
    crowd = [(f"short{n:02}", {"client": n}) for n in range(20)]
    begun = speak(Order(), 1, (book("book", 5), {}), *crowd)
    assert begun.index("book4") <= 12


@pytest.mark.parametrize(
    ("page", "text", "between"),
    [
        (60, 3, 5),  # as many as of 25 letters: the shortest text takes its time, too
        (60, 40, 3),
        (300, 50, 12),
    ],
)
def test_new_and_old_share_by_what_they_say_and_not_by_segments(page, text, between):
    """Sixty streams of short texts beside six books waited for 5 s, as many segments of each being begun."""

    def waiting(length, *, is_fresh):
        segment = SimpleNamespace(taken=0, passed=0, since=0, prompt=SimpleNamespace(text="a" * length))
        return SimpleNamespace(
            client=length, is_fresh=is_fresh, is_generating=False, priority=0, waiting=[segment]
        )

    turns, served = Turns(), []
    for _ in range(200):
        both = [waiting(page, is_fresh=False), waiting(text, is_fresh=True)]
        served.append(turns.first(both, ()))
        turns.serve(served[-1], both)
    pages = [at for at, one in enumerate(served) if not one.is_fresh]
    gaps = [b - a - 1 for a, b in itertools.pairwise(pages)]
    assert set(gaps) <= {between - 1, between, between + 1}
    assert abs(sum(gaps) / len(gaps) - between) < 0.5


def test_a_higher_priority_goes_first_and_a_lower_one_still_gets_its_turn():
    low = [(f"low{n}", {}) for n in range(4)]
    begun = speak(Order(), 1, *low, (book("high", 3), {"priority": 1}))
    assert begun.index("high2") <= 4
    assert begun[-1].startswith("low")


def test_who_was_passed_over_long_enough_counts_more(monkeypatch):
    from sonant.engine import turns

    monkeypatch.setattr(turns, "PASSED_MOST", 4)
    begun = speak(Order(), 1, ("first", {"priority": 9}), ("low", {}), (book("high", 30), {"priority": 3}))
    assert begun.index("low") <= 16
