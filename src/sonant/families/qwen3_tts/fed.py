"""Text that arrives while it is spoken: the progressive layout takes one text token with each frame.

    text -> words that no later letter can change -> token ids -> vectors, one for each frame to come

The prefill waits for the tokens that it takes itself (one; of a voice continued in context, those that its
reference frames have room for), a frame for its own. So whatever the pieces and pauses in which the text
arrives, the codes are those of the whole text given at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sonant.families.qwen3_tts.prompt import TalkerInputs
from sonant.request.speech import TextFeed
from sonant.text.tokenizer import BytePairTokenizer

MAX_FED_FRAMES = 1_500
"""Two minutes: what one feed may give, which bounds its rows of the cache."""
IDLE_SECONDS = 0.02


@dataclass(frozen=True, eq=False)
class FedInputs:
    """A prompt whose text is still to come."""

    feed: TextFeed
    tokenizer: BytePairTokenizer
    build: Callable[[Sequence[int]], TalkerInputs]
    """The prompt of these text tokens, wrapped by it."""
    embed: Callable[[Sequence[int]], Tensor]
    """Vectors [N, D] of text tokens."""
    needed: int
    """Text tokens that the prefill takes."""
    ceiling: Callable[[int], int]
    """Most frames of so many text tokens."""
    reference: Tensor | None
    in_chunks: bool = False


@dataclass(eq=False)
class Fed:
    """How far one utterance is with its text."""

    inputs: FedInputs
    words: list[int] = field(default_factory=list)
    pending: str = ""
    is_closed: bool = False
    known: TalkerInputs | None = None
    """None before the prefill."""
    vectors: Tensor | None = None
    """[N, D] for the first N frames; the end of the text among them once it is known."""

    def take(self) -> None:
        """Take the text there is, as far as no later letter can change its tokens."""
        text, is_over = self.inputs.feed.take()
        self.pending += text
        if not self.words:
            self.pending = self.pending.lstrip()
        if self.is_closed:
            return
        end = len(self.pending) if is_over else complete(self.pending)
        ready = self.pending[:end].rstrip() if is_over else self.pending[:end]
        self.pending = self.pending[end:]
        new = self.inputs.tokenizer.encode(ready, markers=False) if ready else []
        self.words += new
        self.is_closed = is_over
        if self.known is not None:
            self._extend(new)

    @property
    def is_over(self) -> bool:
        """True when there never was anything to say."""
        return self.is_closed and not self.words

    @property
    def can_begin(self) -> bool:
        """Whether the prompt is known."""
        return bool(self.words) and (self.is_closed or len(self.words) >= self.inputs.needed)

    def begin(self) -> Tensor:
        """The prompt's vectors [T, D]."""
        self.known = self.inputs.build(self.words)
        # The end of the text stands last, and is not the end before the feed says so.
        self.vectors = self.known.trailing if self.is_closed else self.known.trailing[:-1]
        return self.known.embeds

    def has(self, frame: int) -> bool:
        """Whether what goes with this frame is known."""
        assert self.vectors is not None
        return self.is_closed or frame < len(self.vectors)

    def vector(self, frame: int) -> Tensor:
        """What is added to this frame, [D]."""
        assert self.vectors is not None
        assert self.known is not None
        return self.vectors[frame] if frame < len(self.vectors) else self.known.filler

    def _extend(self, new: Sequence[int]) -> None:
        assert self.vectors is not None
        parts = [self.vectors]
        if new:
            parts.append(self.inputs.embed(new))
        if self.is_closed:
            assert self.known is not None
            parts.append(self.known.trailing[-1:])
        self.vectors = torch.cat(parts)


def complete(text: str) -> int:
    """Characters whose tokens cannot change: up to the last end of a run of letters.

    The tokenizer cuts there before it merges anything, whatever comes after.
    """
    for end in range(len(text) - 1, 0, -1):
        after = text[end]
        if (
            text[end - 1].isalpha()
            and not after.isalpha()
            and not unicodedata.category(after).startswith("M")
        ):
            return end
    return 0
