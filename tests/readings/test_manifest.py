"""Manifests as people write them by mistake: each wrong line is told, and stops no other."""

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
        ("text;name\nhi;x\n", "no column `text`, but text;name; expected .* commas"),
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
