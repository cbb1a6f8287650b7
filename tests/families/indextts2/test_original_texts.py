"""The `original` reading against what the original's own front end makes of the same texts on Linux."""

import json
import re
from pathlib import Path

import pytest

from sonant.families.indextts2 import grammar
from sonant.families.indextts2.text import Normaliser

TEXTS = Path(__file__).parents[2] / "data" / "text" / "indextts2_original.json"
RECORDED = json.loads(TEXTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def normaliser():
    return Normaliser()


@pytest.mark.parametrize(
    "rows",
    [pytest.param(RECORDED[::8], id="an eighth"), pytest.param(RECORDED, id="all", marks=pytest.mark.slow)],
)
def test_recorded_texts_are_read_as_the_original_reads_them(normaliser, rows):
    """Recorded with WeTextProcessing 1.2.0 and pynini 2.1.7: the table of readings, signs at digits, line
    ends, quotes, backslashes, and texts of random pieces, among them some that the grammar cannot read."""
    assert len(RECORDED) > 1000
    different = [
        (row["text"], row["normalized"], read)
        for row in rows
        if (read := normaliser.normalise(row["text"])) != row["normalized"]
    ]
    assert different == []


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("item #7 of 25", "item number seven of twenty five"),
        ("₹200 and 25", "₹ two hundred and twenty five"),
        ("I have 25 apples\r\nand 3 pears.", "I have twenty five apples and three pears."),
        ('He said "hello" to 25 people.', "He said 'hello' to twenty five people."),
        ("Open C:\\temp and 5 more", "Open C,\\temp and five more"),
        ("a  b 5", "a b five"),
    ],
)
def test_what_another_grammar_leaves_raw_is_read(normaliser, text, spoken):
    assert normaliser.normalise(text) == spoken


def test_a_text_that_the_grammar_cannot_read_is_spoken_as_typed(normaliser, caplog):
    assert normaliser.normalise("\nx 5") == " x 5"
    assert "could not read" in caplog.text
    with pytest.raises(grammar.Unreadable):
        grammar.read_out("\nx 5", "en")


@pytest.mark.parametrize("reading", ["en", "zh"])
def test_nothing_reads_as_nothing(reading):
    assert grammar.read_out("", reading) == ""
    assert grammar.read_out("  ", reading).strip() == ""


def test_a_long_text_is_read_whole(normaliser):
    spoken = normaliser.normalise("There are 25 of them. " * 60)
    assert len(re.findall("twenty five", spoken)) == 60
