"""Every deliberate fault is found: `compare` points at its first stage, `bisect` names all of its stages.

`pytest -s tests/parity/test_mutations.py` prints what both said.
"""

from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from tests.parity import cases
from tests.parity.faults_kinds import KINDS
from tests.parity.judging import answers

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


WRONGS = ("missed by compare", "missed by bisect", "false by compare", "false by bisect")
HEAD = "| kind | planted | missed by `compare` | by `bisect` | false claims by `compare` | by `bisect` |"


def measured_table(planted, wrong):
    """The table of kinds: how many were planted, and how many answers were not right, by kind and WRONGS."""
    lines = [HEAD, "|---|" + "---:|" * 5]
    for kind, count in planted.items():
        lines.append(f"| {kind} | {count} | " + " | ".join(str(wrong[kind, name]) for name in WRONGS) + " |")
    sums = (sum(count for (_, name), count in wrong.items() if name == wanted) for wanted in WRONGS)
    return "\n".join((*lines, f"| all | {planted.total()} | " + " | ".join(map(str, sums)) + " |"))


def listed_faults():
    """The tables of docs/parity-faults.md behind the one of kinds."""
    lines = []
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
    head, rest = PAGE.read_text(encoding="utf-8").split(HEAD, 1)
    measured, tables = rest.split("\n\n", 1)
    kinds = Counter(fault.kind for faults in LISTED.values() for fault in faults)
    assert HEAD + measured == measured_table(kinds, Counter())
    assert f"\n{tables}" == listed_faults()
    assert f"{len(FAULTS)} mistakes" in head


@pytest.mark.parametrize("family", LISTED)
def test_every_fault_finds_the_place_that_it_changes(family):
    """Most are injected in the slow run only: the code must still be there to be broken."""
    for fault in LISTED[family]:
        with pytest.MonkeyPatch.context() as patch:
            fault.inject(patch)


@pytest.mark.parametrize(("family", "fault"), FAULTS)
def test_compare_and_bisect_name_the_stage(family, fault, monkeypatch, capsys):
    found = answers(family, fault, monkeypatch)
    with capsys.disabled():
        print(f"\n{found.row(family)}")
    assert found.wrongs == {}
