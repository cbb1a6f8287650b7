"""The judges themselves, where their packages are; and a clear refusal where they are not."""

import sys

import numpy as np
import pytest

from sonant.engine.engine import Engine
from sonant.errors import DependencyError
from sonant.families.builtin.model import BuiltinModel
from sonant.quality import dnsmos
from sonant.quality.judges import Judges
from sonant.request.audio import Audio
from sonant.request.speech import SpeechRequest
from sonant.text import scoring

CHIRP = (2.0367760, 2.0760195)
"""What speechmos 0.0.1.1 itself gives for the chirp below: ovrl_mos and p808_mos."""
TEXT = "The old lighthouse keeper climbed the spiral stairs just before midnight."


@pytest.fixture(scope="module")
def speech():
    with Engine(BuiltinModel()) as engine:
        return engine.synthesize(SpeechRequest(TEXT, seed=1))


def noisy(audio, share):
    noise = np.random.default_rng(0).normal(0, share, len(audio.samples))
    return Audio((audio.samples + noise).astype(np.float32).clip(-1, 1), audio.sample_rate)


def test_dnsmos_hears_noise_and_gives_the_packages_own_figures(speech):
    pytest.importorskip("speechmos", reason="needs the judge extra")
    judge = dnsmos.Dnsmos()
    clean, bad = judge.score(speech), judge.score(noisy(speech, 0.05))
    assert clean.overall > 3.0 > 2.5 > bad.overall
    assert clean.p808 > bad.p808 + 0.5
    assert judge.score(Audio(np.zeros(16_000, np.float32), 16_000)) is None
    time = np.arange(10 * 16_000) / 16_000
    chirp = (0.3 * np.sin(2 * np.pi * (200 * time + 60 * time**2)) * (time % 1 < 0.6)).astype(np.float32)
    found = judge.score(Audio(chirp, 16_000))
    assert found.overall == pytest.approx(CHIRP[0], abs=2e-3)
    assert found.p808 == pytest.approx(CHIRP[1], abs=2e-3)


@pytest.mark.slow
def test_all_judges_agree_that_it_is_speech(speech):
    pytest.importorskip("faster_whisper", reason="needs the judge extra")
    pytest.importorskip("speechmos", reason="needs the judge extra")
    judges = Judges.load()
    found = judges.judge(speech, text=TEXT, reference=speech)
    assert found.words.wer == 0
    assert found.mos.overall > 3.0
    assert found.similarity is None or found.similarity > 0.99
    wrong = judges.judge(speech, text=TEXT.replace("lighthouse keeper climbed", "baker sold"))
    assert wrong.words.longest >= 2
    assert set(wrong.as_dict()) >= {"wer", "cer", "missing", "repeated", "dnsmos", "heard"}


def test_without_the_packages_they_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(dnsmos, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"sonant\[judge\]"):
        dnsmos.Dnsmos()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(DependencyError, match=r"sonant\[judge\]"):
        Judges.load()
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    with pytest.raises(DependencyError, match=r"sonant\[judge\]"):
        scoring.score_words("a", "b")
