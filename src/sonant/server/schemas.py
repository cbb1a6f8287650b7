"""Bodies of requests, and how they become a SpeechRequest. Field names are OpenAI's and other servers'."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.request.settings import (
    BY_NAME,
    EMOTIONS,
    SETTINGS,
    Kind,
    Normalize,
    Setting,
    check_value,
    settings_of,
)
from sonant.request.speech import ChunkPolicy, ModelSpec, SpeechRequest, TextFeed, request_from
from sonant.request.voice import Voice
from sonant.voices.design import DESIGN_TEXT

ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
Clip = Annotated[
    str, Field(description="A sound file as base64 or data: URL (or a web address, if switched on).")
]
Name = Annotated[str, Field(max_length=200)]
Words = Annotated[str, Field(max_length=10_000)]
LOUDEST = 4.0
"""Times the loudness, at most: what other servers take."""
Volume = Annotated[float, Field(ge=0.0, le=LOUDEST)]


class Body(BaseModel):
    """A JSON object in which an unknown field is an error: a knob that does nothing would mislead."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class Lenient(Body):
    """A JSON object of a program that was written for another server: what it sends beside the fields is
    kept aside in `model_extra`, to be named in the answer (or refused, with strict fields)."""

    model_config = ConfigDict(extra="allow")


class VoiceId(Body):
    """A voice as an object, as OpenAI's custom voices are named."""

    id: Name


_KINDS: Mapping[Kind, Any] = {
    "switch": bool,
    "whole": int,
    "number": float,
    "level": float | Literal["off"],
    "text": Words,
    "name": Name,
    "voice": Name | VoiceId,
    "clip": Clip,
    "emotions": list[float] | dict[str, float],
    "glossary": Annotated[dict[Name, Words], Field(max_length=1_000)],
    "options": Annotated[dict[str, Any], Field(max_length=50)],
}


def _with(base: type[Body], rows: Iterable[tuple[str, Setting]], name: str) -> type[Body]:
    """`base` with a field for each setting. Ranges are told here, and checked where the request is made."""
    fields: dict[str, Any] = {}
    for field, row in rows:
        kind = Literal[row.choices] if row.choices else _KINDS[row.kind]
        least = row.field.least if row.field is not None and row.field.least is not None else row.least
        bounds = {"minimum": least, "maximum": row.most, "exclusiveMinimum": row.above}
        told: dict[str, Any] = {word: bound for word, bound in bounds.items() if bound is not None}
        # What is sent wins over the server's own loudness, so that nothing sent is not the table's default.
        has_default = row.default is not None and row.default != {} and row.kind != "level"
        about = (row.field.help if row.field is not None else None) or row.help_with_range
        default: Any = row.default if has_default else None
        fields[field] = (
            kind if has_default else kind | None,
            Field(default=default, description=about, json_schema_extra=told),
        )
    return create_model(name, __base__=base, __module__=__name__, **fields)


def _fields_on(*bodies: str) -> list[tuple[str, Setting]]:
    return [(row.field_name, row) for row in SETTINGS if row.field is not None and row.field.on in bodies]


if TYPE_CHECKING:

    class _EverySetting(Lenient):
        def __getattr__(self, name: str) -> Any: ...

    SamplingBody = Body
else:
    _EverySetting = _with(Lenient, _fields_on("every"), "_EverySetting")
    SamplingBody = _with(Body, [(row.name, row) for row in settings_of("sampling")], "SamplingBody")
    SamplingBody.__doc__ = "Decoding settings; each model takes those that its capability document lists."


LANG_CODES = {
    "a": "en", "b": "en", "e": "es", "f": "fr", "h": "hi", "i": "it", "j": "ja", "p": "pt", "z": "zh",
}  # fmt: skip
"""Languages by one letter. Source: Kokoro's pipeline, whose servers take them as `lang_code`."""
_LOCALE = re.compile(r"([A-Za-z]{2,3})[-_][A-Za-z0-9_-]{2,20}(?:\..{0,20})?")


def language_of(value: str) -> str:
    """The language that a sender means: `en-US` and `en_US.UTF-8` are `en`, Kokoro's `a` is `en`."""
    found = _LOCALE.fullmatch(value)
    code = found[1].lower() if found else value
    return LANG_CODES.get(code.lower(), code)


JUST_READ = "You will receive partial sentences. Do not complete the sentence, just read out the text."
"""What OpenAI's Agents SDK (0.24) tells every voice, and what each model does; some write no comma."""


class Manner(_EverySetting):
    """Everything about a request but its text and how the answer is packed: the settings of the table, and
    what other servers call them."""

    model: Name | None = Field(
        default=None, description="A served model or alias; the server's first model when left out."
    )
    volume: Volume = Field(default=1.0, description=f"0 to {LOUDEST:g}; times the loudness.")
    volume_multiplier: Volume | None = Field(default=None, description="The same as volume.")
    lang_code: Name | None = Field(default=None, description="The same as language.")
    ref_audio: Clip | None = Field(
        default=None, description="A clip whose voice is imitated for this request."
    )
    x_vector_only_mode: bool = Field(
        default=False, description="Use only the speaker of ref_audio, not its words."
    )
    task_type: Literal["CustomVoice", "VoiceDesign", "Base"] | None = Field(
        default=None, description="Checked against what the model can do."
    )
    sampling: SamplingBody | None = Field(
        default=None, description="All decoding settings, where the short ones do not do."
    )
    non_streaming_mode: bool | None = Field(
        default=None, description="true is text_layout full, false is progressive."
    )
    normalize: bool | Normalize | None = Field(
        default=None,
        description=f"{BY_NAME['normalize'].help_with_range} true is the model's choice, false is off.",
    )
    normalization_options: dict[str, Any] | None = Field(
        default=None,
        max_length=50,
        description="Kokoro-FastAPI's; `normalize` in it is the same as normalize.",
    )
    speaker_description: Words | None = Field(
        default=None, description="vLLM-Omni's; the same as instructions for a model that designs voices."
    )
    initial_codec_chunk_frames: int | None = Field(
        default=None, ge=1, le=1_000, description="Frames before the first audio."
    )
    user: str | None = Field(default=None, description="Accepted and not used.")
    metadata: dict[str, Any] | None = Field(default=None, description="Accepted and not used.")

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, data: Any) -> Any:
        """Values that say "nothing" in other programs: empty names, a seed of -1."""
        if not isinstance(data, dict):
            return data
        nothing = [name for name in ("model", "voice", "language", "lang_code") if data.get(name) == ""]
        if data.get("seed") == -1 and not isinstance(data["seed"], bool):
            nothing.append("seed")
        told = data.get("instructions")
        if isinstance(told, str) and told.replace(",", "") == JUST_READ.replace(",", ""):
            nothing.append("instructions")
        form = data.get("response_format")
        data = {key: value for key, value in data.items() if key not in nothing}
        return data | {"response_format": form.lower()} if isinstance(form, str) else data

    @property
    def voice_name(self) -> str | None:
        """The voice asked for, by name."""
        voice: str | VoiceId | None = self.voice
        return voice.id if isinstance(voice, VoiceId) else voice


if TYPE_CHECKING:
    _SpeechManner = Manner
else:
    _SpeechManner = _with(Manner, _fields_on("speech"), "_SpeechManner")


class SpeechBody(_SpeechManner):
    """`POST /v1/audio/speech`: OpenAI's fields and the extensions of other servers."""

    input: str = Field(description="The text to speak; [pause:500ms] is a pause.")
    response_format: ResponseFormat = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = Field(
        default=True, description="false sends the finished file at once, with true lengths in its header."
    )
    allow_voice_tags: bool = Field(
        default=False, description="[voice:NAME] in the text changes the voice from there on."
    )
    voice_aliases: dict[Name, Name] | None = Field(
        default=None, max_length=100, description="Names in voice tags and in voice, and the voices meant."
    )
    timestamps: Literal["none", "word"] = Field(
        default="none", description="word: when each word is said, with stream_format sse or stream false."
    )


class CaptionedBody(SpeechBody):
    """`POST /v1/audio/captioned_speech`, Kokoro-FastAPI's: the sound and its words' times, in JSON."""

    return_timestamps: bool = True
    caption_format: Literal["json", "vtt", "srt"] = Field(
        default="json", description="vtt, srt: the answer has `captions` too."
    )


class Turn(Lenient):
    """One speaker's words in a dialogue."""

    text: str
    voice: Name | VoiceId | None = None
    voice_id: Name | None = None


class DialogueBody(Manner):
    """`POST /dev/dialogue`, Kokoro-FastAPI's: turns of several voices, one after another in one file."""

    turns: list[Turn] = Field(min_length=1, max_length=500)
    response_format: ResponseFormat = "mp3"
    stream: bool = True


class ElevenVoiceSettings(Lenient):
    """ElevenLabs' settings of a voice."""

    speed: float | None = None


class ElevenBody(Lenient):
    """`POST /v1/text-to-speech/{voice}`, ElevenLabs'."""

    text: str
    model_id: Name | None = None
    language_code: Name | None = None
    seed: int | None = None
    voice_settings: ElevenVoiceSettings | None = None


class BatchBody(Body):
    """`POST /v1/audio/speech/batch`: several requests, each with its own outcome."""

    items: list[SpeechBody] = Field(min_length=1)


class SegmentsBody(Manner):
    """`POST /v1/audio/speech/segments`: how a text would be cut."""

    input: str


class DesignBody(Body):
    """`POST /v1/audio/voices/design`: keep a voice made from a description."""

    name: Name
    model: Name | None = None
    instructions: Annotated[str, Field(min_length=1, max_length=10_000)]
    input: Annotated[str, Field(max_length=2_000)] = DESIGN_TEXT
    language: Name | None = None
    seed: int | None = None
    shared: bool = False


MOST_UNKNOWN = 200
"""Fields that are none of ours: known programs send a handful."""
LONGEST_NAME = 80
"""Of a field that somebody may have misspelt."""


def unused_fields(body: Manner, spec: ModelSpec | None = None) -> list[str]:
    """Names of what was sent and does nothing here, as `a` or `a.b`; near misses name their field.

    Without `spec`, only what no model would take. Raises RequestError for more than MOST_UNKNOWN.
    """
    known = list(type(body).model_fields)
    extra = body.model_extra or {}
    if len(extra) > MOST_UNKNOWN:
        raise RequestError(
            f"{len(extra)} fields are none of this server's; at most {MOST_UNKNOWN} are passed over. "
            "Look for the right names at /docs.",
            field="body",
        )
    unused = []
    for name in extra:
        near = len(name) <= LONGEST_NAME and difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        unused.append(f"{name} (did you mean {near[0]}?)" if near else name)
    unused += [
        f"normalization_options.{name}" for name in body.normalization_options or {} if name != "normalize"
    ]
    if spec is not None and body.speaker_description and "voice_design" not in spec.capabilities:
        unused.append("speaker_description")
    return unused


def to_request(
    body: Manner,
    text: str,
    *,
    voice: Voice | str | None,
    clips: Mapping[str, Audio],
    text_feed: TextFeed | None = None,
    designs_voices: bool = False,
    deadline: float,
) -> SpeechRequest:
    """The library's request; `clips` are decoded, by setting. Raises RequestError naming the field."""
    values: dict[str, Any] = {}
    for row in settings_of("request", "style"):
        value = getattr(body, row.field_name, None) if row.field is not None else None
        if value is None or (value == "" and row.kind == "text"):
            continue
        if row.kind == "emotions":
            value = _emotion_vector(value)
        if row.kind == "clip":
            value = clips[row.name]
        if row.name == "normalize" and isinstance(value, bool):
            value = None if value else "off"
        check_value(row, value)
        values[row.name] = value
    if body.lang_code is not None:
        values.setdefault("language", body.lang_code)
        if language_of(values["language"]) != language_of(body.lang_code):
            raise RequestError("language and lang_code disagree. Send one of them.", field="language")
    if "language" in values:
        values["language"] = language_of(values["language"])
    if body.non_streaming_mode is not None:
        named = "full" if body.non_streaming_mode else "progressive"
        if values.setdefault("text_layout", named) != named:
            raise RequestError(
                "text_layout and non_streaming_mode disagree. Send one of them.", field="text_layout"
            )
    if designs_voices and body.speaker_description:
        values.setdefault("instruction", body.speaker_description)
    if (body.normalization_options or {}).get("normalize") is False:
        values["normalize"] = "off"
    values["deadline"] = min(deadline, values.get("deadline", deadline))
    first = body.initial_codec_chunk_frames
    return request_from(
        text,
        values,
        sampling=_sampling(body),
        options=values.pop("options", {}),
        voice=voice,
        text_feed=text_feed,
        chunk_policy=ChunkPolicy() if first is None else ChunkPolicy(first=first, largest=max(16, first)),
    )


def _emotion_vector(given: list[float] | dict[str, float]) -> tuple[float, ...]:
    if isinstance(given, list):
        return tuple(given)
    unknown = [name for name in given if name not in EMOTIONS]
    if unknown:
        raise RequestError(
            f"there is no emotion {unknown[0]!r}; there are: {', '.join(EMOTIONS)}.", field="emotion_vector"
        )
    return tuple(given.get(name, 0.0) for name in EMOTIONS)


def _sampling(body: Manner) -> dict[str, Any]:
    values = body.sampling.model_dump(exclude_none=True) if body.sampling is not None else {}
    for row in settings_of("sampling"):
        value = getattr(body, row.field_name) if row.field is not None else None
        if value is None:
            continue
        if values.get(row.name, value) != value:
            raise RequestError(
                f"{row.name} was given twice with different values. Send it once.", field=row.name
            )
        values[row.name] = value
    return values
