"""Sentences spoken with a set of settings, each clip kept, measured and judged; for sweeps, comparisons."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sonant.audio.encode import AudioWriter
from sonant.audio.measure import Measurement, measure
from sonant.bench.quality import sentences
from sonant.engine.engine import Engine
from sonant.errors import RequestError, SonantError
from sonant.quality.judges import Judgement, Judges
from sonant.readings.given import job_fields
from sonant.readings.job import SPOKEN
from sonant.request.audio import Audio
from sonant.request.seeds import segment_seed
from sonant.request.settings import Setting, settings_of
from sonant.request.speech import ModelSpec, SpeechRequest, request_from
from sonant.request.voice import Voice

SAMPLED: Mapping[str, Setting] = {row.name: row for row in settings_of("sampling")}

# What makes a clip bad, in points: one point is a percent of the words. Chosen so that word errors that a
# listener would complain of outweigh what only a meter hears.
FAILED = 200.0
GUARD = 10.0
LONG_RUN, RUN_WORDS = 10.0, 4.0
"""Points for a wrong run of so many words."""
MOS, BEST_MOS = 10.0, 3.5
"""Points for each step of DNSMOS below what good synthetic speech reaches."""
UNLIKE, ALIKE = 50.0, 0.82
"""Points for each unit of similarity below that of one speaker."""
PROBLEM = 2.0
"""Points for each fault that the meters find (level, clipping, silence, rumble)."""
PACE, SLOWEST, FASTEST = 10.0, 2.0, 7.0
"""Points for each syllable a second outside what people read at."""

COUNT = 8
"""Sentences that are said where none are given."""
CHINESE = (
    "今天天气很好，我们去公园散步吧。",
    "请把窗户打开，房间里有点热。",
    "火车还有二十分钟就要出发了。",
    "他从小就喜欢听爷爷讲故事。",
    "这家面包店每天早上六点开门。",
    "明天下午三点我们在图书馆见面。",
    "山上的雪到了春天才会慢慢融化。",
    "她打开信封，认真地读了两遍。",
)


@dataclass(frozen=True)
class Candidate:
    """A named set of settings: those of the request by their command-line key, and those of its sampling."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def request(
        self, text: str, *, voice: Voice | str | None, language: str | None, seed: int
    ) -> SpeechRequest:
        """The request of one sentence. Raises RequestError for a setting that does not exist or fit."""
        values: dict[str, Any] = {"seed": seed}
        if language is not None:
            values["language"] = language
        sampling, options = {}, {}
        for key, value in self.settings.items():
            if key in SPOKEN:
                values[SPOKEN[key].name] = value
            elif key in SAMPLED:
                sampling[key] = value
            else:
                options[key] = value
        return request_from(text, values, sampling=sampling, options=options, voice=voice)


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One sentence by one candidate."""

    candidate: Candidate
    number: int
    text: str
    file: str = ""
    seconds: float = 0.0
    work: float = 0.0
    """Processor seconds that it took."""
    guards: tuple[str, ...] = ()
    error: str = ""
    measurement: Measurement | None = None
    judgement: Judgement | None = None

    @property
    def points(self) -> float:
        """How bad it is; 0 is flawless."""
        if self.error or self.measurement is None or self.judgement is None:
            return FAILED
        j, total = self.judgement, GUARD * len(self.guards) + PROBLEM * len(self.measurement.problems())
        if j.words is not None:
            total += 100 * min(j.words.wer, 1.0) + LONG_RUN * (j.words.longest >= RUN_WORDS)
        if j.mos is not None:
            total += MOS * max(0.0, BEST_MOS - j.mos.overall)
        if j.similarity is not None:
            total += UNLIKE * max(0.0, ALIKE - j.similarity)
        pace = self.measurement.syllable_rate
        return min(FAILED, total + PACE * max(0.0, SLOWEST - pace, pace - FASTEST))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "text": self.text,
            "file": self.file or None,
            "error": self.error or None,
            "seconds": round(self.seconds, 4),
            "processor_seconds": round(self.work, 4),
            "points": round(self.points, 3),
            "guards": list(self.guards),
            "metrics": self.measurement.as_dict() if self.measurement is not None else None,
            "problems": list(self.measurement.problems()) if self.measurement is not None else [],
            "judgement": self.judgement.as_dict() if self.judgement is not None else None,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What every candidate says."""

    sentences: Sequence[str]
    voice: Voice | str | None = None
    language: str | None = None
    reference: Audio | None = None
    """A clip of the voice that is meant."""
    seed: int = 0


def sentences_for(language: str | None, spec: ModelSpec) -> tuple[str, ...]:
    """Sentences to judge with. Raises RequestError for a language that there are none of."""
    named = (language or "english").lower()
    if language is None and spec.languages and "english" not in spec.languages:
        named = spec.languages[0]
    if named in ("english", "en"):
        return tuple(sentences()[:COUNT])
    if named in ("chinese", "zh"):
        return CHINESE
    raise RequestError(
        f"there are no sentences in {named} to judge with, only English and Chinese ones. Give some, one a "
        "line, with --sentences FILE.",
        field="sentences",
    )


def speak_and_judge(
    engine: Engine, candidate: Candidate, task: Task, judges: Judges, folder: Path
) -> Iterator[Clip]:
    """Every sentence of the task, one after the other. One that fails is a clip with an error."""
    for number, text in enumerate(task.sentences):
        file = f"{candidate.name}-{number + 1:02d}.wav"
        seed = segment_seed(task.seed, number)
        request = candidate.request(text, voice=task.voice, language=task.language, seed=seed)
        try:
            began = time.process_time()
            speech = engine.synthesize(request)
            work = time.process_time() - began
            with AudioWriter(folder / file, speech.sample_rate, format="wav") as writer:
                writer.write(speech.samples)
            yield Clip(
                candidate=candidate, number=number, text=text, file=file, seconds=speech.seconds, work=work,
                guards=tuple(guard.message for guard in speech.guards),
                measurement=measure(speech.samples, speech.sample_rate),
                judgement=judges.judge(speech, text=text, language=task.language, reference=task.reference),
            )  # fmt: skip
        except SonantError as error:
            yield Clip(candidate=candidate, number=number, text=text, error=str(error))


def parse_settings(text: str, spec: ModelSpec) -> dict[str, Any]:
    """Settings from "temperature=0.8,speed=1.1" by the table; a preset's name stands for its settings.
    Raises RequestError."""
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        key = name.strip().replace("-", "_")
        if not equals and key in spec.presets:
            found |= spec.presets[key]
        elif not equals:
            known = ", ".join(spec.presets) or "none"
            raise RequestError(
                f"{part!r} is no setting; expected NAME=VALUE or a preset of {spec.name} ({known})."
            )
        else:
            fields = job_fields({key: value.strip()})
            varied = {**fields["settings"], **fields["sampling"], **fields["options"]}
            if not varied and fields.keys() - {"settings", "sampling", "options"}:
                raise RequestError(
                    f"{key} cannot be varied here; it does not change what is spoken.", field=key
                )
            found |= varied
    return found
