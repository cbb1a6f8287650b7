"""What has to be known to read a comparison: what differs between the two runs besides their stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sonant.parity.stages.table import StageTable
from sonant.parity.task import RECORDED, front_end_said
from sonant.parity.trace import Trace
from sonant.parity.verdicts import StageResult, describe, some
from sonant.request.speech import Style

_USUAL: Mapping[str, Any] = {"style": asdict(Style()), **{row.name: row.default for row in RECORDED}}
"""What holds where a request says nothing."""


def remarks(reference: Trace, other: Trace, results: list[StageResult], table: StageTable) -> Iterable[str]:
    """Sentences about files, names, inputs, draws, seeds, checkpoints, requests and families."""
    yield from dict.fromkeys((*reference.notes, *other.notes))
    if reference.is_foreign and other.is_foreign:
        yield (
            "neither file says in which order it was computed: the first wrong tensor is the first one in "
            "the reference's file, and of names that are not documented no inputs are known"
        )
    for trace, against in ((reference, other), (other, reference)):
        strange = strange_keys(trace, against, table)
        if trace.is_foreign and strange:
            yield (
                f"{len(strange)} of {len(trace.entries)} names of {title(trace)} are not documented, first "
                f"{strange[0]}; --names maps them, and --save-map writes down those that were recognised"
            )
    for kind, words in (("input", "inputs"), ("draw", "random draws")):
        given = [r for r in results if r.kind == kind]
        wrong = [r for r in given if r.distance.status != "ok"]
        if wrong:
            first = f"{wrong[0].key}: {describe(wrong[0].distance)}"
            yield f"{len(wrong)} of {len(given)} {words} differ, first {first}"
    for name, why in (("seed", "seeds"), ("files", "checkpoint files"), ("fingerprint", "checkpoints")):
        a, b = reference.metadata.get(name), other.metadata.get(name)
        if a is not None and b is not None and a != b:
            at = ""
            if isinstance(a, Mapping) and isinstance(b, Mapping):
                at = f": {some(tuple(k for k in {**a, **b} if a.get(k) != b.get(k)), 3)}"
            elif name == "seed":
                at = f": {a} and {b}"
            yield f"the {why} of the two runs differ{at}"
    ours, theirs = (t.metadata.get("request") for t in (reference, other))
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in dict.fromkeys((*ours, *theirs)):
            a, b = (_said(name, request) for request in (ours, theirs))
            if name != "seed" and a != b:
                yield f"the two requests differ in {name}: {_short(a)} and {_short(b)}"
    if reference.family and other.family and reference.family != other.family:
        yield f"the traces are of different families: {reference.family} and {other.family}"
    forced_by = other.metadata.get("forced_by")
    if forced_by and forced_by != reference.tokens_hash():
        yield "the second trace was forced to the tokens of another reference"


def _said(name: str, request: Mapping[str, Any]) -> Any:
    """What a request asks for beyond what it means where nothing is said; None where that is nothing."""
    if name == "normalize":
        front_end = front_end_said(request)
        return None if front_end == "original" else front_end or "the model's own"
    value, usual = request.get(name), _USUAL.get(name)
    if isinstance(value, Mapping):
        plain = usual if isinstance(usual, Mapping) else {}
        return {key: one for key, one in value.items() if _is_said(one, plain.get(key))} or None
    return value if _is_said(value, usual) else None


def _is_said(value: Any, usual: Any) -> bool:
    """Whether a setting is another than its usual value; where that is none, nothing and off are."""
    if value is None or (value is False and not usual) or value in ("", (), [], {}):
        return False
    return bool(value != usual)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def strange_keys(trace: Trace, against: Trace, table: StageTable) -> tuple[str, ...]:
    """Keys that are neither documented names nor names of the other trace."""
    return tuple(e.key for e in trace.entries if not table.find(e.name) and e.key not in against.by_key)


def title(trace: Trace) -> str:
    """What made a trace, of which model, in which precision."""
    made_by = trace.metadata.get("made_by", "unknown")
    model = trace.metadata.get("model", "")
    return " ".join(str(part) for part in (made_by, model, trace.dtype) if part)
