"""The text front end against recorded texts, and the segmenter's rules."""

import json
import logging

import pytest

from sonant.errors import CheckpointError
from sonant.families.indextts2.segments import split_segments
from sonant.families.indextts2.text import (
    PINYIN,
    TextFrontEnd,
    apply_glossary,
    correct_pinyin,
    read_glossary,
    reads_as_chinese,
)
from tests.families.indextts2.conftest import DATA

RECORDED = json.loads((DATA / "text.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def front():
    return TextFrontEnd(DATA / "bpe.model")


@pytest.mark.parametrize("row", RECORDED["rows"], ids=lambda row: row["text"][:12])
def test_recorded_texts(front, row):
    normal = front.normaliser.normalise(row["text"])
    assert normal == row["normalized"]
    assert reads_as_chinese(row["text"]) == row["use_chinese"]
    assert front.split_ideographs(normal) == row["cjk_split"]
    pieces = front.pieces(row["text"])
    assert pieces == row["pieces"]
    assert front.ids(row["text"]) == front.ids_of(pieces) == row["ids"]
    for limits, expected in row["segments"].items():
        limit, quick = map(int, limits.split(","))
        assert split_segments(pieces, limit, quick=quick) == expected


def test_pinyin_found_once_is_kept_inside_words_too(front):
    """Recorded from the original, which protects the syllable wherever it stands."""
    assert front.normaliser.normalise("他读xiong2，不读naïvexiong2") == "他读XIONG2,不读naïveXIONG2"
    assert front.normaliser.normalise("读ma1，不读isma1") == "读ma1,不读isma1"


def test_recorded_segmentations_of_random_pieces():
    for row in RECORDED["segment_only"]:
        assert split_segments(row["pieces"], row["max_tokens"], quick=row["quick"]) == row["segments"]


def test_a_quote_after_an_end_mark_appears_twice():
    assert split_segments(["a", "b", ".", "'", "c", "d"], 4) == [["a", "b", ".", "'"], ["'", "c", "d"]]


def test_a_stretch_without_marks_is_cut_by_length_and_told(caplog):
    with caplog.at_level(logging.WARNING):
        assert [len(part) for part in split_segments(["a"] * 10, 4)] == [4, 1, 4, 1]
    assert "no mark to split at" in caplog.text


def test_glossary_is_applied_longest_term_first(front):
    for case in RECORDED["glossary"]["cases"]:
        assert (
            front.normaliser.normalise(case["text"], glossary=RECORDED["glossary"]["terms"])
            == case["normalized"]
        )
    assert apply_glossary("GPT GPT-5", {"GPT": "g", "gpt-5": r"five\1"}, "en") == r"g five\1"


def test_the_checkpoints_own_glossary_is_read(tmp_path):
    (tmp_path / "glossary.yaml").write_text("NVMe: N-V-M-E\nM.2:\n  en: M dot two\n", encoding="utf-8")
    terms = read_glossary(tmp_path / "glossary.yaml")
    assert apply_glossary("nvme M.2", terms, "en") == "N-V-M-E M dot two"
    assert apply_glossary("M.2", terms, "zh") == "M.2"
    assert read_glossary(tmp_path / "absent.yaml") == {}
    (tmp_path / "glossary.yaml").write_text("- just\n- a list\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="table of terms"):
        read_glossary(tmp_path / "glossary.yaml")


def test_pinyin_is_recognised_and_spelled_for_the_vocabulary():
    for syllable, expected in RECORDED["correct_pinyin"].items():
        assert correct_pinyin(syllable) == expected
    for syllable, expected in RECORDED["pinyin_match"].items():
        assert [list(parts) for parts in PINYIN.findall(syllable)] == expected


def test_many_protected_pieces_come_back_in_their_places(front):
    text = "，".join(f"字{syllable}" for syllable in ["ma1", "xun2", "ju4"] * 20)
    normal = front.normaliser.normalise(text)
    assert normal.count("XVN2") == 20
    assert normal.count("JV4") == 20
    assert "<" not in normal


def test_reading_out_can_be_switched_off_and_the_language_be_chosen(front):
    assert front.normaliser.normalise("Room 12", read_out=False) == "Room 12"
    assert front.normaliser.normalise("12", path="en") == "twelve"
    assert front.normaliser.normalise("12") == "十二"


def test_ids_are_spelled_back_as_the_original_does(front):
    for row in RECORDED["decode"]:
        assert front.spell(row["ids"]) == row["text"]
        assert front.spell(row["ids"], lower=True) == row["lower"]


def test_a_missing_piece_model_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"bpe\.model is missing"):
        TextFrontEnd(tmp_path / "bpe.model")


def test_pieces_the_model_does_not_know_are_told(front, caplog):
    assert front.ids_of(["☃"]) == [front.unknown_id]
    assert "☃" in caplog.text
