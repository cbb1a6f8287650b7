"""Segmentation: nothing is lost, limits hold, sentence ends are found across languages, time is linear."""

import time

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sonant.text.markup import PAUSE_PATTERN, PRONUNCIATION_PATTERN
from sonant.text.segment import Pauses, _sentences, segment

PIECES = st.sampled_from(
    ["Dr. ", "3.14", "Hello", "你好", "。", "…", ".", "! ", "? ", '"', "”", ")", "\n", "\n\n", " ", "\t",
     ", ", "，", "\r\n", "[pause:1s]", "[a b](/ə b/)", "[", "](/", "👨‍👩‍👧", "é", "\u0301", "\ud800", 
     "\x00", "J. ", "3. Mai", "- ", "、", "a" * 40]
)  # fmt: skip
UNCUT = regex.compile(
    rf"{PRONUNCIATION_PATTERN}|{PAUSE_PATTERN}|\X"
)  # never cut, so maybe longer than a limit
TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map("".join))


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(1, 120))
@example("", 10)
@example(" " * 50, 10)
def test_segments_joined_are_the_text_and_fit(text, limit):
    segments = segment(text, limit=limit)
    assert "".join(one.text for one in segments) == text
    for one in segments:
        assert one.text
        assert one.pause >= 0
        assert len(one.text) <= limit or len(UNCUT.findall(one.text)) == 1


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_token_counts_limit_segments_too(text):
    def tokens(piece):
        return len(piece.split())

    for one in segment(text, limit=5, length=tokens):
        assert tokens(one.text) <= 5 or "](/" in one.text or "[pause" in one.text


def split(text):
    """The sentences one by one, however many would share a segment."""
    return [piece.strip() for piece, _ in _sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? Fine!", ["Hello there.", "How are you?", "Fine!"]),
        ("Dr. Smith paid Mrs. Jones $3.50. So.", ["Dr. Smith paid Mrs. Jones $3.50.", "So."]),
        ("It is 3.14. Yes.", ["It is 3.14.", "Yes."]),
        ("J. R. R. Tolkien wrote it. Read it.", ["J. R. R. Tolkien wrote it.", "Read it."]),
        ('"Really?" he said. "Yes!" She nodded.', ['"Really?" he said.', '"Yes!"', "She nodded."]),
        ("He said (quietly.) Then left.", ["He said (quietly.)", "Then left."]),
        ("Fruit, e.g. apples, i.e. food. Good.", ["Fruit, e.g. apples, i.e. food.", "Good."]),
        ("At 5 p.m. we ate. At 6 p.m. We left.", ["At 5 p.m. we ate.", "At 6 p.m.", "We left."]),
        ("Wait... what? Well... Yes.", ["Wait... what?", "Well...", "Yes."]),
        ("See www.example.com/a.b now. Done.", ["See www.example.com/a.b now.", "Done."]),
        ("你好。今天天气很好！我们走吧？好", ["你好。", "今天天气很好！", "我们走吧？", "好"]),
        ("他说：“你好。”然后走了。", ["他说：“你好。”", "然后走了。"]),
        ("これはペンです。「はい。」次。", ["これはペンです。", "「はい。」", "次。"]),
        ("Am 3. Mai, z.B. dort. Das 19. Jahrhundert.", ["Am 3. Mai, z.B. dort.", "Das 19. Jahrhundert."]),
        ("Это т.е. так. Вот.", ["Это т.е. так.", "Вот."]),
        ("¿Cómo está Ud. hoy? ¡Bien!", ["¿Cómo está Ud. hoy?", "¡Bien!"]),
        ("مرحبا بك؟ نعم.", ["مرحبا بك؟", "نعم."]),
        ("नमस्ते दुनिया। ठीक है।", ["नमस्ते दुनिया।", "ठीक है।"]),
        ("1. First thing\n2. Second thing", ["1. First thing", "2. Second thing"]),
        ("Chapter One\nIt was a dark night.", ["Chapter One", "It was a dark night."]),
        (
            "This line of prose was wrapped by an editor and goes on\nin the next one. Yes.",
            ["This line of prose was wrapped by an editor and goes on\nin the next one.", "Yes."],
        ),
        ("Born in 1999. Died in 2050.", ["Born in 1999.", "Died in 2050."]),
    ],
)  # fmt: skip
def test_sentence_ends(text, expected):
    assert split(text) == expected


def test_sentences_share_a_segment_while_they_fit_and_paragraphs_do_not():
    text = "One two. Three four. Five six.\n\nSeven."
    assert [one.text for one in segment(text, limit=20)] == [
        "One two. ",
        "Three four. ",
        "Five six.\n\n",
        "Seven.",
    ]
    assert [one.text for one in segment(text, limit=100)] == ["One two. Three four. Five six.\n\n", "Seven."]


def test_long_sentences_are_cut_at_clauses_then_words_then_characters():
    assert [one.text for one in segment("one two three, four five six", limit=16)] == [
        "one two three, ",
        "four five six",
    ]
    assert [one.text for one in segment("one two three four", limit=9)] == ["one two ", "three ", "four"]
    assert [one.text for one in segment("abcdefghij", limit=4)] == ["abcd", "efgh", "ij"]
    family = "👨‍👩‍👧"
    assert [one.text for one in segment(family * 3, limit=6)] == [family] * 3


def test_pauses_follow_what_ends_a_segment():
    pauses = Pauses(cut=0.01, clause=0.1, sentence=0.2, paragraph=0.5)

    def after(text, limit=16):
        return [one.pause for one in segment(text, limit=limit, pauses=pauses)]

    assert after("One two three. Four five six.") == [0.2, 0.0]
    assert after("One.\n\nTwo.") == [0.5, 0.0]
    assert after("one two three, four five six") == [0.1, 0.0]
    assert after("one two three four five six") == [0.01, 0.0]


def test_pause_tags_end_a_segment_and_stay_in_its_text():
    segments = segment("Wait [pause:1.5s] for it. [pause:300ms][PAUSE: 2 s] Now.", limit=200)
    assert [(one.spoken, one.pause) for one in segments] == [("Wait", 1.5), ("for it.", 2.3), ("Now.", 0.0)]
    assert segment("Done. [pause:2s]")[-1].pause == 2.0


def test_inline_pronunciations_stay_whole():
    text = "I met [New York. City, yes](/n j k. s, t/) today and then I went home again."
    for limit in range(1, 60):
        assert any("[New York. City, yes](/n j k. s, t/)" in one.text for one in segment(text, limit=limit))


@pytest.mark.parametrize(
    "unit", ["7", " ", "\n", ".", "…", ",", "，", "[", "[a](/b/) ", "[a](/b/), ", '."', "a.b.", "。", "-",
             "\n ", "Dr. ", "[pause:", "é", "👨‍👩‍👧", "\u0301", "a "]
)  # fmt: skip
def test_a_hundred_kilobytes_take_no_time(unit):
    text = (unit * 100_000)[:100_000]
    start = time.thread_time()
    assert "".join(one.text for one in segment(text)) == text
    assert time.thread_time() - start < 3.0  # measured: under 0.6
