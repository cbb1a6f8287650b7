"""Manifests as people write them by mistake: each wrong line is told, and stops no other."""

import csv
import json

import pytest

from sonant.errors import RequestError
from sonant.readings.job import Job
from sonant.readings.manifest import read_manifest

BASE = Job(text="", settings={"seed": 0})


def items_of(folder, *rows):
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_manifest(path, BASE)


def test_names_that_no_file_can_have_are_an_items_fault(tmp_path):
    odd = [
        {"text": "Hi.", "glossary": "a\0b"}, {"text": "Hi.", "source_audio": "a\0b"},
        {"text": "Hi.", "voice": "a\0b"}, {"text": "Hi.", "glossary": "g" * 5000},
        {"text": "Hi.", "glossary": {"a": 5}},
    ]  # fmt: skip
    *wrong, good = items_of(tmp_path, *odd, {"text": "Good."})
    assert all(item.job is None and item.error for item in wrong)
    assert good.job is not None
    for voice in ("~nobody-of-this-name/a.wav", "v" * 5000):  # names that no voice has, found out later
        (item,) = items_of(tmp_path, {"text": "Hi.", "voice": voice})
        assert item.job.voice == voice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text|name\nhi|x\n", r"no column `text`, but text\|name; expected .* commas"),
        ("text,text\nhi,there\n", "column 'text' twice"),
        ("", "but nothing"),
    ],
)
def test_a_table_with_other_columns_says_what_it_has(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(RequestError, match=words):
        read_manifest(tmp_path / "m.csv", BASE)


def test_a_quote_that_never_ends_does_not_swallow_the_rest_in_silence(tmp_path):
    (tmp_path / "m.csv").write_text('text\nfirst\n"second\nthird\n')
    first, rest = read_manifest(tmp_path / "m.csv", BASE)
    assert first.job.text == "first"
    assert "the rest of the file is no CSV" in rest.error


ROWS = [
    {"text": "Grüß dich, Ann.", "name": "a", "speed": "1.1"},
    {"text": 'He said "no"; twice.', "name": "b"},
]


def saved(path, *, encoding="utf-8", delimiter=",", ends="\r\n", names=("text", "name", "speed"), quoting=0):
    """A table as spreadsheets save it."""
    with path.open("w", encoding=encoding, newline="") as file:
        table = csv.writer(file, delimiter=delimiter, lineterminator=ends, quoting=quoting)
        table.writerow(names)
        table.writerows([row["text"], row["name"], row.get("speed", "")] for row in ROWS)
    return path


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("csv", {"encoding": "utf-8-sig"}),
        ("csv", {"encoding": "utf-8-sig", "delimiter": ";"}),
        ("csv", {"delimiter": "\t", "encoding": "utf-16"}),
        ("tsv", {"delimiter": "\t", "ends": "\n"}),
        ("csv", {"names": ("Text", " Name ", "SPEED")}),
        ("csv", {"delimiter": ";", "quoting": csv.QUOTE_ALL, "ends": "\r"}),
    ],
)
def test_tables_are_read_as_spreadsheets_save_them(tmp_path, ending, how):
    items = read_manifest(saved(tmp_path / f"m.{ending}", **how), BASE)
    assert [(item.name, item.error, item.job.text) for item in items] == [
        (row["name"], "", row["text"]) for row in ROWS
    ]
    assert items[0].job.get("speed") == 1.1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("is_list", [False, True], ids=["lines", "list"])
def test_json_is_read_as_other_programs_save_it(tmp_path, encoding, is_list):
    text = json.dumps(ROWS, indent=2) if is_list else "\r\n\r\n".join(map(json.dumps, ROWS)) + "\r\n"
    (tmp_path / "m.json").write_bytes(text.encode(encoding))
    items = read_manifest(tmp_path / "m.json", BASE)
    assert [(item.name, item.job.text) for item in items] == [(row["name"], row["text"]) for row in ROWS]


def test_a_list_that_is_cut_off_is_told(tmp_path):
    (tmp_path / "m.json").write_text('[{"text": "Hi."},')
    with pytest.raises(RequestError, match=r"begins as a list and is no JSON .* expected one list"):
        read_manifest(tmp_path / "m.json", BASE)
