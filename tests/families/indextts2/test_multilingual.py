"""IndexTTS-2.5's text: its vocabulary, every step from the text to the ids, and the cutting."""

import base64
import json
from dataclasses import replace

import pytest

from sonant.errors import CheckpointError, RequestError
from sonant.families.indextts2 import multilingual
from sonant.families.indextts2.multilingual import (
    STOP,
    MultilingualFrontEnd,
    annotate,
    find_language,
    no_grammar,
)
from sonant.families.indextts2.segments import split_by_punctuation, split_by_tokens
from sonant.families.indextts2.text import Normaliser
from sonant.families.indextts2.vocabulary import LANGUAGES, SPECIAL_TOKENS, Vocabulary, language_row
from tests.families.indextts2.conftest import DATA25

VOCABULARY = DATA25 / "multilingual_zh_ja_yue_char_del.tiktoken"
TEXT = json.loads((DATA25 / "text.json").read_text(encoding="utf-8"))
TOKENS = json.loads((DATA25 / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(VOCABULARY)


@pytest.fixture(scope="module")
def front(vocabulary):
    return MultilingualFrontEnd(vocabulary, Normaliser(), TOKENS["capacity"], no_grammar)


def test_recorded_ids(vocabulary):
    assert vocabulary.size == TOKENS["n_vocab"]
    assert list(SPECIAL_TOKENS) == TOKENS["specials_in_order"]
    for row in TOKENS["rows"]:
        assert vocabulary.encode(row["text"]) == row["ids"]
        assert vocabulary.decode(row["ids"]) == row["decoded"]


def test_language_rows_are_places_in_the_table_of_codes():
    assert list(LANGUAGES) == TOKENS["languages"]
    assert {code: language_row(code) for code in TEXT["lang_to_token"]} == TEXT["lang_to_token"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (None, "missing"),
        ("IQ== 0\nrubbish\n", "line 2"),
        ("IQ== 0\nIg== 2\n", "do not count"),
        ("IQ== 0\nIg== 1\n", "256 single bytes"),
        ("你 0\n", "no vocabulary"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path, lines, told):
    file = tmp_path / "vocabulary.tiktoken"
    if lines is not None:
        file.write_text(lines, encoding="utf-8")
    with pytest.raises(CheckpointError, match=told):
        Vocabulary(file)


def test_a_vocabulary_of_another_size_works(tmp_path):
    extra = [b"he", b"hell", b"hello", b"", b" \xe4\xbd\xa0"]
    tokens = [bytes((value,)) for value in range(256)] + extra
    file = tmp_path / "other.tiktoken"
    file.write_text("".join(f"{base64.b64encode(t).decode() or '='} {n}\n" for n, t in enumerate(tokens)))
    vocabulary = Vocabulary(file)
    assert vocabulary.size == 261 + len(SPECIAL_TOKENS)
    # no merge leads to the last two; a stretch that is one of them as a whole is taken at once
    assert vocabulary.encode("hello 你") == [258, 260]
    assert vocabulary.encode("<|endoftext|>") == [261]


@pytest.mark.parametrize(
    "row", TEXT["rows"] + TEXT["nemo_rows"], ids=lambda row: f"{row['lang']}-{row['limit']}"
)
def test_every_recorded_step(front, row):
    code = row["lang"].lower()
    text = front.mapped(row["text"])
    assert text == row["cleaned"]
    if row["text_normalization"] and "normalized" in row:
        read = front.read_out(text, code, original=True)
        if row not in TEXT["nemo_rows"]:  # recorded with a grammar that is not always there
            assert read == row["normalized"]
        text = row["normalized"]
    text = front.cased(text, code)
    assert text == row["cased"]
    text = annotate(text)
    assert text == row["annotated"]
    if code == "ja":
        text = front.spaced(text)
        assert text == row["spaced"]
    text = front.final(text)
    assert text == row["final"]
    segments = front.segments(text, code, row["limit"])
    assert [segment.text for segment in segments] == row["segments"]
    assert [list(segment.ids) for segment in segments] == [[*ids, STOP] for ids in row["ids"]]
    assert {segment.language for segment in segments} == {row["lang_id"]}


@pytest.mark.parametrize("row", TEXT["rows"][:30], ids=lambda row: row["text"][:16])
def test_the_original_way_is_all_steps_in_order(front, row):
    spoken = front.spoken(row["text"], row["lang"].lower(), read_out=row["text_normalization"], original=True)
    assert spoken == row["final"]


def test_recorded_annotations_and_kana():
    for row in TEXT["annotations"]:
        assert annotate(row["text"]) == row["result"]
    for text, is_kana in TEXT["kana"].items():
        if text and ">" not in text:
            assert (annotate(f"<a|{text}>") == f" {text.upper()} ") == is_kana


def test_recorded_cuts(vocabulary):
    for row in TEXT["split_by_tokens"]:
        budget = max(
            1, min(row["max_tokens"], TOKENS["capacity"] - 2) - len(vocabulary.encode(row["prefix"]))
        )
        found = split_by_tokens(row["text"], budget, lambda text: len(vocabulary.encode(text)))
        assert found == row["segments"]
        assert "".join(found) == row["text"]
    for row in TEXT["split_by_punctuation"]:
        assert split_by_punctuation(row["text"], row["max_chars"]) == row["segments"]


def test_a_recorded_glossary():
    terms = TEXT["glossary"]["terms"]
    front = MultilingualFrontEnd(Vocabulary(VOCABULARY), Normaliser(terms), TOKENS["capacity"])
    for row in TEXT["glossary"]["cases"]:
        assert front.spoken(row["text"], row["lang"].lower(), original=True) == row["final"]


def test_numbers_of_every_language_are_read_as_words(front):
    assert front.spoken("Son las 8:30, cuesta $10.", "es") == "SON LAS OCHO Y TREINTA, CUESTA DIEZ DÓLARES."
    assert front.spoken("See you at 8:00 AM", "en") == "see you at eight am"
    assert not any(letter.isdigit() for letter in front.spoken("2024年に買った。", "ja"))
    assert not any(letter.isdigit() for letter in front.spoken("لدي 25 كتابا، و 3.5 كيلو.", "ar"))
    assert not any(letter.isdigit() for letter in front.spoken("J'ai 25 ans.", "fr"))


def test_digits_that_reach_the_model_are_told(front, caplog):
    assert front.spoken("Tengo 25 años.", "es", original=True) == "TENGO 25 AÑOS."
    assert "25 as digits" in caplog.text
    caplog.clear()
    assert front.spoken("qa 25", "klingon") == "qa 25"
    assert "25 as digits" in caplog.text
    for text, code in (("これは2024年の", "ja"), ("لدي 2024 كتابا", "ar"), ("J'ai 2024 ans.", "fr")):
        caplog.clear()
        assert "2024" in front.spoken(text, code, original=True)
        assert "2024 as digits" in caplog.text
    caplog.clear()
    front.spoken("<行|XING2>と<|SPECIAL_TOKEN_1|>", "ja", original=True)
    assert "as digits" not in caplog.text  # a pronunciation's digits are meant


def test_the_originals_spanish_grammar_is_taken_where_it_is_there(front, caplog):
    def read(text):
        if "25" in text:
            raise RuntimeError("no path")
        return text.replace("3", "tres")

    told = replace(front, spanish=lambda: read)
    assert told.spoken("Tengo 3 años.", "es", original=True) == "TENGO TRES AÑOS."
    assert told.spoken("Tengo 25.", "es", original=True) == "TENGO 25."
    assert "gave up (no path)" in caplog.text


def test_nemos_grammar_without_nemo(front):
    pytest.importorskip("kitten_text_processing")
    told = replace(front, spanish=multilingual.spanish_grammar)
    for row in TEXT["nemo_rows"]:
        if row["lang"].lower() == "es":
            assert told.spoken(row["text"], "es", original=True) == row["final"]


def test_japanese_blanks_leave_annotations_whole(front):
    spoken = front.spoken("<今日|キョウ>は<漢字|KANJI1>と", "ja")
    assert " キョウ " in spoken
    assert "<|SPECIAL_TOKEN_2|>KANJI1<|SPECIAL_TOKEN_2|>" in spoken


def test_without_mecab_japanese_says_so(front, caplog, monkeypatch):
    monkeypatch.setattr(multilingual, "japanese_tagger", lambda: None)
    assert front.spoken("これはテスト。", "ja") == "これはテスト."
    assert "sonant[japanese]" in caplog.text
    caplog.clear()
    front.spoken("<行|XING2>人 は <今日|キョウ>と", "ja")
    assert caplog.text.count("sonant[japanese]") == 1


def test_annotations_in_sonants_own_form(front):
    spoken = front.spoken("[minute](/M IH1 . N AH0 T/) 5", "en")
    assert spoken == "<|SPECIAL_TOKEN_1|>M IH1 . N AH0 T<|SPECIAL_TOKEN_1|> five"


def test_an_annotation_longer_than_the_model_is_refused(front):
    with pytest.raises(RequestError, match="Annotate shorter"):
        front.segments(front.spoken(f"<a|{'xyz ' * 200}>", "en"), "en", 120)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hello there.", "en"), ("你好，世界。", "zh"), ("これはテスト。", "ja"), 
        ("¿Dónde está el niño?", "es"), ("مرحبا بك ABC", "ar"), ("12 + 13", "en"), ("今天 very good", "zh"),
    ],
)  # fmt: skip
def test_the_language_is_found(text, code):
    assert find_language(text) == code


@pytest.mark.parametrize("text", ["a" * 20_000, "，" * 10_000, "<a|b>" * 2_000, "<|" * 10_000, "1 " * 5_000])
def test_long_odd_texts_take_linear_time(front, text):
    spoken = front.spoken(text, "en", read_out=False)
    segments = front.segments(spoken, "en", 120)
    assert "".join(segment.text for segment in segments) == spoken
