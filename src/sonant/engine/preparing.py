"""The prompts of a request, made one at a time: text work goes on while what came before is spoken.

The first is made where the request is submitted, so that what is wrong with a request is known at once; the
others in a thread of their own, one for each request in turn.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sonant.engine.model import Prompt, SpeechModel, Unspeakable, inference, unspeakable
from sonant.errors import DeadlineError, RequestError, SonantError
from sonant.native import teams
from sonant.request.seeds import segment_seed
from sonant.request.speech import GuardEvent, SpeechRequest
from sonant.request.spoken import Part, request_of, spoken_parts, stretch_of
from sonant.text.speakable import named

log = logging.getLogger(__name__)

PARTS_APART = 65_536
"""Segments of the parts between pause tags are numbered so far apart, for their seeds."""
PATIENCE = 0.05
"""Seconds that one request may keep the preparing thread while nothing to speak comes of its text."""
SILENCE = 0.2
"""Seconds of silence for a text without a letter or a digit."""


@dataclass(frozen=True)
class Pause:
    """Silence, in seconds, after the prompt before it; before the first prompt where there is none."""

    seconds: float


Item = Prompt | Pause | Unspeakable | GuardEvent | None
"""What one bit of preparation gives. None is nothing yet; a guard event tells what the front end left out."""


class Source:
    """The prompts of one request in order, with the pauses between them. `next` may be called from any
    thread, by one at a time. The request was checked, its voice found and its seed drawn.

    most: cache positions that a prompt may need, rows times positions.
    """

    def __init__(self, model: SpeechModel, request: SpeechRequest, *, most: int | None) -> None:
        self._most = most
        self._model = model
        self._request = request
        self._is_given = request.source_audio is None and request.text_feed is None
        self._parts = spoken_parts(request, model.spec) if self._is_given else iter([Part("", 0.0)])
        self._ahead: list[Part] = []
        """Parts that were read already, to know whether there is a word in the text."""
        self._items = self._made()
        self.is_over = False

    @property
    def silence(self) -> float | None:
        """Seconds of silence that are the whole answer to a text without letter or digit; else None."""
        if not self._is_given or any(part.text for part in self._ahead):
            return None
        for part in self._parts:
            self._ahead.append(part)
            if part.text:
                return None
        return max(SILENCE, sum(part.pause_after for part in self._ahead))

    def next(self) -> Item:
        """The next bit of work. Sets `is_over` when there is none. Raises what the model raises."""
        try:
            with inference(self._model):
                return next(self._items)
        except StopIteration:
            self.is_over = True
            return None
        finally:
            teams.release()  # what is made here is spoken by other threads

    def _made(self) -> Iterator[Item]:
        number = 0
        for part in itertools.chain(self._ahead, self._parts):
            yield from part.guards
            if self._is_given and not part.text:
                yield Pause(part.pause_after)
                continue
            yield from self._of_part(number, part)
            number += 1

    def _of_part(self, number: int, part: Part) -> Iterator[Item]:
        request = self._request
        assert request.seed is not None
        seed = segment_seed(request.seed, number * PARTS_APART)
        stretch = stretch_of(request, part, self._model.spec)
        has_spoken = False
        try:
            for item in self._prompts(request_of(request, part, seed, self._model.spec)):
                has_spoken = has_spoken or isinstance(item, Prompt)
                if isinstance(item, Prompt) and item.unspoken:
                    yield GuardEvent("unspeakable", f"not in the model's vocabulary: {named(item.unspoken)}")
                yield item if not isinstance(item, Prompt) else replace(self._fitting(item), stretch=stretch)
        except Exception as error:
            left_out = unspeakable(part.text, error)
            if isinstance(error, RequestError) and not self._is_given:
                raise
            yield left_out
        if part.pause_after and has_spoken:
            yield Pause(part.pause_after)

    def _prompts(self, request: SpeechRequest) -> Iterator[Item]:
        one_by_one: Any = getattr(self._model, "each_prompt", None)
        return iter(self._model.prepare(request) if one_by_one is None else one_by_one(request))

    def _fitting(self, prompt: Prompt) -> Prompt:
        if self._most is not None and prompt.rows * prompt.positions > self._most:
            raise RequestError(
                f"a part of the text, {prompt.text[:60]!r}, needs {prompt.rows * prompt.positions} cache "
                f"positions; the memory limit leaves {self._most}. Give a shorter text, or a "
                "higher memory limit.",
                field="memory_limit",
            )
        return prompt


class Deadline:
    """The end of a request's time, if it has one."""

    def __init__(self, request: SpeechRequest, began: float) -> None:
        self.seconds = request.deadline
        self.at = None if request.deadline is None else began + request.deadline

    def has_passed(self) -> bool:
        """True from then on."""
        return self.at is not None and time.monotonic() > self.at

    def error(self, made: float) -> DeadlineError:
        """What the request then ends with; `made` is how many seconds of speech there are."""
        return DeadlineError(
            f"the request was not finished within its {self.seconds:g} s; {made:.1f} s of speech were made. "
            "Allow more time, or send less text."
        )


def first_items(source: Source, deadline: Deadline) -> list[Item]:
    """Everything up to the first prompt. Raises RequestError when the text is over without one."""
    items: list[Item] = []
    while not source.is_over:
        if deadline.has_passed():
            raise deadline.error(0.0)
        item = source.next()
        if item is not None:
            items.append(item)
        if isinstance(item, Prompt):
            return items
    failed = [item for item in items if isinstance(item, Unspeakable)]
    if len(failed) == 1 and isinstance(failed[0].error, SonantError):
        raise failed[0].error
    if failed:
        raise RequestError(
            f"nothing of the text can be spoken. {failed[0].message} "
            f"(and {len(failed) - 1} more). Give a text with words in it.",
            field="text",
        ) from failed[0].error
    raise RequestError("nothing in the text can be spoken. Give a text with words in it.", field="text")


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the thread found for one asker."""

    asker: Any
    items: tuple[Item, ...]
    is_over: bool
    error: BaseException | None = None


class PreparingThread:
    """Makes the next prompt of whoever asks, in the order of asking, and posts it. `fell` is called with what
    ends the thread, where that is not `close`."""

    def __init__(self, post: Callable[[Prepared], None], fell: Callable[[BaseException], None]) -> None:
        self._queue: queue.SimpleQueue[tuple[Any, Source, Callable[[], bool]] | None] = queue.SimpleQueue()
        self._post = post
        self._fell = fell
        self.thread = threading.Thread(target=self._run, name="sonant-prepare", daemon=True)
        self.thread.start()

    def ask(self, asker: Any, source: Source, is_wanted: Callable[[], bool]) -> None:
        """Post the next prompt of this source, or that there is none, or that nobody wants it any more."""
        self._queue.put((asker, source, is_wanted))

    def close(self) -> None:
        """End after what was asked; does not wait."""
        self._queue.put(None)

    def _run(self) -> None:
        try:
            while (asked := self._queue.get()) is not None:
                self._post(self._next(*asked))
        except BaseException as error:
            self._fell(error)

    def _next(self, asker: Any, source: Source, is_wanted: Callable[[], bool]) -> Prepared:
        until = time.monotonic() + PATIENCE
        items: list[Item] = []
        try:
            while is_wanted():
                item = source.next()
                if item is not None:
                    items.append(item)
                if source.is_over or isinstance(item, Prompt) or time.monotonic() > until:
                    return Prepared(asker, tuple(items), source.is_over)
        except BaseException as error:
            if not isinstance(error, SonantError):
                log.exception("the preparation of a text failed")
            return Prepared(asker, tuple(items), True, error)
        return Prepared(asker, tuple(items), True)
