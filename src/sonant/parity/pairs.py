"""How two runs stand to each other: of one program or not, with the same draws, to the same end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sonant.parity.stages.table import StageTable
from sonant.parity.trace import Trace

SAME = ("made_by", "versions", "threads", "arithmetic", "device", "dtype", "fingerprint")
"""What two runs must have in common to be expected equal bit for bit."""


def are_twins(reference: Trace, other: Trace) -> bool:
    """Are these runs of one program on one kind of processor, which are equal bit for bit?"""
    a, b = reference.metadata, other.metadata
    if not a.get("arithmetic") or reference.is_foreign or other.is_foreign:
        return False
    request = [{**m.get("request", {}), "seed": None} for m in (a, b)]
    is_asked_alike = request[0] == request[1]
    return is_asked_alike and all(a.get(name) == b.get(name) for name in SAME)


@dataclass(frozen=True)
class End:
    """A segment in which one of the runs takes fewer decoding steps: `after` tokens both have."""

    key: str
    segment: str
    after: int
    is_early: bool
    words: str


def ends_of(reference: Trace, other: Trace, table: StageTable) -> list[End]:
    """Where only one of the runs goes on decoding; empty when both take as many steps."""
    if not table.token:
        return []
    counts = [Counter(e.name for e in t.entries) for t in (reference, other)]
    found = []
    for name in counts[0]:
        of, done = counts[0][name], counts[1][name]
        segment = name.removesuffix(table.token)
        if not name.endswith(table.token) or table.pattern_of(name) != table.token or of == done or not done:
            continue
        steps = [count[segment + table.frame] for count in counts]
        if steps[0] == steps[1] or not steps[1]:
            steps = [of, done]
        where = f" in {segment.rstrip('.')}" if segment else ""
        if done < of:
            words = f"it ended early{where}, at step {steps[1]} of {steps[0]}; all before it agrees"
        else:
            words = (
                f"it went on{where} after step {steps[0]}, where the reference ended ({steps[1]} steps); "
                "all before it agrees"
            )
        found.append(End(f"{name}@{min(done, of)}", segment, min(done, of), done < of, words))
    return found


def draw_partners(reference: Trace, other: Trace) -> tuple[dict[str, str], set[int]]:
    """Each draw of the reference with the other's: the same one since the same choice, of the same kind.

    Also the choices before which the two drew another number of times.
    """

    def places(trace: Trace) -> dict[tuple[int, str, int], str]:
        made: dict[tuple[int, str, int], str] = {}
        tokens, counts = 0, Counter[str]()
        for entry in trace.entries:
            if entry.kind == "token":
                tokens += 1
                counts.clear()
            elif entry.kind == "draw":
                made[tokens, entry.name, counts[entry.name]] = entry.key
                counts[entry.name] += 1
        return made

    ours, theirs = places(reference), places(other)
    uneven = {place[0] for place in ours.keys() ^ theirs.keys()} if ours and theirs else set()
    return {key: theirs[place] for place, key in ours.items() if place in theirs}, uneven
