"""The table of judged voices: each figure over the sentences that have it, and nothing of none."""

import pytest

from benchmarks.judge_voices import table


def row(voice, sentence, errors, **marks):
    counts = {"words": 10, "word_errors": errors, "letters": 40, "letter_errors": errors}
    return (
        {"model": "toy", "voice": voice, "sentence": sentence, "worked": 1.0, "seconds": 2.0} | counts | marks
    )


def rated(mark):
    return {"dnsmos": mark, "p808": mark}


def test_no_rows_have_a_head_alone():
    assert table([]).splitlines()[1:] == ["|" + " --- |" * 10]


def test_a_clip_without_a_mark_counts_for_words_and_not_for_marks():
    """Of silence the judges have no mark, and of many clips none was asked for."""
    first = [row("ann", n, 0, **(rated(3.0) if n != 2 else {})) for n in range(6)]
    second = [row("bea", n, 1, **(rated(3.5) if n != 4 else {})) for n in range(6)]
    lines = table(first + second).splitlines()
    assert [line.split(" | ")[-2] for line in lines[:4]] == ["rated", "---", "5", "5"]
    assert "10.0% (10.0% to 10.0%)" in lines[3]
    assert lines[5] == "Less toy ann, over the sentences that both have:"
    assert lines[7:] == [
        "- toy bea, WER: 10.0% (10.0% to 10.0%), 6 sentences",
        "- toy bea, CER: 2.5% (2.5% to 2.5%), 6 sentences",
        "- toy bea, DNSMOS: 0.50 (0.50 to 0.50), 4 sentences",
        "- toy bea, P.808: 0.50 (0.50 to 0.50), 4 sentences",
    ]


@pytest.mark.parametrize("others", [[row("bea", 7, 1)], []], ids=["no sentence in common", "one voice"])
def test_of_nothing_nothing_is_told(others):
    lines = table([row("ann", 0, 0), *others]).splitlines()
    assert lines[2] == "| toy | ann | 1 | 10 | 0.0% | 0.0% |  |  | 0 | 0.50 |"
    assert len(lines) == 3 + len(others), "and no difference"
