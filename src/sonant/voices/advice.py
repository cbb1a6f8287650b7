"""Is a clip a good reference for a voice? Advice in words, worst first."""

from __future__ import annotations

from dataclasses import dataclass

from sonant.audio.measure import Measurement, measure
from sonant.request.audio import Audio

SHORTEST, LONGEST = 3.0, 30.0
"""Seconds; between 5 and 15 is best with every family."""
LEAST_RATE = 16_000
SHORT_TAIL = 0.05
"""Seconds of silence at the end; with less, the last word is probably cut off."""
MOST_EDGE = 1.0
"""Seconds of silence at either end."""
SLOWEST, FASTEST = 4.0, 28.0
"""Letters a second between which transcripts of real speech lie (English reads at about 15)."""
IDEOGRAPH = 3.0
"""Letters that one Chinese character or kana counts for."""


@dataclass(frozen=True)
class Advice:
    """One remark on a clip; a problem is heard in the cloned voice, a note may be."""

    is_problem: bool
    message: str


@dataclass(frozen=True)
class Checkup:
    """Figures of a clip and what they mean for cloning."""

    measurement: Measurement
    advice: tuple[Advice, ...]

    @property
    def is_good(self) -> bool:
        """True when nothing is wrong with the clip."""
        return not any(remark.is_problem for remark in self.advice)


def check_clip(audio: Audio, *, transcript: str | None = None) -> Checkup:
    """What a clip, and the transcript said to belong to it, are worth as a reference."""
    found = measure(audio.samples, audio.sample_rate)
    problems = [Advice(True, message) for message in found.problems()]
    if found.peak > 0:
        problems += [Advice(True, message) for message in _length(found)]
        if transcript is not None:
            problems += [Advice(True, message) for message in _pace(found, transcript)]
    notes = [Advice(False, message) for message in _notes(found)] if found.peak > 0 else []
    return Checkup(found, (*problems, *notes))


def _length(found: Measurement) -> list[str]:
    if found.seconds < SHORTEST:
        return [
            f"It lasts {found.seconds:.1f} s; at least {SHORTEST:g} s are needed, 5 to 15 s are best. "
            "Record more."
        ]
    if found.seconds > LONGEST:
        return [f"It lasts {found.seconds:.0f} s; 5 to 15 s are best. Cut it to one clear passage."]
    return []


def _pace(found: Measurement, transcript: str) -> list[str]:
    letters = sum(
        IDEOGRAPH if "\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af" else 1.0
        for letter in transcript
        if letter.isalnum()
    )
    if not letters:
        return ["The transcript has no words. Write down what the clip says, word for word."]
    pace = letters / max(found.seconds * (1 - found.silence_share), 0.1)
    if SLOWEST <= pace <= FASTEST:
        return []
    fewer = "fewer" if pace < SLOWEST else "more"
    return [
        f"The transcript has {fewer} words than {found.seconds:.1f} s of speech can hold ({pace:.0f} "
        "letters a second). Write down all that the clip says, and nothing else."
    ]


def _notes(found: Measurement) -> list[str]:
    notes = []
    if found.sample_rate < LEAST_RATE:
        notes.append(
            f"It is sampled at {found.sample_rate} Hz, so the voice will sound dull. Use 24 kHz or more."
        )
    if found.trailing_silence < SHORT_TAIL:
        notes.append("It ends without silence, so its last word may be cut off. End after a pause of 0.2 s.")
    for edge, seconds in (("begins", found.leading_silence), ("ends", found.trailing_silence)):
        if seconds > MOST_EDGE:
            notes.append(f"It {edge} with {seconds:.1f} s of silence. Cut it.")
    return notes
