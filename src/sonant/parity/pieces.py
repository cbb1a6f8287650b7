"""One signal computed in pieces of different lengths: joined, so that the same signal is compared.

A codec may decode a whole utterance at once, some frames at a time with its state kept, or chunk by chunk
with context in front of each. Occurrences of the stages from `StageTable.pieces` on are such pieces; where
two traces cut differently, the occurrences of each stage are joined along time, and context is cut away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from sonant.parity.layout import axis_names
from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Entry, Trace


def time_axis(table: StageTable, name: str, shape: tuple[int, ...]) -> int | None:
    """The axis of frames or samples of a recorded stage, by its documented shape."""
    names = axis_names(table.shape(name), shape)
    return next((index for index, letter in enumerate(names) if letter.split()[-1] in {"T", "S"}), None)


def piece_names(trace: Trace, table: StageTable) -> tuple[str, ...]:
    """Stages of the trace that may be computed in pieces, in order."""
    if not table.pieces:
        return ()
    return tuple(dict.fromkeys(e.name for e in trace.entries if table.in_pieces(e.name)))


def pieces_of(trace: Trace, name: str) -> list[Entry]:
    """Every occurrence of a stage, in order."""
    return sorted((e for e in trace.entries if e.name == name), key=lambda e: e.occurrence)


def joined(pieces: Iterable[Entry], axis: int, cuts: Iterable[int] = ()) -> Entry | None:
    """The pieces as one entry, `cuts` rows of context taken from the front of each; None of samples."""
    found = list(pieces)
    shapes = {tuple(size for index, size in enumerate(e.shape) if index != axis) for e in found}
    if any(e.sampled is not None for e in found) or len(shapes) != 1:
        return None
    leads = list(cuts) or [0] * len(found)
    parts = [
        e.stored.reshape(e.shape).narrow(axis, lead, e.shape[axis] - lead)
        for e, lead in zip(found, leads, strict=True)
    ]
    whole = torch.cat(parts, dim=axis)
    return replace(found[0], key=found[0].name, shape=tuple(whole.shape), stored=whole, hash="")


def frames_at(whole: Tensor, piece: Tensor, start: int = 0) -> int | None:
    """Where the frames [n, K] of a piece stand in [T, K], at `start` or later; else before it."""
    count = len(piece)
    places = [*range(start, len(whole) - count + 1), *range(min(start, len(whole) - count + 1) - 1, -1, -1)]
    return next((at for at in places if torch.equal(whole[at : at + count], piece)), None)


def _place(whole: Tensor, part: Tensor) -> int | None:
    """Where a part stands in the whole: at its end where it may."""
    last = len(whole) - len(part)
    return last if last >= 0 and torch.equal(whole[last:], part) else frames_at(whole, part)


def _steps(trace: Trace, table: StageTable) -> int:
    """Decoding steps, where the trace tells of them; else 0."""
    return sum(e.kind == "token" and e.name == table.token for e in trace.entries)


def _frames(entry: Entry) -> Tensor:
    return entry.stored.reshape(-1, entry.shape[-1])


def in_equal_pieces(reference: Trace, other: Trace, table: StageTable) -> tuple[Trace, Trace, str]:
    """Both traces with the stages joined that they cut differently, and a sentence about it."""
    cut = [
        [e.shape[axis] for e in pieces_of(trace, table.pieces)]
        for trace in (reference, other)
        for axis in (1,)
        if table.pieces and all(len(e.shape) == 3 for e in pieces_of(trace, table.pieces))
    ]
    if len(cut) != 2 or cut[0] == cut[1] or not cut[0] or not cut[1]:
        return reference, other, ""
    frames = [[_frames(e).long() for e in pieces_of(trace, table.pieces)] for trace in (reference, other)]
    fewest = min(frames, key=lambda parts: sum(len(p) for p in parts))
    spoken = torch.cat(fewest)
    traces, starts, counts = [], [], []
    for trace, parts in zip((reference, other), frames, strict=True):
        leads, begin = _leads(parts, spoken)
        made = _joined_trace(trace, table, parts, leads)
        traces.append(made)
        starts.append(begin)
        counts.append(sum(len(p) - lead for p, lead in zip(parts, leads, strict=True)))
    # A decoder that remembers the reference's state does not decode it again: what both have is judged. Of
    # runs of equally many steps the end is there in both, or is missing in one.
    common = min(counts)
    is_cut_short = any(begin + common < count for begin, count in zip(starts, counts, strict=True))
    if is_cut_short and _steps(reference, table) == _steps(other, table):
        if len(cut[0]) == len(cut[1]):
            return reference, other, ""
        starts, counts = [0, 0], [common, common]
    ends = [
        _cut_trace(trace, table, start, common, count)
        for trace, start, count in zip(traces, starts, counts, strict=True)
    ]
    said = " and ".join("in one piece" if len(c) == 1 else f"in {len(c)} pieces" for c in cut)
    part = f", {common} of {max(counts)} frames" if common < max(counts) else ""
    return ends[0], ends[1], f"{table.pieces} and what follows are computed {said}; compared joined{part}"


def _leads(parts: list[Tensor], spoken: Tensor) -> tuple[list[int], int]:
    """Frames of context at the front of each piece, and the frame of the joined signal where `spoken` begins.

    Pieces with context repeat the end of what came before; without it they follow each other.
    """
    plain = torch.cat(parts)
    if len(plain) == len(spoken):
        return [0] * len(parts), 0
    at = _place(plain, spoken)
    if at is not None:
        return [0] * len(parts), at
    leads, so_far = [0], parts[0]
    for part in parts[1:]:
        lead = next(
            (n for n in range(min(len(part) - 1, len(so_far)), 0, -1) if torch.equal(so_far[-n:], part[:n])),
            0,
        )
        leads.append(lead)
        so_far = torch.cat((so_far, part[lead:]))
    return leads, _place(so_far, spoken) or 0


def _joined_trace(trace: Trace, table: StageTable, parts: list[Tensor], leads: list[int]) -> Trace:
    made: dict[str, Entry] = {}
    for name in piece_names(trace, table):
        pieces = pieces_of(trace, name)
        axis = time_axis(table, name, pieces[0].shape)
        if axis is None or len(pieces) != len(parts):
            continue
        rates = [e.shape[axis] // max(len(part), 1) for e, part in zip(pieces, parts, strict=True)]
        entry = joined(pieces, axis, [lead * rate for lead, rate in zip(leads, rates, strict=True)])
        if entry is not None:
            made[name] = entry
    entries = [
        made.get(e.name, e) if e.occurrence == 0 else e
        for e in trace.entries
        if e.name not in made or e.occurrence == 0
    ]
    return Trace(tuple(entries), trace.metadata, trace.notes)


def _cut_trace(trace: Trace, table: StageTable, start: int, frames: int, whole: int) -> Trace:
    """The joined stages from frame `start` on, `frames` of them."""
    if (start, frames) == (0, whole):
        return trace
    names = set(piece_names(trace, table))
    entries = []
    for entry in trace.entries:
        axis = time_axis(table, entry.name, entry.shape) if entry.name in names else None
        if axis is not None and entry.sampled is None and entry.shape[axis] % whole == 0:
            rate = entry.shape[axis] // whole
            stored = entry.stored.reshape(entry.shape).narrow(axis, start * rate, frames * rate)
            entry = replace(entry, shape=tuple(stored.shape), stored=stored, hash="")
        entries.append(entry)
    return Trace(tuple(entries), trace.metadata, trace.notes)


class Feed:
    """Gives each piece that a run computes its own part of the reference's joined signal."""

    def __init__(self, reference: Trace, table: StageTable) -> None:
        self.table = table
        self.frames = [_frames(e).long() for e in pieces_of(reference, table.pieces)] if table.pieces else []
        self.pieces = {name: pieces_of(reference, name) for name in piece_names(reference, table)}
        self.at = 0
        self.next = 0
        self.count = 0
        self.joined: Trace | None = None
        if self.frames:
            leads, _ = _leads(self.frames, torch.cat(self.frames))
            self.joined = _joined_trace(reference, table, self.frames, leads)
            self.signal = _frames(self.joined.by_key[table.pieces]).long()

    def is_piece(self, name: str) -> bool:
        """Is `name` one of the stages that the reference computed in pieces?"""
        return name in self.pieces and self.joined is not None

    def part(self, name: str, tensor: Tensor) -> Tensor | None:
        """The reference's values for the piece that is computed now; None when it has none that fit."""
        if name == self.table.pieces:
            frames = tensor.detach().cpu().reshape(-1, tensor.shape[-1]).long()
            self.count = len(frames)
            at = frames_at(self.signal, frames, self.next) if len(frames) <= len(self.signal) else None
            # Wrong tokens stand nowhere: they take the place after the piece before.
            self.at = at if at is not None else min(self.next, max(len(self.signal) - len(frames), 0))
            self.next = self.at + self.count
        assert self.joined is not None
        entry = self.joined.by_key.get(name)
        axis = time_axis(self.table, name, entry.shape) if entry is not None else None
        if entry is None or entry.sampled is not None or axis is None:
            return None
        rate = entry.shape[axis] // max(len(self.signal), 1)
        if (self.at + self.count) * rate > entry.shape[axis]:
            value = entry.stored
        else:
            value = entry.stored.reshape(entry.shape).narrow(axis, self.at * rate, self.count * rate)
        value = value.to(tensor.device, tensor.dtype)
        return value.reshape(tensor.shape) if value.numel() == tensor.numel() else value
