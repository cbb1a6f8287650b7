"""What the engine knows of each request: the segments that wait, and those on their way to samples.

Only the engine's stepping thread reads and writes these. The other threads are handed what they need, and
post back what became of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from sonant.engine.decoding import Sound
from sonant.engine.guards import SegmentWatch
from sonant.engine.model import Array, Prompt, Unspeakable, Utterance
from sonant.engine.preparing import Deadline, Item, Pause, Source
from sonant.engine.stream import SpeechStream
from sonant.errors import SonantError
from sonant.request.speech import GuardEvent


@dataclass(eq=False)
class Segment:
    """One prompt on its way from text to samples."""

    prompt: Prompt
    index: int
    lead: float = 0.0
    """Seconds of silence before it."""
    pause: float = 0.0
    """Seconds of silence after it; certain once `is_settled`."""
    is_last: bool = False
    is_settled: bool = False
    """True once it is known what follows. Its last samples wait for that."""
    utterance: Utterance | None = None
    sound: Sound | None = None
    pending: list[Array] = field(default_factory=list)
    """Tokens not handed to the decoder yet."""
    given: list[Array] = field(default_factory=list)
    """Tokens handed to the decoder of a sound that is held."""
    is_complete: bool = False
    """True once its last token was made."""
    is_handed_over: bool = False
    """True once its last token was handed to the decoder."""
    frames: int = 0
    """Frames that were kept."""
    again: int = 0
    """Frames that its utterance has given; one that is begun again first gives those that were kept."""
    taken: int = 0
    """Steps that were taken, those of an utterance that is begun again counted once."""
    is_alone: bool = False
    """True after a step of a batch that it was in failed: it is stepped by itself from then on."""
    decodes: int = 0
    handed_over: int = 0
    """Frames given to the decoder."""
    decoded: int = 0
    """Frames of these that are samples now."""
    watch: SegmentWatch | None = None
    first_seed: int = 0
    """The seed that it was prepared with."""
    tries: int = 0
    """How often it was spoken again because it had got stuck."""
    since: float = 0.0
    """When it began to wait for a row, on the monotonic clock."""
    passed: int = 0
    """How often another was given a row while this one waited."""
    overtaken: int = 0
    """How often another was begun although this one's turn had come, because it did not fit."""

    def was_heard(self) -> bool:
        """Whether some of it may have been delivered."""
        return self.decodes > 0 and (self.sound is None or not self.sound.is_held)

    def drop_sound(self) -> None:
        """Have nothing of what was decoded so far; its tokens are pending again."""
        if self.sound is not None:
            self.sound.is_dropped = True
        self.sound = None
        self.pending, self.given = self.given + self.pending, []
        self.decodes = self.handed_over = self.decoded = 0

    def begin_again(self, prompt: Prompt) -> None:
        """Forget all that was made of it; `prompt` is spoken in its place."""
        self.drop_sound()
        self.prompt, self.watch = prompt, None
        self.pending, self.frames, self.taken = [], 0, 0

    def skip(self, frames: int) -> bool:
        """Drop the first frames; False where some of the segment was handed over already."""
        if self.handed_over:
            return False
        while frames > 0 and self.pending:
            first = self.pending.pop(0)
            if len(first) > frames:
                self.pending.insert(0, first[frames:])
            frames -= len(first)
        return True

    def trim(self, good: int) -> None:
        """Drop what was made after the first `good` frames, as far as it was not handed over."""
        surplus = self.frames - good
        while surplus > 0 and self.pending:
            last = self.pending.pop()
            if len(last) > surplus:
                self.pending.append(last[: len(last) - surplus])
            dropped = min(surplus, len(last))
            surplus, self.frames = surplus - dropped, self.frames - dropped


@dataclass(eq=False)
class Progress:
    """One request under way."""

    stream: SpeechStream
    source: Source
    deadline: Deadline
    client: Hashable
    priority: int = 0
    lead: float = 0.0
    """Seconds of silence before the next segment prepared."""
    waiting: deque[Segment] = field(default_factory=deque)
    """Prepared, not begun."""
    running: list[Segment] = field(default_factory=list)
    """Begun, and not wholly decoded."""
    newest: Segment | None = None
    """The last one prepared."""
    is_asked: bool = True
    """True while the preparing thread has been asked for the next segment."""
    is_whole: bool = False
    """True once there is no more text to prepare."""
    failure: SonantError | None = None
    """What stopped the preparation; raised when all that came before it was spoken."""

    @property
    def is_generating(self) -> bool:
        """True while one of its segments takes steps."""
        return any(segment.utterance is not None for segment in self.running)

    @property
    def is_fresh(self) -> bool:
        """True before its first segment was begun."""
        return bool(self.waiting) and self.waiting[0].index == 0 and not self.waiting[0].taken

    def take(self, items: Iterable[Item]) -> None:
        """What was prepared takes its place behind what was before."""
        for item in items:
            index = len(self.stream._texts)
            if isinstance(item, Prompt):
                if self.newest is not None:
                    self.newest.is_settled = True
                segment = Segment(item, index, lead=self.lead, pause=item.pause_after)
                segment.since, segment.first_seed = time.monotonic(), item.seed
                self.lead, self.newest = 0.0, segment
                self.waiting.append(segment)
                self.stream._texts.append(item.text)
            elif isinstance(item, Pause):
                if self.newest is None:
                    self.lead += item.seconds
                else:
                    self.newest.pause += item.seconds
            elif isinstance(item, GuardEvent):
                self.stream._note(item.kind, item.message, index)
            elif isinstance(item, Unspeakable):
                self.stream._note("unspeakable", item.message, index)
