"""The judges of a clip: a recogniser for its words, DNSMOS for its sound, a speaker encoder for its voice.

Each comes from a package that ships its weights; nothing is fetched. What is not installed is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sonant.quality.dnsmos import Dnsmos, Mos
from sonant.readings.verifying import Recognisers
from sonant.request.audio import Audio
from sonant.text.scoring import Score, score_words
from sonant.voices.speakers import SpeakerEncoder, load_encoder, voice_vector

SPEAKERS = "likeness to the voice is not judged: it needs pip install --no-deps resemblyzer"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the judges found; None where one was not asked or not installed."""

    heard: str | None = None
    words: Score | None = None
    mos: Mos | None = None
    similarity: float | None = None
    """Cosine of the speaker vectors: one speaker 0.82 and more, two 0.6 or so."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found: dict[str, Any] = {"heard": self.heard}
        if self.words is not None:
            found |= {
                "wer": round(self.words.wer, 4),
                "cer": round(self.words.cer, 4),
                "words": self.words.words,
                "word_errors": self.words.word_errors,
                "longest_wrong": self.words.longest,
                "runs": [str(run) for run in self.words.runs],
                "missing": [" ".join(run.said) for run in self.words.runs if run.kind == "missing"],
                "repeated": [" ".join(run.heard) for run in self.words.runs if run.kind == "repeated"],
            }
        if self.mos is not None:
            found |= {"dnsmos": round(self.mos.overall, 3), "dnsmos_p808": round(self.mos.p808, 3)}
        if self.similarity is not None:
            found["similarity"] = round(self.similarity, 4)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Judges:
    """Those that are there."""

    recognisers: Recognisers
    mos: Dnsmos
    speakers: SpeakerEncoder | None
    remarks: tuple[str, ...] = ()
    """What cannot be judged, and how it could."""

    @staticmethod
    def load(language: str | None = None, text: str = "") -> Judges:
        """All of them, for clips that altogether say `text`. Raises DependencyError without the judge extra,
        RequestError where the recogniser does not understand the language named or that the text is in."""
        recognisers = Recognisers()
        recognisers.expect(text)
        recognisers.of(language, text)
        speakers = load_encoder()
        remarks = () if speakers is not None else (SPEAKERS,)
        return Judges(recognisers=recognisers, mos=Dnsmos(), speakers=speakers, remarks=remarks)

    def judge(
        self,
        audio: Audio,
        *,
        text: str | None = None,
        language: str | None = None,
        reference: Audio | None = None,
    ) -> Judgement:
        """What is heard in a clip, how it sounds, and how much its voice is that of the reference.

        Without a text, words are heard and not scored; without a reference there is no similarity.
        """
        recogniser = self.recognisers.of(language, text or "")
        if text is not None:
            language = language or self.recognisers.language_of(None, text)
        heard = recogniser.hear(audio, language=language).text if audio.samples.any() else ""
        similarity = None
        if reference is not None and self.speakers is not None:
            one, other = (voice_vector(clip, self.speakers) for clip in (audio, reference))
            similarity = float(one @ other) if one is not None and other is not None else None
        return Judgement(
            heard=heard,
            words=score_words(text, heard, language) if text is not None else None,
            mos=self.mos.score(audio),
            similarity=similarity,
        )
