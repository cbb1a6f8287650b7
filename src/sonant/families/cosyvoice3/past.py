"""What a stream remembers of the frames it has solved, so that none is solved twice.

Under the streaming mask a frame sees its own chunk and earlier ones. What the network made of earlier frames
at each step of the solver therefore never changes: the keys and values of every block are kept, and of the
position convolutions the inputs that they look back on. The prompt's chunks stay, of what follows the last
`window` frames: a ring, written over from its start.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sonant.families.cosyvoice3.config import TransformerConfig

ROWS = 2  # with and without the conditions
LONGEST = 4
"""Chunks that are solved together at most: the original's largest hop."""


@dataclass(frozen=True, kw_only=True)
class PastSize:
    """How much is kept: frames of the prompt and after it, each of them rounded up to chunks."""

    config: TransformerConfig
    steps: int
    prompt: int
    window: int

    @property
    def pinned(self) -> int:
        """Frames that are never forgotten."""
        return self._in_chunks(self.prompt)

    @property
    def ring(self) -> int:
        """Frames after those: the window and what is being solved."""
        return self._in_chunks(self.window) + self.longest

    @property
    def longest(self) -> int:
        """Frames that are solved together at most."""
        return LONGEST * self.config.static_chunk_size

    def parts(self, frames: Tensor) -> list[Tensor]:
        """Frames [n] in pieces that can be solved together."""
        return [frames[start : start + self.longest] for start in range(0, len(frames), self.longest)]

    def bytes(self, itemsize: int) -> int:
        """Memory of the keys and values, all frames taken; the convolutions' part is below a hundredth."""
        frame = self.steps * self.config.depth * 2 * ROWS * self.config.heads * self.config.dim_head
        return frame * (self.pinned + self.ring) * itemsize

    def _in_chunks(self, frames: int) -> int:
        return frames + -frames % self.config.static_chunk_size


@dataclass(frozen=True, eq=False)
class BlockPast:
    """Keys and values [2, B, N, D] of one block at one step; `slots` [n] are those of the new frames."""

    kept: Tensor
    slots: Tensor
    used: int

    def join(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep key and value [B, n, D] of new frames; all there are [B, N, D], in the queries' type."""
        for kept, new in zip(self.kept, (key, value), strict=True):
            kept.index_copy_(1, self.slots, new.to(kept.dtype))
        keys, values = self.kept[:, :, : self.used].to(key.dtype)
        return keys, values


@dataclass(frozen=True, eq=False)
class StepPast:
    """What is kept of one step of the solver, and `mask` [n, N] of what new frames may see (None: all)."""

    kept: Tensor
    convolved: list[Tensor | None]
    """What each position convolution looks back on, [B, D, 30]; replaced by the step."""
    slots: Tensor
    used: int
    mask: Tensor | None

    def block(self, index: int) -> BlockPast:
        """The part of one block."""
        return BlockPast(self.kept[index], self.slots, self.used)


@dataclass(frozen=True, eq=False)
class PromptPast:
    """What a stream keeps of its prompt's frames, apart from the stream."""

    kept: Tensor
    convolved: tuple[tuple[Tensor | None, ...], ...]


class KeptPrompts:
    """The prompts of the voices that streamed last, by all that went into them, in at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[bytes, PromptPast] = OrderedDict()

    def find(self, key: bytes) -> PromptPast | None:
        """What was kept under this key, now the last to be dropped."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
        return found

    def keep(self, key: bytes, prompt: PromptPast) -> None:
        """Keep a prompt that fits, and drop the ones used longest ago for it."""
        if prompt.kept.nbytes > self._most:
            return
        self._kept[key] = prompt
        while sum(other.kept.nbytes for other in list(self._kept.values())) > self._most:
            self._kept.popitem(last=False)


@dataclass(eq=False)
class FlowPast:
    """The past of one stream, changed in place by each solve; after one that failed it is of no use.

    Memory is taken at once, but on a CPU a page only counts once it is written.
    """

    size: PastSize
    dtype: torch.dtype
    device: torch.device
    frames: int = 0
    """Frames solved so far."""
    _mask: Tensor | None = None
    _convolved: list[list[Tensor | None]] = field(init=False)
    _kept: Tensor = field(init=False)
    _positions: Tensor = field(init=False)
    _slots: Tensor = field(init=False)

    def __post_init__(self) -> None:
        size, config = self.size, self.size.config
        count, width = size.pinned + size.ring, config.heads * config.dim_head
        self._kept = torch.empty(
            size.steps, config.depth, 2, ROWS, count, width, dtype=self.dtype, device=self.device
        )
        self._convolved = [[None, None] for _ in range(size.steps)]
        self._positions = torch.full((count,), -1, device=self.device)
        self._slots = self._positions[:0]

    def begin(self, positions: Tensor) -> None:
        """Make room for frames [n] that follow those solved, at most `size.longest`, ending with a chunk."""
        size, chunk = self.size, self.size.config.static_chunk_size
        assert self.frames % chunk == 0, "frames after an unfinished chunk would have been seen by it"
        assert len(positions) <= size.longest
        ringed = size.pinned + (positions - size.pinned) % size.ring
        self._slots = torch.where(positions < size.pinned, positions, ringed)
        self._positions[self._slots] = positions
        self.frames += len(positions)
        self._mask = visible(positions, self._positions[: self.used], chunk, size)

    @property
    def used(self) -> int:
        """Slots that hold something."""
        return min(self.frames, len(self._positions))

    def copy(self) -> PromptPast:
        """All that was kept so far, which must be of the prompt."""
        assert self.frames <= self.size.pinned
        convolved = tuple(tuple(pair) for pair in self._convolved)
        return PromptPast(self._kept[..., : self.frames, :].clone(), convolved)

    def restore(self, prompt: PromptPast) -> None:
        """Begin with what another stream kept of the same prompt."""
        assert not self.frames
        self.frames = prompt.kept.shape[-2]
        self._kept[..., : self.frames, :] = prompt.kept
        self._convolved = [list(pair) for pair in prompt.convolved]
        self._positions[: self.frames] = torch.arange(self.frames, device=self.device)

    def step(self, index: int) -> StepPast:
        """What is kept of one step."""
        return StepPast(self._kept[index], self._convolved[index], self._slots, self.used, self._mask)


def visible(queries: Tensor, keys: Tensor, chunk: int, size: PastSize) -> Tensor | None:
    """[n, N], True where a query's frame may see a key's; None where each may see all."""
    begin = (queries // chunk * chunk)[:, None]
    is_kept = (keys < size.pinned) | (keys >= begin - (size.ring - size.longest))
    mask = (keys < begin + chunk) & is_kept
    return None if bool(mask.all()) else mask
