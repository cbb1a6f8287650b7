"""One thing to say as plain data: every setting that decides the bytes of the answer, nothing else.

A job is what the command line builds, what a receipt keeps, and what a replay runs again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.errors import RequestError
from sonant.request.audio import LONGEST_CLIP, Audio
from sonant.request.settings import EMOTIONS, LOUDNESS, Setting, check_all, settings_of
from sonant.request.speech import SpeechRequest, request_from
from sonant.request.voice import Voice
from sonant.voices.design import design_request

if TYPE_CHECKING:
    from sonant.request.speech import ModelSpec

SPOKEN: Mapping[str, Setting] = {
    row.key: row for row in settings_of("request", "style") if row.flag is not None and row.kind != "options"
}
"""The rows of `Job.settings`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to say and how. Audio is named by path; None leaves a setting to the model."""

    text: str
    model: str = DEFAULT_MODEL
    device: str = "auto"
    dtype: str = "auto"
    precision: str = "auto"
    voice: str | None = None
    """A preset speaker, a name in the library, a voice file or a clip."""
    transcript: str | None = None
    """What the clip says."""
    design_model: str | None = None
    """A voice-design model that makes the voice from the instruction first."""
    design_text: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the request and its style by `Setting.key`: those that are set. A clip is a path."""
    preset: str | None = None
    """A named set of sampling settings of the model; `sampling` goes over it."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    is_streamed: bool = False
    in_pieces: bool = False
    """Paragraph by paragraph, each kept on disk, so that a stopped run goes on where it was."""
    format: str = "wav"
    de_rumble: str = "auto"
    """"off", "auto" (on when the result needs it) or the cutoff in Hz."""
    loudness: float | None = LOUDNESS
    """Integrated loudness of the result in LUFS; None leaves it as the model speaks."""

    verify: bool = False
    """Listened to by a recogniser, segment by segment."""
    verify_tries: int = 2
    """How often a segment that is heard wrong is spoken again."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.settings) - set(SPOKEN))
        if unknown:
            raise RequestError(
                f"there is no setting {unknown[0]}; expected some of {', '.join(SPOKEN)}. Check its name.",
                field=unknown[0],
            )
        given = {name: value for name, value in self.settings.items() if SPOKEN[name].is_set(value)}
        object.__setattr__(self, "settings", given)
        check_all(self, "job")
        if self.de_rumble not in {"off", "auto"}:
            try:
                float(self.de_rumble)
            except ValueError:
                raise RequestError(
                    f"de-rumble is {self.de_rumble!r}; expected off, auto or a cutoff in Hz. Try 60.",
                    field="de_rumble",
                ) from None
        if self.design_model is not None and not (self.get("instruction") or "").strip():
            raise RequestError(
                f"{self.design_model} designs a voice from a description and none was given. Add one with "
                '--instruction "a calm, low male voice".',
                field="instruction",
            )
        if self.transcript is not None and self.voice is None:
            raise RequestError(
                "a transcript was given without the clip that says it; expected a voice with it. Add --voice "
                "CLIP, or leave out --transcript.",
                field="transcript",
            )
        if self.design_text is not None and self.design_model is None:
            raise RequestError(
                "a text for a designed voice was given without a model that designs one. Add "
                "--design-model, or leave out --design-text.",
                field="design_text",
            )
        if self.design_model is not None and self.voice is not None:
            raise RequestError(
                "a voice and a model that designs one were both given; expected one of them. Leave one out.",
                field="voice",
            )

    def get(self, name: str) -> Any:
        """A setting of the request or its style by `Setting.key`, or its default."""
        return self.settings.get(name, SPOKEN[name].default)

    def to_data(self) -> dict[str, Any]:
        """Plain data for JSON: every field and every setting by name, in one flat mapping."""
        data = asdict(self)
        del data["settings"]
        return data | {name: self.get(name) for name in SPOKEN}

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Job:
        """The job of `to_data`. Raises RequestError for fields it does not know or that are missing."""
        known = {f.name for f in fields(Job)} - {"settings"} | set(SPOKEN)
        unknown = sorted(set(data) - known)
        if unknown or "text" not in data:
            raise RequestError(
                f"the recorded job has {'unknown fields ' + ', '.join(unknown) if unknown else 'no text'}; "
                f"expected fields among {', '.join(sorted(known))}. It may come from another version of "
                "Sonant."
            )
        settings = {name: data[name] for name in SPOKEN if name in data}
        try:
            if isinstance(settings.get("normalize"), bool):  # before there was a front end of Sonant's own
                settings["normalize"] = "original" if settings["normalize"] else "off"
            if settings.get("emotion") is not None:
                settings["emotion"] = tuple(settings["emotion"])
            others = {name: value for name, value in data.items() if name not in SPOKEN}
            return Job(**others, settings=settings)
        except TypeError as error:
            raise RequestError(
                f"the recorded job is damaged ({error}); expected what sonant say --receipt wrote. Make it "
                "again."
            ) from error

    def request(self, voice: Voice | str | None, *, spec: ModelSpec) -> SpeechRequest:
        """The request for a model, with the voice already found. Raises RequestError."""
        preset: Mapping[str, Any] = {}
        if self.preset is not None:
            if self.preset not in spec.presets:
                known = ", ".join(spec.presets) or "none"
                raise RequestError(
                    f"{spec.name} has no preset {self.preset!r}; it has: {known}. Leave --preset out.",
                    field="preset",
                )
            preset = spec.presets[self.preset]
        values = {SPOKEN[name].name: value for name, value in self.settings.items()}
        if self.design_model is not None:
            del values["instruction"]  # it belongs to the design
        for name, path in self._clips():
            values[SPOKEN[name].name] = Audio.read(path, max_seconds=LONGEST_CLIP)
        return request_from(
            self.text, values, sampling={**preset, **self.sampling}, options=self.options, voice=voice
        )

    def _clips(self) -> list[tuple[str, str]]:
        return [(name, path) for name, path in self.settings.items() if SPOKEN[name].kind == "clip"]

    def design_request(self) -> SpeechRequest:
        """What the voice-design model says so that its voice can be cloned."""
        return design_request(
            self.get("instruction"),
            text=self.design_text,
            language=self.get("language"),
            seed=self.get("seed"),
        )

    def input_hashes(self) -> dict[str, str]:
        """SHA-256 of the text and of each audio file that the job names (but for the voice)."""
        hashes = {"text": hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()}
        return hashes | {name: file_hash(path) for name, path in self._clips()}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file. Raises RequestError when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(
            f"cannot read {path} ({error.strerror or error}); expected a file. Check the path."
        ) from error


def parse_emotion(text: str) -> tuple[float, ...]:
    """Eight numbers from "happy=0.6,calm=0.2", "happy" (that is 1), or eight in the order of EMOTIONS."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        if parts and not any("=" in part or part.lower() in EMOTIONS for part in parts):
            return tuple(float(part) for part in parts)
        given: dict[str, float] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if name.strip().lower() not in EMOTIONS:
                raise ValueError(f"{name.strip()!r} is none of them")
            given[name.strip().lower()] = float(value) if equals else 1.0
    except ValueError as error:
        raise RequestError(
            f"cannot read the emotion {text!r} ({error}); expected names among "
            f"{', '.join(EMOTIONS)}, each with a number if it is not 1, or eight numbers. Write, for "
            "example: happy=0.6,calm=0.2",
            field="emotion_vector",
        ) from error
    if not given:
        raise RequestError(
            "the emotion is empty; expected name=number pairs. Write, for example: happy=0.6,calm=0.2",
            field="emotion_vector",
        )
    return tuple(given.get(name, 0.0) for name in EMOTIONS)


def parse_option(text: str) -> tuple[str, Any]:
    """Name and value of "name=value"; the value is JSON where it reads as JSON, else the words."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RequestError(
            f"{text!r} is no option; expected NAME=VALUE. See sonant inspect MODEL for a model's options.",
            field="options",
        )
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def read_glossary(path: str | Path) -> dict[str, str]:
    """Words and their spelling from a .json or .yaml mapping, or from lines `word = spelling`."""
    import yaml

    place = Path(path)
    try:
        content = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"cannot read the glossary {place} ({error}); expected a UTF-8 text file. Check the path.",
            field="glossary",
        ) from error
    if place.suffix.lower() in {".json", ".yaml", ".yml"}:
        try:
            data = yaml.safe_load(content) or {}
        except yaml.YAMLError as error:
            raise RequestError(
                f"the glossary {place} is no valid {place.suffix[1:]} ({error}); expected a mapping of word "
                "to spelling. Mend the file.",
                field="glossary",
            ) from error
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise RequestError(
                f"the glossary {place} is no mapping of words to spellings; expected word: spelling. "
                "Mend the file.",
                field="glossary",
            )
        return {str(word): spelling for word, spelling in data.items()}
    glossary: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, equals, spelling = line.partition("=")
        if not equals or not word.strip():
            raise RequestError(
                f"line {number} of the glossary {place} is {line!r}; expected word = spelling. Mend the "
                "line.",
                field="glossary",
            )
        glossary[word.strip()] = spelling.strip()
    return glossary
