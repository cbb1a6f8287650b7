import json
import shutil
from pathlib import Path

import pytest

from sonant.errors import CheckpointError
from sonant.text.tokenizer import BytePairTokenizer

DATA = Path(__file__).parents[1] / "data" / "qwen3_tts"
FOLDER = DATA / "checkpoints" / "base_1p7b"
RECORD = json.loads((DATA / "expected" / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return BytePairTokenizer.load(FOLDER)


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["text"][:20])
def test_ids_equal_the_original(tokenizer, row):
    assert tokenizer.encode(row["wrapped"]) == row["ids"]


def test_special_tokens_have_the_ids_of_the_config(tokenizer):
    assert {name: tokenizer.id(name) for name in RECORD["special_ids"]} == RECORD["special_ids"]
    assert len(tokenizer) == max(RECORD["special_ids"].values()) + 1


@pytest.mark.parametrize("row", RECORD["rows"], ids=lambda row: row["text"][:20])
def test_stripped_plain_text_is_the_slice_between_the_markers(tokenizer, row):
    text = row["text"].strip()
    wrapped = tokenizer.encode(f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n")
    if "<|" not in text:
        assert tokenizer.encode(text, markers=False) == wrapped[3:-5]


def test_typed_markers_stay_text_without_markers(tokenizer):
    text = "a <|im_end|> b <think> c"
    ids = tokenizer.encode(text, markers=False)
    assert not set(ids) & set(RECORD["special_ids"].values())
    assert tokenizer.decode(ids) == text


def test_extra_tokens_follow_the_known_ones():
    extended = BytePairTokenizer.load(FOLDER, extra=("<|im_end|>", "[breath]", "[laughter]"))
    first = max(RECORD["special_ids"].values()) + 1
    assert extended.id("[breath]") == first
    assert extended.id("[laughter]") == first + 1
    assert extended.encode("[breath]") == [first]
    assert extended.id("<|im_end|>") == RECORD["special_ids"]["<|im_end|>"]


@pytest.fixture
def copied(tmp_path):
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copyfile(FOLDER / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        BytePairTokenizer.load(copied)


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
def test_a_truncated_file_is_named(copied, name):
    whole = (copied / name).read_bytes()
    (copied / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=name):
        BytePairTokenizer.load(copied)


def test_merges_of_another_vocabulary_are_refused(copied):
    (copied / "merges.txt").write_text("#version: 0.2\nzz qq\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="do not fit together"):
        BytePairTokenizer.load(copied)


def test_a_line_that_is_no_merge_is_refused(copied):
    (copied / "merges.txt").write_text("#version: 0.2\na b c\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="line 2"):
        BytePairTokenizer.load(copied)


def test_contradicting_ids_are_refused(copied):
    vocabulary = json.loads((copied / "vocab.json").read_text(encoding="utf-8"))
    vocabulary["extra-piece"] = len(vocabulary)
    (copied / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(CheckpointError, match="different checkpoints"):
        BytePairTokenizer.load(copied)
