"""The doctor of reference clips: is one good enough for a voice, and what is wrong with it.

One examination for the command line, the server and the studio; figures and thresholds are for one speaker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sonant.audio.acoustics import Acoustics, acoustics
from sonant.audio.measure import SILENCE_FLOOR, Measurement, measure
from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.request.speech import language_name
from sonant.text.scoring import SHOWN, score_words
from sonant.voices.speakers import voices_apart

if TYPE_CHECKING:
    from sonant.voices.recogniser import Heard, Recogniser
    from sonant.voices.speakers import SpeakerEncoder

SHORTEST, LONGEST = 3.0, 30.0
"""Seconds; between 5 and 15 is best with every family."""
HOPELESS_SECONDS = 0.5
"""Nothing shorter is a voice to any family."""
LEAST_RATE = 16_000
SHORT_TAIL = 0.05
"""Seconds of silence at the end; with less, the last word is probably cut off."""
MOST_EDGE = 1.0
"""Seconds of silence at either end."""
SLOWEST, FASTEST = 4.0, 28.0
"""Letters a second between which transcripts of real speech lie (English reads at about 15)."""
IDEOGRAPH = 3.0
"""Letters that one Chinese character or kana counts for."""

# dB from speech to what is left in its dips; measured on clean speech (60) with white noise added.
STEADY = 4.0
"""A sound that hardly rises and falls is no speech: noise 0.7, a tone 0, speech in as much noise 5."""
NOISY, HISSING = 20.0, 32.0
TONES = 30.0
"""dB by which tones stand out in the pauses: noise 9, dry speech 17, a room's tail 24, music 59 and more."""
NARROW = 6_500.0
"""Hz; a telephone ends at 3,400, wide-band calls at 7,000."""
HALL = 0.55
"""Seconds of reverberation by the estimate: 0.8 s reads as 0.46 to 0.72, dry speech as 0.16 to 0.3."""
SEVERAL, DOUBTFUL = 0.72, 0.8
"""Cosine between the two most likely voices of a clip: one speaker 0.89 to 0.93, two 0.61 to 0.67, and 0.84
to 0.86 for two that are much alike."""
LEAST_COVERED, WELL_COVERED, LONGEST_GAP = 0.7, 0.9, 5
"""Share of the words that transcript and recogniser have in common, and words in a row that only one has; the
recogniser errs too."""

About = Literal[
    "speech", "length", "level", "clipping", "rumble", "noise", "bandwidth", "reverberation", "silence",
    "music", "language", "transcript", "speakers",
]  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """One remark on a clip; a problem is heard in the cloned voice, a note may be."""

    is_problem: bool
    message: str
    about: About = "speech"
    is_hopeless: bool = False
    """There is no voice in it: it is refused."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"is_problem": self.is_problem, "about": self.about, "message": self.message}


@dataclass(frozen=True)
class Checkup:
    """Figures of a clip and what they mean for cloning."""

    measurement: Measurement
    advice: tuple[Advice, ...]
    acoustics: Acoustics | None = None
    """None for a silent clip."""
    heard: Heard | None = None
    """What a recogniser understood, where one was asked."""
    apart: float | None = None
    """Cosine between the two voices that are most likely in it, where a speaker encoder was asked."""

    @property
    def is_good(self) -> bool:
        """True when nothing is wrong with the clip."""
        return not any(remark.is_problem for remark in self.advice)


def examine(
    audio: Audio,
    *,
    transcript: str | None = None,
    language: str | None = None,
    recogniser: Recogniser | None = None,
    encoder: SpeakerEncoder | None = None,
) -> Checkup:
    """What a clip, and the transcript and language said to belong to it, are worth as a reference.

    A recogniser, where given, also listens: to what is said, and in which language; a speaker encoder hears
    whether several people speak.
    """
    found = measure(audio.samples, audio.sample_rate)
    if found.peak == 0 or round(found.seconds, 2) < HOPELESS_SECONDS:
        return Checkup(found, tuple(_hopeless(found, None)) or _measured(found))
    room = acoustics(audio.samples, audio.sample_rate)
    remarks = _hopeless(found, room)
    if remarks:
        return Checkup(found, tuple(remarks), room)
    remarks += [*_measured(found), *_length(found), *_room(found, room)]
    apart = voices_apart(audio, encoder) if encoder is not None else None
    remarks += _speakers(apart)
    heard = recogniser.hear(audio, language=language) if recogniser is not None else None
    if transcript is not None:
        covered = _coverage(transcript, heard) if heard is not None and heard.can_judge(language) else None
        remarks += _pace(found, transcript) if covered is None else covered
    if heard is not None:
        remarks += _language(heard, language)
    remarks += _notes(found)
    remarks.sort(key=lambda remark: not remark.is_problem)
    return Checkup(found, tuple(remarks), room, heard, apart)


def refuse_hopeless(checkup: Checkup, *, field: str) -> None:
    """Raise RequestError for a clip in which there is no voice."""
    for remark in checkup.advice:
        if remark.is_hopeless:
            raise RequestError(f"this clip can be no voice: {remark.message}", field=field)


def _hopeless(found: Measurement, room: Acoustics | None) -> list[Advice]:
    def hopeless(message: str, about: About) -> list[Advice]:
        return [Advice(True, message, about, is_hopeless=True)]

    if found.peak < 1e-3 or found.loudness < SILENCE_FLOOR:
        return hopeless("The recording is silent (below -60 dB). Check the microphone.", "level")
    if round(found.seconds, 2) < HOPELESS_SECONDS:
        return hopeless(
            f"It lasts {found.seconds:.2f} s; a voice needs {HOPELESS_SECONDS:g} s at least, and 5 to 15 s "
            "to sound well. Record more.",
            "length",
        )
    if room is not None and room.noise_distance < STEADY:
        return hopeless(
            f"It is one steady sound (it rises and falls by {room.noise_distance:.0f} dB; speech does by 20 "
            "and more), such as noise or a tone. Record speech.",
            "noise",
        )
    return []


_SAID: tuple[tuple[str, About], ...] = (
    ("quiet", "level"), ("loud", "level"), ("clipped", "clipping"), ("DC offset", "rumble"),
    ("below any voice", "rumble"), ("silence", "silence"), ("silent", "silence"),
)  # fmt: skip


def _measured(found: Measurement) -> tuple[Advice, ...]:
    return tuple(
        Advice(True, message, next((about for words, about in _SAID if words in message), "speech"))
        for message in found.problems()
    )


def _room(found: Measurement, room: Acoustics) -> list[Advice]:
    remarks: list[Advice] = []
    distance = room.noise_distance
    if room.pause_tones > TONES and distance < 45.0:
        remarks.append(
            Advice(
                distance < HISSING,
                f"There is music, or a hum, {distance:.0f} dB under the voice. It will be heard in the "
                "cloned voice. Record without it.",
                "music",
            )
        )
    elif distance < HISSING:
        remarks.append(
            Advice(
                distance < NOISY,
                f"There is noise {distance:.0f} dB under the voice; 40 dB and more are good. Record in a "
                "quieter place, or nearer.",
                "noise",
            )
        )
    if room.bandwidth < min(NARROW, 0.4 * found.sample_rate):
        remarks.append(
            Advice(
                True,
                f"There is nothing above {room.bandwidth:,.0f} Hz, as on a telephone; the file's rate of "
                f"{found.sample_rate:,} Hz promises more. Look for the original recording.",
                "bandwidth",
            )
        )
    if room.reverberation is not None and room.reverberation > HALL:
        remarks.append(
            Advice(
                False,
                f"It sounds like a large or bare room (about {room.reverberation:.1f} s of reverberation). "
                "Record nearer to the microphone, or between soft furniture.",
                "reverberation",
            )
        )
    return remarks


def _speakers(apart: float | None) -> list[Advice]:
    if apart is None or apart >= DOUBTFUL:
        return []
    surely = apart < SEVERAL
    told = "Several people speak in it" if surely else "Several people may speak in it"
    message = f"{told} (two voices in it are {apart:.2f} alike; one is at 0.85 and more). Keep one of them."
    return [Advice(surely, message, "speakers")]


def _coverage(transcript: str, heard: Heard) -> list[Advice]:
    match = score_words(transcript, heard.text, heard.language)
    if match.share >= WELL_COVERED and match.longest < LONGEST_GAP:
        return []
    parts = []
    missing = [word for run in match.runs for word in run.heard][:SHOWN]
    extra = [word for run in match.runs for word in run.said][:SHOWN]
    if missing:
        parts.append(f"heard and not written: {', '.join(missing)}")
    if extra:
        parts.append(f"written and not heard: {', '.join(extra)}")
    return [
        Advice(
            match.share < LEAST_COVERED or match.longest >= LONGEST_GAP,
            f"The transcript and what a recogniser hears have {match.share:.0%} of their words in common "
            f"({'; '.join(parts)}). Write down all that the clip says, and nothing else.",
            "transcript",
        )
    ]


def _language(heard: Heard, language: str | None) -> list[Advice]:
    named = language_name(language)
    if heard.language is None or heard.certainty < 0.6 or named in (None, language_name(heard.language)):
        return []
    return [
        Advice(
            True,
            f"It is said to be {named}, and sounds like {language_name(heard.language)}. Name the language "
            "that is spoken in it.",
            "language",
        )
    ]


def _length(found: Measurement) -> list[Advice]:
    if round(found.seconds, 1) < SHORTEST:  # as it is told: what is 3.0 s is not too short for 3
        return [
            Advice(
                True,
                f"It lasts {found.seconds:.1f} s; at least {SHORTEST:g} s are needed, 5 to 15 s are best. "
                "Record more.",
                "length",
            )
        ]
    if found.seconds > LONGEST:
        message = f"It lasts {found.seconds:.0f} s; 5 to 15 s are best. Cut it to one clear passage."
        return [Advice(True, message, "length")]
    return []


def _pace(found: Measurement, transcript: str) -> list[Advice]:
    letters = sum(
        IDEOGRAPH if "\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7af" else 1.0
        for letter in transcript
        if letter.isalnum()
    )
    if not letters:
        message = "The transcript has no words. Write down what the clip says, word for word."
        return [Advice(True, message, "transcript")]
    pace = letters / max(found.seconds * (1 - found.silence_share), 0.1)
    if SLOWEST <= pace <= FASTEST:
        return []
    fewer = "fewer" if pace < SLOWEST else "more"
    message = (
        f"The transcript has {fewer} words than {found.seconds:.1f} s of speech can hold ({pace:.0f} "
        "letters a second). Write down all that the clip says, and nothing else."
    )
    return [Advice(True, message, "transcript")]


def _notes(found: Measurement) -> list[Advice]:
    notes = []
    if found.sample_rate < LEAST_RATE:
        message = (
            f"It is sampled at {found.sample_rate} Hz, so the voice will sound dull. Use 24 kHz or more."
        )
        notes.append(Advice(False, message, "bandwidth"))
    if found.trailing_silence < SHORT_TAIL:
        message = "It ends without silence, so its last word may be cut off. End after a pause of 0.2 s."
        notes.append(Advice(False, message, "silence"))
    for edge, seconds in (("begins", found.leading_silence), ("ends", found.trailing_silence)):
        if seconds > MOST_EDGE:
            notes.append(Advice(False, f"It {edge} with {seconds:.1f} s of silence. Cut it.", "silence"))
    return notes
