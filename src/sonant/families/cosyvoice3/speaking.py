"""What an utterance remembers while it is spoken: ids and scores, and its text where that still arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from torch import Tensor

from sonant.families.cosyvoice3.sampler import Pick, SilenceFilter
from sonant.request.speech import TextFeed
from sonant.text.tokenizer import BytePairTokenizer

LONGEST_WORD = 60
"""Characters after which text is taken although no word has ended."""


class Stage(Enum):
    """What an utterance does next."""

    PROMPT = "pairs the prompt's text and speech"
    WAITING = "needs five more text tokens"
    SPEAKING = "speaks until it wants text"
    LAST = "has all the text and speaks to the end"


@dataclass(kw_only=True, eq=False)
class Feeding:
    """The text side of one utterance. `ready` are embeddings [n, D] that the model has not seen yet."""

    feed: TextFeed
    tokenizer: BytePairTokenizer
    ready: list[Tensor]
    text: list[int]
    """Text tokens not used yet, the prompt's first."""
    prompt_speech: list[int]
    room: int
    """Positions left in the cache."""
    stage: Stage = Stage.PROMPT
    next_fill: int = 0
    letters: str = ""
    is_closed: bool = False
    fed: int = 0
    """Text tokens that arrived."""
    is_overfull: bool = False

    def take(self) -> None:
        """Tokens of whatever has arrived, cut where a word has ended, so that cuts do not change tokens."""
        if self.is_closed:
            return
        text, self.is_closed = self.feed.take()
        self.letters += text
        end = len(self.letters) if self.is_closed else word_end(self.letters)
        whole, self.letters = self.letters[:end], self.letters[end:]
        found = self.tokenizer.encode(whole)
        self.fed += len(found)
        self.text += found


def word_end(text: str) -> int:
    """Where a text that goes on can be cut without changing its tokens: before what follows a letter."""
    for index in range(len(text) - 1, 0, -1):
        if text[index - 1].isalpha() and not text[index].isalnum() and text[index] not in "'’":
            return index
    return len(text) if len(text) > LONGEST_WORD else 0


@dataclass(kw_only=True, eq=False)
class TokenState:
    """What one utterance remembers: every id the model gave, and its scores for the next one."""

    pick: Pick
    minimum: int
    history: list[int] = field(default_factory=list)
    logits: Tensor | None = None
    """Scores [V] for the next id, when they are there already (after the prefill)."""
    seen: Tensor | None = None
    """Scores [V] that the last id was chosen from."""
    silence: SilenceFilter = field(default_factory=SilenceFilter)
    feeding: Feeding | None = None
    """The text side of an utterance whose text arrives while it speaks."""
