"""Normalisation, splitting, markers, and the layouts of the modes."""

import pytest

from sonant.errors import RequestError
from sonant.families.cosyvoice3.prompt import layout
from sonant.families.cosyvoice3.text import TextRules, remove_blanks, special_tokens


@pytest.fixture(scope="module")
def exact(shared_model):
    """The rules with the original's faults, as recorded."""
    return TextRules(lambda text: len(shared_model.tokenizer.encode(text)), as_original=True)


@pytest.mark.parametrize("mode", ["off", "none", "wetext"])
def test_texts_are_normalised_and_split_as_recorded(exact, rows, mode):
    for row in rows["normalisation"]:
        assert exact.segments(row["text"], normalizer=mode) == row[f"{mode}.split"]
        assert exact.whole(row["text"], normalizer=mode) == row[f"{mode}.whole"]


def test_numbers_and_blanks_are_as_recorded(exact, rows):
    for given, expected in rows["numbers"]:
        assert exact.spell_numbers(given) == expected
    for given, expected in rows["blanks"]:
        assert remove_blanks(given) == expected


def test_token_ids_are_as_recorded(shared_model, rows):
    for row in rows["token_ids"]:
        assert shared_model.tokenizer.encode(row["text"]) == row["ids"]
    assert {token: shared_model.tokenizer.id(token) for token in special_tokens()} == rows["special"]


def test_the_original_spells_digits_inside_tags(exact):
    """Recorded from the original; for users tags stay whole (see the next test)."""
    for mode, text, expected in (
        ("none", "no [1] of 3 [AA1]", "no [one] of three [AAone]."),
        ("wetext", "他说[AA1]好，[1]", "他说[AA一]好，[一]。"),
    ):
        assert exact.segments(text, normalizer=mode) == [expected]


def test_inline_tags_pass_through_unchanged(shared_model):
    rules = shared_model.preparing.rules
    for text, spoken in (
        ("Say [AA1]bc 3 [B] now", "Say [AA1]bc three [B] now."),
        ("<strong>Big</strong> 7 [laughter] deals", "<strong>Big</strong> seven [laughter] deals."),
        ("他说[h][ào]奇，3 个[breath]", "他说[h][ào]奇，三个[breath]。"),
    ):
        assert rules.segments(text, normalizer="wetext") == [spoken]


def test_quotes_are_not_escaped_for_users(shared_model):
    assert shared_model.preparing.rules.segments('He said "4".', normalizer="wetext") == ['He said "four".']


@pytest.mark.parametrize("text", [" ", "\n\t", "！！！", "...", "?!"])
def test_texts_without_words_have_no_segment(shared_model, text):
    assert shared_model.preparing.rules.segments(text, normalizer="wetext") == []


@pytest.mark.parametrize(
    "text", ["😀 ok 4", "a\u0301b 1/2", "x" * 5000, "1" * 400, "[" * 50 + "a", "<" * 50 + "b", "你好 "]
)
def test_odd_texts_are_read_without_a_crash(shared_model, text):
    assert "".join(shared_model.preparing.rules.segments(text, normalizer="wetext"))


SYSTEM = "You are a helpful assistant."


def test_layouts_add_the_system_sentence_once():
    zero = layout("Hi.", transcript="Told.", instruction=None)
    assert (zero.prompt_text, zero.text) == (f"{SYSTEM}<|endofprompt|>Told.", "Hi.")
    assert zero.has_prompt_speech
    cross = layout("Hi.", transcript=None, instruction=None)
    assert (cross.prompt_text, cross.text) == ("", f"{SYSTEM}<|endofprompt|>Hi.")
    assert not cross.has_prompt_speech
    told = layout("Hi.", transcript="Told.", instruction="Be glad.")
    assert (told.prompt_text, told.text) == (f"{SYSTEM} Be glad.<|endofprompt|>", "Hi.")
    assert not told.has_prompt_speech


def test_what_the_user_already_typed_is_not_doubled():
    typed = f"{SYSTEM}<|endofprompt|>Told."
    assert layout("Hi.", transcript=typed, instruction=None).prompt_text == typed
    assert layout(f"{SYSTEM}<|endofprompt|>Hi.", transcript=None, instruction=None).text.count(SYSTEM) == 1
    for instruction in (f"{SYSTEM} Glad.<|endofprompt|>", f"{SYSTEM} Glad."):
        made = layout("Hi.", transcript=None, instruction=instruction).prompt_text
        assert made == f"{SYSTEM} Glad.<|endofprompt|>"
    both = layout("Be glad.<|endofprompt|>Hi.", transcript=typed, instruction=None)
    assert (both.prompt_text, both.text) == ("Be glad.<|endofprompt|>Told.", "Hi.")
    with pytest.raises(RequestError, match="one place"):
        layout("Be glad.<|endofprompt|>Hi.", transcript=None, instruction="Be sad.")
