"""The architecture page shows the house as it is: its modules, its floors, its arrows."""

import re
from itertools import takewhile
from pathlib import Path

import pytest

from tests import house
from tests.test_imports import FLOORS, HEIGHT, SOURCE

PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
HOUSE = PAGE.partition("\n## The house\n")[2].partition("\n## ")[0]
PARAGRAPHS = {
    place.rstrip("/"): text
    for place, text in re.findall(r"^ *- \*\*`([\w/]+)`\*\*(.*?)(?=^ *- \*\*`|^\S(?<!-))", HOUSE, re.M | re.S)
}
"""What the page says of each room, and of folders of it that have a line of their own."""


def block(before):
    """The lines of the indented block after these words."""
    lines = HOUSE.partition(before)[2].partition("\n\n")[2].splitlines()
    return [line.split() for line in takewhile(lambda line: line.startswith("    "), lines)]


def paragraph_of(path):
    """The page's nearest place for a file: its own, or that of a folder it lies in."""
    names = path.relative_to(SOURCE).with_suffix("").parts
    places = ("/".join(names[:length]) for length in range(len(names), 0, -1))
    return next((place for place in places if place in PARAGRAPHS), "")


def modules():
    """Of each place the names of its modules; what a folder's own `__init__` is, the folder's words say."""
    found = {place: set() for place in PARAGRAPHS}
    for paths in house.rooms().values():
        for path in paths:
            place = paragraph_of(path)
            if path.stem != "__init__" and path.relative_to(SOURCE).with_suffix("").as_posix() != place:
                found.setdefault(place, set()).add(path.stem)
    return found


@pytest.mark.parametrize("place", sorted(PARAGRAPHS))
def test_every_module_is_named_in_its_room_and_nothing_else_is(place):
    named = set(re.findall(r"`([a-z0-9_]+)`", PARAGRAPHS[place]))
    assert named == modules()[place]


def test_every_room_has_its_words():
    assert PARAGRAPHS.keys() >= HEIGHT.keys()
    assert "" not in modules()


def test_the_drawing_is_the_floors_that_the_imports_keep():
    assert [set(line) for line in block("The floors, ")] == [set(floor) for floor in reversed(FLOORS)]


def test_every_arrow_is_drawn():
    drawn = {room: set(others) - {"nothing"} for room, *others in block("Who imports from whom")}
    assert drawn == {room: set(others) for room, others in house.arrows().items()}


def test_the_count_has_every_room_and_adds_up():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in HOUSE.splitlines()
        if re.match(r"\| \w+ \|.*\d", line)
    ]
    assert {row[0] for row in rows} == {*HEIGHT, "all"}
    for column in range(2, len(rows[0])):
        *numbers, whole = (int(row[column].replace(",", "") or 0) for row in rows)
        assert sum(numbers) == whole


def test_a_module_that_is_not_named_and_an_arrow_that_is_not_drawn_are_found(tmp_path):
    (tmp_path / "nn").mkdir()
    (tmp_path / "text.py").write_text("def late():\n    from sonant.nn.norm import Norm\n", encoding="utf-8")
    (tmp_path / "nn" / "norm.py").touch()
    assert house.arrows(tmp_path) == {"nn": [], "text": ["nn"]}
    assert house.table(tmp_path)[-1] == "| 2 rooms | 2 | 2 | 1 |"
