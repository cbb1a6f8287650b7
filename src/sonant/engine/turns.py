"""Whose segment gets the next free row.

A row is handed back at the end of every segment, and then goes to the highest priority; of these by turns to
a request that is new and to one that goes on, measured in characters, so that neither a queue of books nor a
crowd of short requests keeps the other out; of these to the client with the fewest segments under way, who
was served the longest ago; of these to the one who has waited longest.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from sonant.engine.progress import Progress

PASSED_MOST = 256
"""Turns after which a segment that others were preferred to counts one priority more: nothing starves."""

NEW_FOR_OLD = 2.0
"""Characters of new requests that are begun for each of those that go on, while both wait: who goes on is
heard already, and who is new is not. In segments a book would get as many as sixty short texts, of thrice
their length."""
LEAST_SIZE = 25
"""Characters that the shortest text counts as: it takes a prefill and half a second of speech, too."""
MOST_AHEAD = 400.0
"""Characters, a long segment, that one kind may be ahead of its share: what priorities gave is not paid back
for ever."""


class Turns:
    """Remembers who was served."""

    def __init__(self) -> None:
        self._count = 0
        self._served: dict[Hashable, int] = {}
        """The last turn of each client who has a request under way."""
        self._new_ahead = 0.0
        """Characters of new requests that were begun beyond their share."""

    def first(self, waiting: Sequence[Progress], running: Iterable[Progress]) -> Progress:
        """The one of `waiting` whose turn it is."""
        prefers_fresh = self._new_ahead <= 0
        under_way: dict[Hashable, int] = {}
        for progress in running:
            under_way[progress.client] = under_way.get(progress.client, 0) + progress.is_generating

        def key(progress: Progress) -> tuple[float, ...]:
            segment = progress.waiting[0]
            return (
                not segment.taken,  # one whose row was taken back goes on first
                -(progress.priority + segment.passed // PASSED_MOST),
                progress.is_fresh is not prefers_fresh,
                under_way.get(progress.client, 0),
                self._served.get(progress.client, 0),
                segment.since,
            )

        return min(waiting, key=key)

    def serve(self, chosen: Progress, waiting: Iterable[Progress]) -> None:
        """`chosen` was given a row while the others waited."""
        self._count += 1
        self._served[chosen.client] = self._count
        others = [other for other in waiting if other is not chosen]
        for other in others:
            other.waiting[0].passed += 1
        if any(other.is_fresh is not chosen.is_fresh for other in others):
            size = max(LEAST_SIZE, len(chosen.waiting[0].prompt.text))
            ahead = self._new_ahead + (size if chosen.is_fresh else -NEW_FOR_OLD * size)
            self._new_ahead = min(max(ahead, -NEW_FOR_OLD * MOST_AHEAD), MOST_AHEAD)

    def forget(self, client: Hashable, others: Iterable[Progress]) -> None:
        """A request of this client ended."""
        if not any(other.client == client for other in others):
            self._served.pop(client, None)
