"""Drift of a voice over a reading: found where it was planted, not where it was not."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from sonant.books.drift import LEAST_LINES, drift_of, plot
from sonant.books.narration import Heard, Line

RATE = 16_000


def voice(seconds, pitch, level, chance):
    """A buzz with syllables, four a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = pitch * (1 + 0.02 * chance.standard_normal())
    buzz = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 12))
    return (level * buzz * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)) * 0.2).astype(np.float32)


def book(count, pitch=lambda x: 120.0, level=lambda x: 0.5, pace=lambda x: 14.0, role="narrator"):
    """Lines whose voice is a function of their place, 0 to 1."""
    chance = np.random.default_rng(3)
    heard, samples, at = [], {}, 0.0
    for n in range(count):
        x = n / max(count - 1, 1)
        seconds = 2.0 + 0.3 * chance.random()
        line = Line(0, n, "a" * round(pace(x) * seconds * (1 + 0.02 * chance.standard_normal())), 0.3, role)
        samples[line] = voice(seconds, pitch(x), level(x), chance)
        heard.append(Heard(line, at, at + seconds))
        at += seconds + 0.3
    return heard, samples.__getitem__


def drifts(heard, samples_of):
    return {change.trait for change in drift_of(heard, samples_of, RATE).changes if change.drifts}


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({}, set()),
        ({"pitch": lambda x: 120 * 2 ** (x * 3 / 12)}, {"pitch"}),
        ({"level": lambda x: 0.5 * 10 ** (-x * 6 / 20)}, {"loudness"}),
        ({"pace": lambda x: 14 * (1 + 0.2 * x)}, {"articulation_rate"}),
    ],
)
def test_a_planted_drift_is_found_and_nothing_else(planted, found, monkeypatch):
    monkeypatch.setattr("sonant.books.drift._encoder", lambda: None)
    assert drifts(*book(24, **planted)) == found


def test_numbers_are_of_the_thirds(monkeypatch):
    monkeypatch.setattr("sonant.books.drift._encoder", lambda: None)
    result = drift_of(*book(24, pitch=lambda x: 100.0 if x < 0.5 else 200.0), RATE)
    pitch = next(change for change in result.changes if change.trait == "pitch")
    assert (pitch.first, pitch.last) == (pytest.approx(0, abs=0.01), pytest.approx(12, abs=0.3))
    assert pitch.interval[0] < 12 < pitch.interval[1]
    told = result.as_dict()
    assert told["drifts"] == ["narrator: pitch"]
    assert told["measured_lines"] == 24
    assert "resemblyzer" in told["remarks"][0]


def test_likeness_falls_where_another_speaks(monkeypatch):
    """By a stand-in for the speaker encoder."""
    monkeypatch.setattr(
        "sonant.books.drift._encoder",
        lambda: (
            lambda audio: np.array(
                [1.0, 0.0] if np.abs(audio.samples).max() > 0.12 else [0.8, 0.6], np.float32
            )
        ),
    )
    assert "likeness" in drifts(*book(24, level=lambda x: 0.5 if x < 0.6 else 0.2))
    assert "likeness" not in drifts(*book(24))


def test_a_role_with_few_lines_is_told_and_not_judged(monkeypatch):
    monkeypatch.setattr("sonant.books.drift._encoder", lambda: None)
    result = drift_of(*book(3 * LEAST_LINES - 1), RATE)
    assert not result.changes
    assert "are needed" in result.remarks[-1]
    assert drift_of([], lambda line: None, RATE).changes == ()


def test_the_plot_is_a_picture_of_every_line(monkeypatch):
    monkeypatch.setattr("sonant.books.drift._encoder", lambda: None)
    result = drift_of(*book(30, role="Ann & <Bob>"), RATE)
    root = ElementTree.fromstring(plot(result, "A <book>"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}circle")) == 3 * 30
    assert len(root.findall(f"{space}line")) == 3 * 3
