"""The front end that writes text as pairs of sounds, one pair a codec frame."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from sonant.text.paced_phonemes import (
    INDEX,
    SYMBOLS,
    PacedPhonemes,
    PaceModel,
    frames,
    slots,
    sounds,
    spell,
)


@pytest.fixture
def front_end(tmp_path):
    torch.manual_seed(0)
    model = PaceModel(width=8)
    model.out.bias.data.fill_(4.4)  # about 80 ms a sound
    save_file(model.state_dict(), tmp_path / "front_end.safetensors")
    numbers = {"slot_ms": 40.0, "lead_frames": 2, "edge_ms": 200.0}
    (tmp_path / "front_end.json").write_text(json.dumps(numbers))
    return PacedPhonemes.load(tmp_path)


def test_symbols_are_letters_and_differ():
    assert len(INDEX) == len(SYMBOLS)
    assert all(char.isalpha() for symbol in SYMBOLS for char in symbol)


def test_stress_belongs_to_the_vowel_and_a_space_to_the_sound_before():
    parts = sounds("həlˈO ðɛɹ.")
    assert [p.symbol for p in parts] == ["ǁ", "h", "ə", "l", "ˈO", "ð", "ɛ", "ɹ", "ǁ", "ǁ"]
    assert [p.ends_word for p in parts] == [True] + [False] * 3 + [True] + [False] * 4 + [True]


def test_every_character_is_counted_once():
    text = "wʊd ju lˈIk, ɐ kˌʌp?"
    covered = [c for part in sounds(text) for c in range(part.first, part.last)]
    assert covered == list(range(len(text) + 2))


def test_question_and_pause_have_their_own_silence():
    assert [p.symbol for p in sounds("ɑ, b?")][1:-1] == ["ɑ", "ǀ", "b", "ǂ"]


def test_slots_give_everyone_one_and_keep_the_total():
    counts = slots([10, 10, 100, 200, 5], 40)
    assert min(counts) == 1
    assert sum(counts) == 9  # 325 ms are 8.1 slots; the last sound still gets its own


def test_frames_pair_the_slots():
    assert frames(["a", "b"], [1, 2]) == [("a", "b"), ("b", "b")]
    assert spell([("a", "b"), ("ˈO", "l")]) == " ab ˈOl"


def test_text_becomes_words_of_two_sounds(front_end):
    spelled = front_end("Hello there. How are you?")
    words = spelled.split(" ")[1:]
    pairs = {a + b for a in SYMBOLS for b in SYMBOLS}
    assert len(words) > 10
    assert set(words) <= pairs


def test_a_faster_pace_gives_fewer_frames(front_end):
    text = "A rather long sentence, said slowly."
    assert len(front_end.frames(text, 2.0)) < len(front_end.frames(text)) < len(front_end.frames(text, 0.5))
