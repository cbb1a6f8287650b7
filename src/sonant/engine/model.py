"""The contract of a family: what the engine asks of a speech model, and nothing more.

    SpeechRequest + Voice --prepare--> Prompt --start--> Utterance --step, step, ...--> tokens
        tokens --AudioDecoder.push / finish--> waveform

Laws, held for every family by tests/laws.py:
1. `push` of any split of the tokens, then `finish`, gives the same samples for a fixed `streaming`.
2. `step` on n utterances gives the same tokens as n separate runs with the same seeds.
3. Nothing an utterance does changes another, or the model. Dropping it frees its slots.
4. Same request, seed, device and dtype: same samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

from sonant.errors import RequestError, SonantError
from sonant.request.audio import Audio, Samples
from sonant.request.speech import ModelSpec, Sampling, SpeechRequest
from sonant.request.voice import Voice

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger(__name__)

Made = TypeVar("Made")

Array: TypeAlias = Any
"""Tokens or samples: torch's, or numpy's of a model that says `uses_torch = False`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One segment of text, ready for prefill.

    `inputs` is the family's own frozen record of tensors; the engine never looks inside.
    `ceiling` is the largest number of steps this segment may take, derived from its text: reaching it
    is reported as a guard event. `seed` feeds the utterance's generators (see `sampling.generator`).
    """

    text: str
    sampling: Sampling
    seed: int
    ceiling: int
    inputs: Any
    pause_after: float = 0.0
    """Seconds of silence that the engine adds after this segment."""
    rows: int = 1
    """Cache rows the utterance takes (the beam width)."""
    unspoken: tuple[str, ...] = ()
    """Pieces of the text that the model's vocabulary lacks, which it may not speak; the user is told."""
    reference: Tensor | None = None
    """Tokens [N, K] of the reference clip, as the model emits them, where it is to go on from them: speech
    that begins with them is an echo."""
    stretch: float = 1.0
    """How many times faster than it is made the segment is played; set by the engine, not by families."""
    positions: int = 0
    """Cache positions this segment may need in all, prompt and steps: what `allocate` must hold."""


@dataclass(frozen=True, eq=False)
class Unspeakable:
    """A stretch of text that cannot be spoken, and why; the rest of the request goes on without it."""

    text: str
    error: Exception

    @property
    def message(self) -> str:
        """One sentence for the user."""
        return f"{self.text.strip()[:60]!r} was left out: {self.error}"


@dataclass(kw_only=True, eq=False)
class Utterance:
    """A prompt being spoken: its cache rows, its generator and the family's own state."""

    prompt: Prompt
    slots: tuple[int, ...]
    generator: Any = None
    """The torch.Generator of a model that draws."""
    state: Any = None
    steps: int = 0
    is_finished: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """What one step gave one utterance: tokens [n, K] (n may be 0), and whether it ended."""

    tokens: Array
    is_final: bool
    at_ceiling: bool = False
    """True when the ceiling ended it instead of the model's own end token."""
    notes: tuple[str, ...] = field(default=())
    """Other things worth telling the user, one sentence each."""


@dataclass(frozen=True)
class Ending:
    """How near the end token is: its rank among all (0 is the likeliest) and its probability, unfiltered."""

    rank: int
    probability: float


class AudioDecoder(Protocol):
    """Streaming state of tokens -> waveform for one utterance."""

    def push(self, tokens: Array) -> Array:
        """Samples [S] (S may be 0) that became certain with these tokens [n, K]."""
        ...

    def finish(self) -> Array:
        """What is left, [S]. Nothing may be pushed afterwards."""
        ...


class SpeechModel(Protocol):
    """One loaded checkpoint of one family.

    What a model may have beyond this: `units(text)` (the tokens or phonemes of a text, for people to see),
    `each_prompt(request)` (what `prepare` gives, one at a time, an
    `Unspeakable` for a sentence that cannot be said, None where a bit of the work gave nothing),
    `tokens_are_speech` (False where repeated tokens are no fault), `uses_torch` (False where tokens and
    samples are numpy's: then nothing here loads torch, which takes longer than speaking a sentence),
    `ending(utterance)` (an `Ending` from the scores of its last or its next choice; None where there are
    none),
    `ignores_threads` (steps sum alike on any number of threads), `least_positions` (cache positions to make
    room for from the start), `grow(positions)` (longer rows, with what is in them; False where they cannot
    be), `keeps_past` (whether streams keep what they would else compute again; set to False where memory is
    short) with `past_bytes(slots)`, `warm_up()` (after `allocate`: record whatever a device replays, so that
    no request waits for it).
    """

    spec: ModelSpec

    def encode_voice(self, audio: Audio, transcript: str | None) -> Voice:
        """The reference as tensors this model can speak with. Raises UnsupportedError.

        Whether the clip will do has been asked before: `Casting.encode`.
        """
        ...

    def prepare(self, request: SpeechRequest) -> list[Prompt]:
        """One prompt for each segment of the text; no autoregression. Raises RequestError."""
        ...

    def allocate(self, slots: int, positions: int) -> None:
        """Make room for `slots` cache rows of `positions`; called when nothing is running."""
        ...

    def start(self, prompt: Prompt, slots: Sequence[int]) -> Utterance:
        """Prefill: the utterance, ready for its first step."""
        ...

    def step(self, utterances: Sequence[Utterance]) -> list[Step]:
        """One autoregressive step for each of the utterances, in the same order."""
        ...

    def decoder(self, prompt: Prompt, *, streaming: bool) -> AudioDecoder:
        """A fresh decoder for the tokens of this prompt's utterance."""
        ...


def inference(model: object) -> AbstractContextManager[object]:
    """Torch without gradients; nothing for a model that does without torch."""
    if not getattr(model, "uses_torch", True):
        return nullcontext()
    import torch

    return torch.inference_mode()


def joined(tokens: Sequence[Array]) -> Array:
    """Pieces of tokens as one, of the same kind."""
    if isinstance(tokens[0], np.ndarray):
        return np.concatenate(tokens)
    import torch

    return torch.cat(tuple(tokens))


def as_samples(made: Array) -> Samples:
    """What a decoder made, [S], as numpy's float32."""
    if isinstance(made, np.ndarray):
        return made.astype(np.float32, copy=False)
    return made.detach().float().cpu().numpy()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the device's included: torch's own error is no MemoryError."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_interrupt(error: BaseException | None) -> bool:
    """Whether it comes of Ctrl-C: an extension that is just being loaded makes an ImportError of it, and who
    loads it may make "not installed" of that."""
    while error is not None and not isinstance(error.__cause__, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def unspeakable(text: str, error: Exception) -> Unspeakable:
    """That a text cannot be spoken, made of the error that its preparation raised.

    An error that is not of the text (a setting, a voice, memory) is raised: it would be that of every other
    sentence as well. So is Ctrl-C.
    """
    if is_interrupt(error):
        raise KeyboardInterrupt from error
    if not (isinstance(error, RequestError) and error.field in (None, "text")):
        if isinstance(error, SonantError) or is_out_of_memory(error):
            raise error
        log.error("a text of %d characters could not be prepared", len(text), exc_info=error)
    return Unspeakable(text, error)


def attempt(text: str, make: Callable[[], Made]) -> Made | Unspeakable:
    """What `make` gives, or that this text cannot be spoken. Raises what `unspeakable` does."""
    try:
        return make()
    except Exception as error:
        return unspeakable(text, error)


def every_prompt(items: Iterable[Prompt | Unspeakable | None]) -> list[Prompt]:
    """All prompts of `each_prompt`, for `prepare`. Raises the error of a sentence that cannot be spoken."""
    made: list[Prompt] = []
    for item in items:
        if isinstance(item, Unspeakable):
            raise item.error
        if item is not None:
            made.append(item)
    return made
