"""Several tries of one port against one reference, and the loop of writing, running and looking again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sonant.errors import RequestError
from sonant.parity.verdicts import Comparison

CLOSER = 2.0
"""A difference counts as better or worse from this factor on."""
MOST = 5


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one try made of another: documented keys, the worst first."""

    mended: tuple[str, ...]
    broken: tuple[str, ...]
    closer: tuple[str, ...]
    farther: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """Sentences for the terminal; one that says so when nothing changed."""
        said = False
        for words, keys in (
            ("mended", self.mended),
            ("broken", self.broken),
            ("closer", self.closer),
            ("farther", self.farther),
            ("new", self.new),
            ("no longer there", self.gone),
        ):
            if keys:
                said = True
                more = f" and {len(keys) - MOST} more" if len(keys) > MOST else ""
                yield f"{words}: {', '.join(keys[:MOST])}{more}"
        if not said:
            yield "nothing changed"


def change(before: Comparison, after: Comparison) -> Change:
    """What got better and what got worse from one comparison with a reference to the next."""
    old = {stage.key: stage for stage in before.stages}
    new = {stage.key: stage for stage in after.stages}
    common = [key for key in new if key in old]
    over = {key: (old[key].distance.over, new[key].distance.over) for key in common}
    return Change(
        mended=tuple(k for k in common if old[k].is_wrong and not new[k].is_wrong),
        broken=tuple(k for k in common if new[k].is_wrong and not old[k].is_wrong),
        closer=tuple(
            k for k in common if new[k].is_wrong and old[k].is_wrong and over[k][0] > CLOSER * over[k][1]
        ),
        farther=tuple(
            k for k in common if new[k].is_wrong and old[k].is_wrong and over[k][1] > CLOSER * over[k][0]
        ),
        new=tuple(k for k in new if k not in old),
        gone=tuple(k for k in old if k not in new),
    )


def ranking(tries: Sequence[tuple[str, Comparison]]) -> list[str]:
    """One row a try, the one that is right for longest first."""

    def reach(found: Comparison) -> tuple[int, int]:
        keys = [stage.key for stage in found.stages]
        place = keys.index(found.first_failed) if found.first_failed in keys else len(keys)
        failed = sum(stage.is_wrong for stage in found.stages)
        return -place if found.judged else 1, failed

    width = max(len(name) for name, _ in tries)
    rows = [f"{'try':<{width}}  {'out of budget':>13}  first wrong stage"]
    for name, found in sorted(tries, key=lambda item: reach(item[1])):
        failed = sum(stage.is_wrong for stage in found.stages)
        first = found.first_failed or ("none" if found.judged else "nothing was compared")
        rows.append(f"{name:<{width}}  {failed:>5} of {found.judged:>4}  {first}")
    return rows


def newest(path: Path) -> float:
    """When a file, or anything in a folder, was last written; 0 while there is nothing."""
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    times = [p.stat().st_mtime for p in paths if p.exists()]
    return max(times, default=0.0)


def watch(
    path: Path,
    judge: Callable[[], Comparison],
    *,
    wait: Callable[[], None] = lambda: time.sleep(0.5),
    times: Callable[[Path], float] = newest,
) -> Iterator[Comparison | str]:
    """A comparison each time that `path` was written, or why it could not be read; goes on until interrupted.

    `wait` is called between looks. A file is read when two looks in a row find it the same.
    """
    seen = last = times(path)
    try:
        while True:
            wait()
            now = times(path)
            if now != last or now == seen or not now:
                last = now
                continue
            seen = now
            try:
                yield judge()
            except RequestError as error:
                yield str(error)
    except KeyboardInterrupt:
        return
