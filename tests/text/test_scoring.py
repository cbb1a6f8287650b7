"""What was heard against what should have been said."""

import pytest

from sonant.text.scoring import Score, score_words, words


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("It costs $23.50.", "it costs twenty-three dollars and fifty cents"),
        ("Two hundred and seven grey houses", "two hundred seven gray houses"),
        ("The green house", "The greenhouse."),
        ("你好，世界！", "你好 世界"),
        ("Don’t STOP", "don't stop"),
        ("Es kostet 3 Euro.", "es kostet drei euro"),
        ("", ""),
    ],
)
def test_what_sounds_alike_is_no_error(said, heard):
    score = score_words(said, heard)
    assert (score.wer, score.cer, score.runs, score.share) == (0.0, 0.0, (), 1.0)


@pytest.mark.parametrize(
    ("said", "heard", "kinds", "errors", "longest"),
    [
        ("one two three four", "one two four", ["missing"], 1, 1),
        ("one two three", "one two two three", ["repeated"], 1, 1),
        ("the cat sat down", "the cat sat down the cat sat down", ["repeated"], 4, 4),
        ("hello there my friend", "", ["missing"], 4, 4),
        ("hello", "hello and goodbye to you all", ["added"], 5, 5),
        ("a b c d e f g", "a x y d z q g", ["changed"], 4, 5),
        ("我们今天去公园散步", "我们去公园散步", ["missing"], 2, 1),
    ],
)
def test_runs_and_their_kinds(said, heard, kinds, errors, longest):
    score = score_words(said, heard)
    assert [run.kind for run in score.runs] == kinds
    assert (score.word_errors, score.longest) == (errors, longest)
    assert score.words == len(words(said))


def test_ten_seconds_of_garbage_hardly_move_the_average_and_are_one_long_run():
    page = "a quiet day by the sea with nothing at all to do " * 40
    garbage = page.replace("sea", "sea zu fo mi re la ti do no ki pa", 1)
    score = score_words(page, garbage)
    assert score.wer < 0.03
    assert score.longest == 10


def test_scores_add_up():
    one, other = score_words("one two", "one"), score_words("three four five", "three four six")
    both = one + other
    assert (both.words, both.word_errors, both.wer) == (5, 2, 0.4)
    assert both.runs == one.runs + other.runs
    assert (Score() + one).cer == one.cer
