"""Work beside the speaking, by turns: so many at a time, and one of each client; who sends much waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")


class _Row:
    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.users = 0


class OneEach:
    """At most `most` at a time in all (None: no bound), and one of each client."""

    def __init__(self, most: int | None = None) -> None:
        self._all = asyncio.Semaphore(most) if most is not None else contextlib.nullcontext()
        self._rows: dict[Hashable, _Row] = {}
        """Of the clients who are at it or wait."""

    @contextlib.asynccontextmanager
    async def turn(self, client: Hashable) -> AsyncIterator[None]:
        """The client's turn, when it comes: a client's second waits behind its first, and others pass it."""
        row = self._rows.setdefault(client, _Row())
        row.users += 1
        try:
            async with row.turn, self._all:
                yield
        finally:
            row.users -= 1
            if not row.users:
                del self._rows[client]

    async def in_thread(
        self,
        client: Hashable,
        threads: Executor,
        work: Callable[[], T],
        undo: Callable[[T], None] = lambda made: None,
    ) -> T:
        """What `work` gives, done by one of the threads in the client's turn.

        A caller who is cancelled goes at once, but the turn lasts until the thread is done: who sends and
        leaves again and again has one thread, too. `undo` is given what nobody waits for any more.
        """
        begun: list[Future[T]] = []

        async def take() -> None:
            async with self.turn(client):
                begun.append(threads.submit(work))
                done = asyncio.wrap_future(begun[0])
                await asyncio.wait({done})
                if not done.cancelled():
                    done.exception()  # read, or asyncio reports it as lost: the caller has it of the thread

        def undone(future: Future[T]) -> None:
            if not future.cancelled() and future.exception() is None:
                undo(future.result())

        task = asyncio.create_task(take())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun:
                task.cancel()
            elif not begun[0].cancel():
                begun[0].add_done_callback(undone)
            raise
        if begun[0].cancelled():  # the threads are being closed
            raise asyncio.CancelledError
        return begun[0].result()
