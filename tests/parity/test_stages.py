import re
from pathlib import Path

import pytest

from sonant.parity.stages import FAMILIES, guess_family, stage_table
from sonant.parity.stages.markdown import stage_page
from sonant.parity.trace import read_trace
from tests.parity import cases

PAGE = Path(__file__).parents[2] / "docs" / "parity-stages.md"


def test_the_documented_tables_are_the_ones_in_use():
    """Written by `stage_page()` of sonant.parity.stages.markdown."""
    assert PAGE.read_text(encoding="utf-8") == stage_page()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recorded_stage_of_an_original_is_documented(family):
    trace = read_trace(cases.DATA / "parity" / f"{family}_original.safetensors")
    table = stage_table(family)
    strange = [e.key for e in trace.entries if e.kind != "draw" and table.find(e.name) is None]
    assert strange == []
    assert guess_family([e.name for e in trace.entries]) == family


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_of_documented_stages_are_documented(family):
    table = stage_table(family)
    for stage in table:
        for edge in (*stage.inputs, *stage.first):
            name = re.sub(r"\{\w+(-1)?\}", "0", edge)
            assert table.find(name) or name.startswith("draw."), f"{stage.name}: {edge}"


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_a_table_are_whole(family):
    table = stage_table(family)
    names = [stage.name for stage in table]
    assert len(names) == len(set(names))
    assert {stage.kind for stage in table} <= {"stage", "token", "draw", "input"}
    assert all(stage.shape.startswith("[") and stage.what for stage in table)
    assert all(name == "" or name in names for name in (table.token, table.frame, table.pieces))
