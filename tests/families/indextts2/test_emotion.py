"""Emotion numbers: the web page's arithmetic, rows of the matrices, and reading the emotion model."""

import json
import random

import pytest
import torch

from sonant.errors import CheckpointError, ConfigError, GenerationError
from sonant.families.indextts2 import classifier as classifier_module
from sonant.families.indextts2 import emotion
from sonant.families.indextts2.classifier import NAMES, EmotionClassifier, parse_answer
from sonant.request.speech import EMOTIONS
from tests.families.indextts2.conftest import DATA

RECORDED = json.loads((DATA / "emotion.json").read_text(encoding="utf-8"))


def test_order_is_the_one_of_the_style():
    assert NAMES == EMOTIONS == tuple(RECORDED["order"])


@pytest.mark.parametrize("row", RECORDED["normalize"], ids=lambda row: str(row["vector"]))
def test_recorded_arithmetic(row):
    assert emotion.balanced(row["vector"]) == pytest.approx(row["biased"], abs=1e-15)
    assert emotion.balanced(row["vector"], bias=False) == pytest.approx(row["unbiased"], abs=1e-15)
    for strength, expected in row["scaled"].items():
        assert emotion.scaled(row["vector"], float(strength)) == expected


def test_full_strength_cuts_no_decimals():
    assert emotion.with_strength([0.123456], 1.0) == [0.123456]
    assert emotion.with_strength([0.123456], 1.5) == [0.123456]
    assert emotion.with_strength([0.123456], 0.5) == [0.0617]


def test_random_rows_are_pythons_own():
    rng = random.Random(RECORDED["random_seed"])
    assert emotion.random_rows(rng, [3, 17, 2, 8, 4, 5, 10, 24]) == RECORDED["random_index"]


def test_nearest_row_is_by_angle_not_by_length():
    groups = [torch.tensor([[9.0, 0.1], [0.1, 0.2]]), torch.tensor([[1.0, 0.0]])]
    assert emotion.nearest_rows(torch.tensor([0.5, 1.0]), groups) == [1, 0]


def test_numbers_above_one_turn_the_base_around():
    base, groups = torch.tensor([1.0, 2.0]), [torch.tensor([[10.0, 0.0]])]
    mixed = emotion.mixed_rows([1.5], groups, [0])
    assert torch.equal(emotion.add_vector(base, mixed, [1.5]), torch.tensor([14.5, -1.0]))
    assert torch.equal(emotion.blend(base, torch.zeros(2), 2.0), -base)


@pytest.mark.parametrize("row", RECORDED["parser"], ids=lambda row: row["model_output"][:24])
def test_recorded_answers(row):
    if row["result"] == "raises ValueError":
        with pytest.raises(GenerationError, match="expected a number"):
            parse_answer(row["model_output"], row["user_text"])
        return
    found = dict(zip(NAMES, parse_answer(row["model_output"], row["user_text"]), strict=True))
    if row["result"] == "raises AttributeError":  # the original's bug: handled as without the word
        assert found == dict(zip(NAMES, parse_answer(row["model_output"], ""), strict=True))
    else:
        assert found == row["result"]


@pytest.fixture(scope="module")
def classifier():
    return EmotionClassifier(DATA / "emotion_model", device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("row", RECORDED["qwen"], ids=lambda row: row["text"][:12])
def test_recorded_texts_are_understood(classifier, row):
    assert classifier.prompt(row["text"]) == row["prompt"]
    assert classifier.prompt_ids(row["text"]) == row["prompt_ids"]
    assert classifier.answer_ids(row["text"]) == row["output_ids"]
    assert classifier.decode(row["output_ids"]) == row["content"]
    assert dict(zip(NAMES, classifier.classify(row["text"]), strict=True)) == row["parsed"]


def test_thoughts_before_the_answer_are_left_out(classifier):
    mark = classifier.tokenizer.token_to_id("</think>")
    answer = RECORDED["qwen"][0]["output_ids"]
    assert classifier.decode([5, 6, mark, *answer]) == RECORDED["qwen"][0]["content"]


def test_an_answer_without_an_end_is_an_error(classifier, monkeypatch):
    monkeypatch.setattr(classifier_module, "MAX_ANSWER", 3)
    with pytest.raises(GenerationError, match="did not end"):
        classifier.answer_ids("x")


def test_a_folder_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="expected qwen3"):
        EmotionClassifier(tmp_path, device="cpu", dtype=torch.float32)
    with pytest.raises(CheckpointError, match="missing"):
        EmotionClassifier(tmp_path / "absent", device="cpu", dtype=torch.float32)
