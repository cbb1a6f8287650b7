"""The table of inputs and right readings in tests/data/text, and the comparison that scores front ends."""

import random
import re
from collections import Counter

import pytest

from benchmarks.text_score import FILES, Entry, as_typed, expand, is_right, load, score, spoken

TABLE = load()
LEAST = {
    "english": 160,
    "chinese": 100,
    "german": 20,
    "french": 20,
    "spanish": 20,
    "japanese": 20,
    "mixed": 40,
}


def entry(*right, language="english", kind="d.number"):
    return Entry("x", language, language, "", right, kind)


@pytest.mark.parametrize("name", FILES)
def test_each_language_has_enough_inputs(name):
    assert sum(line.file == name for line in TABLE) >= LEAST[name]


def test_entries_are_named_once_and_ask_each_thing_once():
    for value in (lambda line: line.id, lambda line: (line.text, line.language)):
        counted = Counter(map(value, TABLE))
        assert [name for name, times in counted.items() if times > 1] == []


def test_every_layer_is_asked_about():
    assert {line.kind[0] for line in TABLE} == set("abcde") | {"p"}


@pytest.mark.parametrize("line", TABLE, ids=lambda line: line.id)
def test_readings_are_words(line):
    """No digit or sign in a right reading but the form's own marks; each reading is right by itself."""
    forms = [form for right in line.right for form in expand(right)]
    assert forms
    for form in forms:
        assert re.fullmatch(r"[^\W\d_]+(?:['’ |]+[^\W\d_]+)*", form), form
        assert is_right(line, form.replace(" |", ","))


def test_ordinary_text_is_right_as_typed():
    plain = [line for line in TABLE if line.kind == "plain"]
    assert len(plain) >= 25
    assert [line.id for line, _, right in score(as_typed, plain) if not right] == []


def test_what_needs_reading_is_wrong_as_typed():
    wrong = [line for line, _, right in score(as_typed, TABLE) if not right]
    assert len(wrong) > 0.8 * len(TABLE)


def test_another_entrys_reading_is_wrong():
    draw = random.Random(3)
    for line in TABLE:
        other = draw.choice([one for one in TABLE if not set(one.right) & set(line.right)])
        assert not is_right(line, next(expand(other.right[0])).replace(" |", ","))


@pytest.mark.parametrize(
    ("form", "readings"),
    [
        ("plain words", ["plain words"]),
        ("{one|a} hundred", ["one hundred", "a hundred"]),
        ("x{| y}", ["x", "x y"]),
        ("{a{b|c}|d}e", ["abe", "ace", "de"]),
    ],
)
def test_groups_stand_for_every_choice(form, readings):
    assert list(expand(form)) == readings


@pytest.mark.parametrize("form", ["{a|b", "a}b", "{a|{b}"])
def test_unbalanced_groups_are_an_error(form):
    with pytest.raises(ValueError, match="brace"):
        list(expand(form))


@pytest.mark.parametrize(
    ("right", "reading", "language"),
    [
        ("one hundred five", "One hundred and five.", "english"),
        ("the one hundred twelfth", "the one-hundred-and-twelfth", "english"),
        ("ten per cent", "ten percent", "english"),
        ("at six p m e s t", "at six PM EST", "english"),
        ("at six pm", "at six P.M.", "english"),
        ("it isn't", "it isn’t", "english"),
        ("二零二四年", "二〇二四年。", "chinese"),
        ("使用 python 三点一", "使用Python三点一", "chinese"),
        ("zweihundertvierunddreißig", "zwei hundert vier und dreissig", "german"),
        ("vingt et un", "vingt-et-un", "french"),
        ("qué hora es", "¿Qué hora es?", "spanish"),
    ],
)
def test_what_no_listener_hears_is_folded(right, reading, language):
    assert is_right(entry(right, language=language), reading)


@pytest.mark.parametrize(
    ("right", "reading", "language"),
    [
        ("five euros", "five €", "english"),
        ("five", "5", "english"),
        ("important", "**important**", "english"),
        ("rock and roll", "rock roll", "english"),
        ("two and twenty", "two twenty", "english"),
        ("line two", "linetwo", "english"),
        ("name age", "name | age", "english"),
        ("good morning", "\ufeffgood morning", "english"),
        ("unbreakable", "un\u200bbreakable", "english"),
        ("five flags", "\ufb01ve \ufb02ags", "english"),
        ("two point one", "two.one", "english"),
        ("一百二十三", "１２３", "chinese"),
        ("两个", "二个", "chinese"),
        ("drei kilogramm", "dreikilogramm", "german"),
        ("veintidós", "veintidos", "spanish"),
    ],
)
def test_what_a_listener_hears_is_not_folded(right, reading, language):
    assert not is_right(entry(right, language=language), reading)


@pytest.mark.parametrize(
    ("reading", "right"),
    [
        ("doctor lee met us. they left.", True),
        ("doctor lee met us\nthey left", True),
        ("doctor lee met us they left", False),
        ("doctor. lee met us. they left", False),
        ("doctor\nlee met us. they left", False),
    ],
)
def test_pauses_count_where_segments_are_the_matter(reading, right):
    assert is_right(entry("doctor lee met us | they left", kind="e.abbreviation"), reading) is right


def test_a_full_stop_after_initials_may_end_the_sentence_or_not():
    for right in ("in the u s | she stays", "in the u s she stays"):
        assert is_right(entry(right, kind="e.abbreviation"), "in the U.S. she stays")


def test_words_and_pauses():
    heard = spoken("One, two. Three")
    assert heard.words == ["one", "two", "three"]
    assert heard.after == ["pause", "stop", ""]
