"""Every deliberate fault is found: `compare` points at its first stage, `bisect` names all of its stages.

`pytest -s tests/parity/test_mutations.py` prints what both said.
"""

from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from sonant.parity.bisect import bisect
from sonant.parity.compare import compare
from sonant.parity.record import record
from sonant.parity.stages import stage_table
from tests.parity import cases
from tests.parity.faults_kinds import KINDS

PAGE = Path(__file__).parents[2] / "docs" / "parity-faults.md"
QUICK = 1
"""Faults of each family that the default run injects; the slow run injects all."""

LISTED = {
    family: (*import_module(f"tests.parity.faults_{family}").FAULTS, *KINDS.get(family, ()))
    for family in cases.CASES
}
FAULTS = [
    pytest.param(family, fault, id=f"{family}: {fault.what}", marks=[pytest.mark.slow] * (index >= QUICK))
    for family, faults in LISTED.items()
    for index, fault in enumerate(faults)
]


def test_there_are_more_than_130_faults_of_many_kinds():
    assert len(FAULTS) >= 130
    assert all(len(LISTED[family]) >= 40 for family in cases.FAMILIES)
    assert all(len({fault.kind for fault in LISTED[family]}) >= 16 for family in cases.FAMILIES)
    assert len(LISTED["indextts25"]) >= 10  # what differs from IndexTTS2


def listed_faults():
    """The tables of docs/parity-faults.md, behind its introduction."""
    kinds = Counter(fault.kind for faults in LISTED.values() for fault in faults)
    lines = ["| kind | faults |", "|---|---|", *(f"| {kind} | {count} |" for kind, count in kinds.items())]
    for family, faults in LISTED.items():
        lines += ["", f"## {family}", ""]
        head = "| kind | what was changed | `compare` names first, `bisect` names | also |"
        lines += [head, "|---|---|---|---|"]
        for fault in faults:
            names = "the end: fewer steps" if fault.ends else ", ".join(f"`{name}`" for name in fault.stages)
            also = f'"{fault.words.strip()}"' if fault.words else ""
            also = "in budget: suspicious" if fault.is_suspicious else also
            lines.append(f"| {fault.kind} | {fault.what} | {names} | {also} |")
    return "\n".join(lines) + "\n"


def test_the_documented_faults_are_those_that_are_planted():
    head, tables = PAGE.read_text(encoding="utf-8").split("| kind | faults |", 1)
    assert "| kind | faults |" + tables == listed_faults()
    assert f"{len(FAULTS)} mistakes" in head


@pytest.mark.parametrize("family", LISTED)
def test_every_fault_finds_the_place_that_it_changes(family):
    """Most are injected in the slow run only: the code must still be there to be broken."""
    for fault in LISTED[family]:
        with pytest.MonkeyPatch.context() as patch:
            fault.inject(patch)


@pytest.mark.parametrize(("family", "fault"), FAULTS)
def test_compare_and_bisect_name_the_stage(family, fault, monkeypatch, capsys):
    reference = cases.reference(family)
    table = stage_table(reference.family)
    fault.inject(monkeypatch)
    found = compare(reference, record(cases.load(family), cases.task(family)))
    assert found.first_failed is not None
    first = table.pattern_of(found.first_failed.split("@")[0])
    split = bisect(cases.load(family), reference)
    named = tuple(item.stage for item in split.faults)
    said = split.ended if fault.ends else ", ".join(f"`{name}`" for name in named)
    words = "; ".join(line for line in found.diagnosis[:2])
    with capsys.disabled():
        print(f"\n| {family} | {fault.kind} | {fault.what} | `{found.first_failed}` | {words} | {said} |")
    assert first == fault.stages[0]
    assert found.inputs_differed in (False, None)
    assert not fault.words or any(fault.words in line for line in found.diagnosis)
    assert found.status == ("suspicious" if fault.is_suspicious else "wrong")
    assert set(named) == (set() if fault.ends else set(fault.stages))
    assert bool(split.ended) == fault.ends
    assert split.status == ("suspicious" if fault.is_suspicious else "wrong")
    assert not split.stopped
