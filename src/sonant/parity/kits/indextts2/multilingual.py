"""Checks of IndexTTS-2.5's text: vocabulary, every step from the text to the ids, cutting, and lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sonant.families.indextts2.multilingual import (
    STOP,
    MultilingualFrontEnd,
    annotate,
    japanese_tagger,
    spanish_grammar,
)
from sonant.families.indextts2.s2mel import frames_of
from sonant.families.indextts2.segments import split_by_punctuation, split_by_tokens
from sonant.families.indextts2.text import Normaliser
from sonant.families.indextts2.vocabulary import LANGUAGES, SPECIAL_TOKENS, Vocabulary, language_row
from sonant.parity.kit import KitReport
from sonant.parity.kits.indextts2.folder import IndexKit


def check_text(kit: IndexKit) -> None:
    """Everything between a text and the ids of its segments."""
    front = kit.model.parts.text
    assert isinstance(front, MultilingualFrontEnd)
    _check_vocabulary(kit, front)
    _check_real_vocabulary(kit)
    data, report = kit.json("text"), kit.report
    if data is None:
        return
    for number, row in enumerate(data["rows"]):
        _check_row(report, f"text.{number}", front, row)
    with_grammar = replace(front, spanish=spanish_grammar)
    for number, row in enumerate(data.get("nemo_rows", [])):
        _check_row(report, f"text nemo.{number}", with_grammar, row, is_optional=row["lang"].lower() == "es")
    told = MultilingualFrontEnd(front.vocabulary, Normaliser(data["glossary"]["terms"]), front.positions)
    for number, row in enumerate(data["glossary"]["cases"]):
        _check_row(report, f"glossary.{number}", told, row)
    for number, row in enumerate(data["annotations"]):
        report.equal(f"annotation.{number}", "marked", annotate(row["text"]), row["result"])
    for text, is_kana in data["kana"].items():
        if text and not set(text) & set("|>\n"):
            bare = annotate(f"<a|{text}>") == f" {text.upper()} "
            report.equal("kana", text, bare, is_kana)
    for code, row in data["lang_to_token"].items():
        report.equal("language", code or "(none)", language_row(code), row)
    for number, row in enumerate(data["split_by_tokens"]):
        taken = len(front.vocabulary.encode(row["prefix"]))
        budget = max(1, min(row["max_tokens"], front.positions - 2) - taken)
        found = split_by_tokens(row["text"], budget, lambda text: len(front.vocabulary.encode(text)))
        report.equal(f"segments.{number}", f"at {row['max_tokens']} tokens", found, row["segments"])
    for number, row in enumerate(data["split_by_punctuation"]):
        found = split_by_punctuation(row["text"], row["max_chars"])
        report.equal(f"pieces.{number}", f"at {row['max_chars']} characters", found, row["segments"])


def _check_vocabulary(kit: IndexKit, front: MultilingualFrontEnd) -> None:
    data, report = kit.json("tokenizer"), kit.report
    if data is None:
        return
    vocabulary, case = front.vocabulary, "vocabulary"
    report.equal(case, "tokens", vocabulary.size, data["n_vocab"])
    report.equal(case, "ranks", vocabulary.size - len(SPECIAL_TOKENS), data["n_ranks"])
    report.equal(case, "special tokens in order", list(SPECIAL_TOKENS), data["specials_in_order"])
    report.equal(case, "languages", list(LANGUAGES), data["languages"])
    report.equal(case, "position rows", front.positions, data["capacity"])
    for number, row in enumerate(data["rows"]):
        report.equal(f"vocabulary.{number}", "ids", vocabulary.encode(row["text"]), row["ids"])
        report.equal(f"vocabulary.{number}", "text", vocabulary.decode(row["ids"]), row["decoded"])


def _check_real_vocabulary(kit: IndexKit) -> None:
    """Ids of the full-size vocabulary: of the special tokens always, of texts where the file is beside it."""
    data, report = kit.json("real_vocab"), kit.report
    if data is None:
        return
    for token, value in data["special_ids"].items():
        found = data["n_ranks"] + SPECIAL_TOKENS.index(token)
        report.equal("real vocabulary", token, found, value)
    report.equal("real vocabulary", "tokens", data["n_ranks"] + len(SPECIAL_TOKENS), data["n_vocab"])
    file = kit.folder / data["file"]
    if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == data["sha256"]:
        vocabulary = Vocabulary(file)
        for number, row in enumerate(data["rows"]):
            report.equal(f"real vocabulary.{number}", "ids", vocabulary.encode(row["text"]), row["ids"])


def _check_row(
    report: KitReport,
    case: str,
    front: MultilingualFrontEnd,
    row: Mapping[str, Any],
    *,
    is_optional: bool = False,
) -> None:
    """One text, step by step; `is_optional`: read out by a grammar that may be absent here.

    A step whose tool is not installed takes the recorded result, and what follows is checked all the same.
    """
    code = row["lang"].lower()
    text = front.mapped(row["text"])
    report.equal(case, "cleaned", text, row["cleaned"])
    if row["text_normalization"] and "normalized" in row:
        read = front.read_out(text, code, original=True)
        if not is_optional or front.spanish() is not None:
            report.equal(case, "normalized", read, row["normalized"])
        text = row["normalized"]
    text = front.cased(text, code)
    report.equal(case, "cased", text, row["cased"])
    text = annotate(text)
    report.equal(case, "annotated", text, row["annotated"])
    if code == "ja":
        if japanese_tagger() is not None:
            report.equal(case, "spaced", front.spaced(text), row["spaced"])
        text = row["spaced"]
    text = front.final(text)
    report.equal(case, "final", text, row["final"])
    segments = front.segments(text, code, row["limit"])
    report.equal(case, "segments", [segment.text for segment in segments], row["segments"])
    ids = [list(segment.ids) for segment in segments]
    report.equal(case, "ids", ids, [[*each, STOP] for each in row["ids"]])
    report.equal(case, "language row", {s.language for s in segments}, {row["lang_id"]})


def check_lengths(kit: IndexKit) -> None:
    """Mel frames of so many codes at every recorded duration."""
    data, report = kit.json("length"), kit.report
    if not data:
        return
    for codes, factor, frames in data["rows"]:
        found = frames_of(2 * codes, factor)
        report.equal("length", f"{codes} codes, {factor}", found, frames)
