"""Speech that is listened to while it is made: a segment that is heard wrong is spoken again.

A recogniser writes down each segment as soon as it is whole. It is wrong when a stretch of it is
(`MOST_WRONG` words in a row, or half of a short segment), not when the average is: ten seconds of garbage
hardly move the word error rate of a page. A wrong segment is spoken again by itself with derived seeds; the
best try is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sonant.engine.engine import Engine
from sonant.errors import GenerationError, RequestError, SonantError
from sonant.request.audio import Audio, Samples
from sonant.request.seeds import segment_seed
from sonant.request.speech import AudioChunk, GuardEvent, SpeechRequest, language_name
from sonant.text.language import detect_language
from sonant.text.scoring import Score, score_words

if TYPE_CHECKING:
    from sonant.voices.recogniser import Recogniser

log = logging.getLogger(__name__)

MOST_WRONG = 4.0
"""Words in a row that make a segment wrong; recognisers mistake one to three themselves, names above all."""
SHARE_WRONG, SHORT = 0.5, 2.0
"""Of a segment with few words, the share that is wrong; with at least so many words."""
AGAIN = 1 << 41
"""Seeds of segments that are heard wrong are derived with numbers from here on; the guards' own are lower."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a recogniser made of one segment."""

    segment: int
    text: str
    heard: str
    wer: float
    longest: float
    """Words of the longest wrong run."""
    runs: tuple[str, ...]
    tries: int
    """How often it was spoken again."""
    is_right: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"wer": round(self.wer, 4), "runs": list(self.runs)}


def is_wrong(score: Score) -> bool:
    """Whether what was heard of a segment is wrong, by its longest run."""
    return score.longest >= min(MOST_WRONG, max(SHORT, SHARE_WRONG * score.words))


class Recognisers:
    """Recognisers by language, loaded when they are first needed."""

    def __init__(self) -> None:
        self._of: dict[str, Recogniser] = {}
        self._expected: str | None = None

    def expect(self, text: str) -> None:
        """Decide by the whole of a text, once, which language its sentences are in where none is named: a
        short one ("Am I?", "He met Mr. de la Cruz.") does not tell."""
        self._expected = self._expected or detect_language(text)

    def language_of(self, language: str | None, text: str) -> str:
        """The language that is named, or the one expected, or the one that the text seems to be in."""
        return language_name(language) or self._expected or detect_language(text) or "english"

    def of(self, language: str | None, text: str) -> Recogniser:
        """One that understands the language that is named, or that the text is in. Raises DependencyError
        without the extra, RequestError where what is installed knows English only and that is not it."""
        from sonant.voices.recogniser import Recogniser

        spoken = self.language_of(language, text)
        if spoken not in self._of:
            self._of[spoken] = Recogniser.of_language(spoken)
        if not self._of[spoken].understands(spoken):
            raise RequestError(
                f"the text is in {spoken}, and the recogniser that is installed knows English only. "
                'Install one of many languages with: pip install "sonant[judge-multilingual]", or judge '
                f"English only. If it is not in {spoken}, name its language.",
                field="verify",
            )
        return self._of[spoken]


class Verified:
    """A request spoken and listened to segment by segment; read like a SpeechStream.

    tries: how often a wrong segment is spoken again; language: what the text is in where the request does not
    say; client and priority are the engine's.
    """

    def __init__(
        self,
        engine: Engine,
        request: SpeechRequest,
        *,
        tries: int,
        recogniser: Recogniser | None = None,
        language: str | None = None,
        client: Hashable = None,
        priority: int = 0,
    ) -> None:
        if request.source_audio is not None or request.text_feed is not None:
            raise RequestError(
                "--verify compares speech with its text, and here there is none beforehand. Leave it out.",
                field="verify",
            )
        self._engine = engine
        self._language = request.language or language
        self._recogniser = recogniser or Recognisers().of(request.language, request.text)
        self._tries = tries
        self._turn: dict[str, Any] = {"client": client, "priority": priority}
        self._stream = engine.submit(request, streaming=False, **self._turn)
        self._request = self._stream.request
        self._text: str | None = None
        self._parts: list[Samples] = []
        self._index = 0
        self._start = 0
        self._is_over = False
        self._guards: list[GuardEvent] = []
        self._spent = {"verify": 0.0, "verify_again": 0.0}
        self.sample_rate, self.seed = self._stream.sample_rate, self._stream.seed
        self.verdicts: list[Verdict] = []

    @property
    def guards(self) -> list[GuardEvent]:
        """Those of the engine, and of each segment that was heard wrong."""
        return [*self._stream.guards, *self._guards]

    @property
    def timings(self) -> dict[str, float]:
        """Those of the first tries, the seconds of listening, and the seconds of speaking again."""
        return {**self._stream.timings, **self._spent}

    @property
    def segments(self) -> tuple[str, ...]:
        """The texts of the segments known so far."""
        return self._stream.segments

    def cancel(self) -> None:
        """Stop."""
        self._stream.cancel()

    def __enter__(self) -> Verified:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    def get(self) -> AudioChunk:
        """The next segment whole. Raises what speaking it raised."""
        if self._is_over:
            raise GenerationError("this reading was read to its end; speak it again")
        while True:
            chunk = self._stream.get()
            begins = chunk.text is not None and self._parts
            done = self._heard() if begins else None
            if chunk.text is not None:
                self._text = chunk.text
            self._parts.append(chunk.samples)
            if done is not None and not chunk.is_final:
                return self._chunk(done, is_final=False)
            if chunk.is_final:
                last = self._heard()
                self._is_over = True
                text = done[1] if done is not None else last[1]
                samples = np.concatenate((done[0], last[0])) if done is not None else last[0]
                return self._chunk((samples, text), is_final=True)

    def _chunk(self, made: tuple[Samples, str | None], *, is_final: bool) -> AudioChunk:
        samples, text = made
        start = self._start / self.sample_rate
        chunk = AudioChunk(samples, self.sample_rate, self._index, start, is_final, text)
        self._index += 1
        self._start += len(samples)
        return chunk

    def _heard(self) -> tuple[Samples, str | None]:
        """The segment gathered so far, or a better try of it."""
        samples, text = np.concatenate(self._parts), self._text
        self._parts = []
        if not text or not any(letter.isalnum() for letter in text):
            return samples, text
        number = len(self.verdicts)
        best, best_score, best_heard = samples, *self._listen(samples, text)
        tries = 0
        while is_wrong(best_score) and tries < self._tries:
            tries += 1
            began = time.monotonic()
            try:
                other = self._speak_again(text, number, tries)
            except SonantError as error:
                log.warning("a segment could not be spoken again (%s)", error)
                break
            finally:
                self._spent["verify_again"] += time.monotonic() - began
            score, heard = self._listen(other, text)
            if (score.longest, score.wer) < (best_score.longest, best_score.wer):
                best, best_score, best_heard = _with_pauses_of(samples, other), score, heard
        verdict = Verdict(
            segment=number, text=text, heard=best_heard, wer=best_score.wer, longest=best_score.longest,
            runs=tuple(str(run) for run in best_score.runs), tries=tries, is_right=not is_wrong(best_score),
        )  # fmt: skip
        self.verdicts.append(verdict)
        if tries or not verdict.is_right:
            self._guards.append(GuardEvent("misheard", _message(verdict), number))
        return best, text

    def _listen(self, samples: Samples, text: str) -> tuple[Score, str]:
        began = time.monotonic()
        heard = ""
        if np.any(samples):
            heard = self._recogniser.hear(Audio(samples, self.sample_rate), language=self._language).text
        self._spent["verify"] += time.monotonic() - began
        return score_words(text, heard, self._language), heard

    def _speak_again(self, text: str, number: int, tries: int) -> Samples:
        """The text of a segment by itself; it has been read already, so no front end and no glossary."""
        spec = self._engine.spec
        request = replace(
            self._request,
            text=text,
            glossary={},
            normalize="off" if "off" in spec.front_ends else self._request.normalize,
            seed=segment_seed(self.seed, AGAIN + number * 64 + tries),
        )
        with self._engine.submit(request, streaming=False, **self._turn) as stream:
            return np.concatenate([chunk.samples for chunk in stream])


def _with_pauses_of(first: Samples, other: Samples) -> Samples:
    """`other` between the silences that the engine put around `first`: exact zeros. Where all of `first` is
    silence, that was the fault, and nothing tells its pauses."""
    if not np.any(first):
        return other
    lead, tail = _zeros(first)
    begin, end = _zeros(other)
    inner = other[begin : len(other) - end]
    return np.concatenate((np.zeros(lead, np.float32), inner, np.zeros(tail, np.float32)))


def _zeros(samples: Samples) -> tuple[int, int]:
    found = np.flatnonzero(samples)
    return (int(found[0]), len(samples) - 1 - int(found[-1])) if len(found) else (len(samples), 0)


def _message(verdict: Verdict) -> str:
    again = f"was spoken again {verdict.tries} time{'s' * (verdict.tries > 1)}"
    place = f"segment {verdict.segment + 1}"
    if verdict.is_right:
        return f"{place} was heard wrong and {again}; it is right now."
    runs = "; ".join(verdict.runs[:3])
    told = f" and {again}" if verdict.tries else ""
    return f"{place} is still heard wrong{told} ({runs}). Listen to it, or try another seed or wording."
