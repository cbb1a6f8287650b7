"""Pause tags, inline pronunciations and the glossary."""

import pytest

from sonant.text.markup import apply_glossary, split_pauses, split_pronunciations, without_pronunciations


def test_pause_tags_in_seconds_and_milliseconds():
    assert list(split_pauses("a[pause:1.5s]b[pause: 300 ms ]c[PAUSE:2]")) == [
        ("a", 1.5),
        ("b", 0.3),
        ("c", 2.0),
        ("", 0.0),
    ]
    assert next(split_pauses("x[pause:99999s]")) == ("x", 60.0)


@pytest.mark.parametrize("text", ["[pause:]", "[pause:x]", "[pause:-1s]", "[pause 1s]", "[pause:1h]"])
def test_what_is_no_tag_is_text(text):
    assert list(split_pauses(text)) == [(text, 0.0)]


def test_pronunciations_are_told_from_text():
    text = "Say [gif](/dʒɪf/), not [this](link)."
    assert list(split_pronunciations(text)) == [
        ("Say ", None),
        ("gif", "dʒɪf"),
        (", not [this](link).", None),
    ]
    assert without_pronunciations(text) == "Say gif, not [this](link)."


def test_glossary_replaces_whole_words_longest_first_and_leaves_marks_alone():
    glossary = {"GIF": "jiff", "GIF file": "jiff file", "pause": "X", "行": "háng"}
    text = "A gif, a GIF file, gifs, [gif](/ɡɪf/) [pause:1s] 银行业"
    expected = "A jiff, a jiff file, gifs, [gif](/ɡɪf/) [pause:1s] 银háng业"
    assert apply_glossary(text, glossary) == expected
    assert apply_glossary("text", {}) == "text"
