"""How much memory a model needs, told before it is loaded, and what fits below a limit.

Estimates count what a process holds in memory of its own or has read from mapped files: weights as the
chosen precision keeps them, the caches of utterances of ordinary length, and what decoding works with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sonant.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a model adds to a process, in bytes; on an accelerator, to its memory."""

    weights: int
    """After loading; pages of mapped files that no step reads do not count."""
    loading: int
    """What loading needs on top of them for a while."""
    working: int
    """Activations, and libraries that are imported when they are first used."""
    utterance: int = 0
    """What each running utterance holds beside its cache."""
    position: int = 0
    """One position of one cache row."""
    positions: int = 0
    """Cache positions of an utterance of ordinary length, all of its rows together."""
    stream: int = 0
    """What a streamed utterance holds besides where there is room, so as not to compute its past again."""
    voices: int = 0
    """What is then held of voices for their next streams, all together."""

    def past(self, slots: int) -> int:
        """Bytes that `slots` streams and their voices hold where they keep their past."""
        return slots * self.stream + self.voices

    def needed(self, slots: int, *, keeps_past: bool = False) -> int:
        """Bytes for `slots` utterances of ordinary length at a time; with their past if all are streamed."""
        speaking = self.working + slots * (self.utterance + self.positions * self.position)
        return self.weights + max(self.loading, speaking + keeps_past * self.past(slots))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to load a model: the numbers it is kept in, and what that takes."""

    dtype: str
    precision: str
    """ "full" where the dtype alone decides."""
    footprint: Footprint

    @property
    def name(self) -> str:
        """The precision, or the dtype where it alone decides."""
        return self.dtype if self.precision == "full" else self.precision


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is loaded below a limit."""

    dtype: str
    precision: str
    slots: int
    needed: int
    """Bytes of the model and its utterances, without what the process has already."""
    cache_positions: int | None
    """Cache positions for which there is room, all rows together; None for a model without such caches."""
    ordinary_positions: int | None
    """Those of them that `needed` counts."""
    keeps_past: bool = True
    """False where there is no room for what streams keep of their past: they compute it again."""
    remarks: tuple[str, ...] = ()
    """What was made smaller to fit, for the user."""

    @property
    def load_options(self) -> dict[str, Any]:
        """What `registry.load` takes instead of the limit, beside dtype, precision and slots."""
        return {"cache_positions": self.cache_positions, "keeps_past": self.keeps_past}

    def words(self, dtype: str, precision: str) -> tuple[str, str]:
        """The dtype and the precision that a job says, which are these without the limit. What did not give
        way keeps its word: a limit that is wide enough changes no key."""
        return (
            dtype if self.dtype == "float32" else self.dtype,
            precision if self.precision == "full" else self.precision,
        )


def choose(
    model: str, candidates: Sequence[Candidate], *, slots: int, limit: int, taken: int, hint: str
) -> Plan:
    """The first candidate that fits `limit` bytes with at least one slot, and as many slots as fit.

    `taken` is what the process has already. Raises RequestError when nothing fits: `hint` says what to do.
    """
    room = limit - taken
    for index, candidate in enumerate(candidates):
        footprint = candidate.footprint
        fitting = next((n for n in range(slots, 0, -1) if footprint.needed(n) <= room), 0)
        if not fitting:
            continue
        remarks = []
        if index:
            remarks.append(
                f"{model} does not fit {show(limit)} in {candidates[0].name} (about "
                f"{show(taken + candidates[0].footprint.needed(1))}); it is loaded in {candidate.name}, "
                f"about {show(taken + footprint.needed(fitting))}"
            )
        if fitting < slots:
            remarks.append(f"{show(limit)} has room for {fitting} of {slots} utterances of {model} at a time")
        keeps_past = footprint.needed(fitting, keeps_past=True) <= room
        if not keeps_past:
            remarks.append(
                f"{show(limit)} has no room for what streams of {model} keep of their past, "
                f"{show(footprint.stream)} each; they compute it again, which takes about twice the time"
            )
        needed = footprint.needed(fitting, keeps_past=keeps_past)
        held = fitting * footprint.utterance + keeps_past * footprint.past(fitting)
        spare = room - footprint.weights - footprint.working - held
        return Plan(
            dtype=candidate.dtype,
            precision=candidate.precision,
            slots=fitting,
            needed=needed,
            cache_positions=spare // footprint.position if footprint.position else None,
            ordinary_positions=fitting * footprint.positions if footprint.position else None,
            keeps_past=keeps_past,
            remarks=tuple(remarks),
        )
    least = min(candidates, key=lambda candidate: candidate.footprint.needed(1))
    raise RequestError(
        f"{model} needs about {show(taken + least.footprint.needed(1))} in {least.name} for one utterance "
        f"at a time, {show(taken)} of it for what this process has in memory already; the memory limit is "
        f"{show(limit)}. {hint}",
        field="memory_limit",
    )


def parse_size(size: int | str) -> int:
    """Bytes of "6GB", "4.5GiB", "800M" or a plain number. GB is 10^9 bytes, GiB is 2^30.

    Raises RequestError.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(size), re.IGNORECASE)
    count = int(float(match[1]) * UNITS[(match[2] or "").lower()]) if match else 0
    if count <= 0:
        raise RequestError(
            f"{size!r} is no amount of memory; expected a number with a unit, such as 6GB, 4.5GiB or 800MB. "
            "Give the most that Sonant may use.",
            field="memory_limit",
        )
    return count


def show(count: int) -> str:
    """Bytes in words: "2.3 GB"; few of them to the byte. Below zero as above."""
    if abs(count) < 5e5:
        return f"{count:,} byte{'' if abs(count) == 1 else 's'}"
    megabytes = round(count / 1e6)
    return f"{megabytes} MB" if abs(megabytes) < 1000 else f"{count / 1e9:.1f} GB"


def resident_bytes() -> int:
    """Memory of this process in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def machine_bytes() -> int | None:
    """Memory of this machine in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def bytes_in(tensors: Mapping[str, Tensor], itemsize: int, *, ignored: Sequence[str] = ()) -> int:
    """Bytes of the tensors when every number takes `itemsize`; keys that match `ignored` do not count."""
    return sum(
        tensor.numel() * itemsize
        for key, tensor in tensors.items()
        if not any(re.search(pattern, key) for pattern in ignored)
    )
