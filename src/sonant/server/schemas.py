"""Bodies of requests, and how they become a SpeechRequest. Field names are OpenAI's and other servers'."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sonant.errors import RequestError
from sonant.request.audio import Audio
from sonant.request.speech import (
    EMOTIONS,
    ChunkPolicy,
    ModelSpec,
    Sampling,
    SpeechRequest,
    Style,
    TextFeed,
    TextLayout,
)
from sonant.request.voice import Voice

ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
Clip = Annotated[
    str, Field(description="A sound file as base64 or data: URL (or a web address, if switched on).")
]
Name = Annotated[str, Field(max_length=200)]


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


class SamplingBody(Body):
    """Decoding settings; each model takes those that its capability document lists."""

    greedy: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    predictor_greedy: bool | None = None
    predictor_temperature: float | None = None
    predictor_top_k: int | None = None
    predictor_top_p: float | None = None
    beams: int | None = None
    length_penalty: float | None = None
    flow_steps: int | None = None
    guidance: float | None = None
    max_frames: int | None = None


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


class Manner(Lenient):
    """Everything about a request but its text and how the answer is packed."""

    model: Name | None = Field(
        default=None, description="A served model or alias; the server's first model when left out."
    )
    voice: Name | VoiceId | None = Field(
        default=None,
        description="A voice of the model, a stored voice, or one of OpenAI's names for a default.",
    )
    instructions: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="How to say it, or the description of a voice to design."
    )
    speed: float = Field(default=1.0, description="0.25 to 4.0.")
    volume: float = Field(default=1.0, ge=0.0, le=4.0, description="0 to 4; times the loudness.")
    volume_multiplier: float | None = Field(default=None, ge=0.0, le=4.0, description="The same as volume.")
    language: Name | None = Field(
        default=None,
        description='A language name, code or locale; "auto" or nothing lets the model choose.',
    )
    lang_code: Name | None = Field(default=None, description="The same as language.")
    seed: int | None = Field(
        default=None, description="Same request and seed, same audio; -1 or nothing draws one."
    )
    ref_audio: Clip | None = Field(
        default=None, description="A clip whose voice is imitated for this request."
    )
    ref_text: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="What ref_audio says."
    )
    x_vector_only_mode: bool = Field(
        default=False, description="Use only the speaker of ref_audio, not its words."
    )
    task_type: Literal["CustomVoice", "VoiceDesign", "Base"] | None = Field(
        default=None, description="Checked against what the model can do."
    )
    emotion_vector: list[float] | dict[str, float] | None = Field(
        default=None, description=f"Eight numbers in 0..1, or some of them by name: {', '.join(EMOTIONS)}."
    )
    emotion_audio: Clip | None = Field(default=None, description="A clip whose emotion is copied.")
    emotion_text: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="Words from which the emotion is inferred."
    )
    emotion_from_text: bool = Field(default=False, description="Infer the emotion from the spoken text.")
    emotion_strength: float = Field(default=1.0, description="0 to 2; 1 is the full emotion.")
    emotion_random: bool = Field(
        default=False, description="Draw the speaker rows of a vector emotion at random."
    )
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = Field(default=None, description="Most frames of one segment.")
    sampling: SamplingBody | None = Field(
        default=None, description="All decoding settings, where the short ones do not do."
    )
    text_layout: TextLayout | None = None
    non_streaming_mode: bool | None = Field(
        default=None, description="true is text_layout full, false is progressive."
    )
    normalize: bool = Field(default=True, description="Read numbers, dates and symbols out as words.")
    normalization_options: dict[str, Any] | None = Field(
        default=None,
        max_length=50,
        description="Kokoro-FastAPI's; `normalize` in it is the same as normalize.",
    )
    speaker_description: Annotated[str, Field(max_length=10_000)] | None = Field(
        default=None, description="vLLM-Omni's; the same as instructions for a model that designs voices."
    )
    glossary: dict[str, str] | None = Field(
        default=None, max_length=1_000, description="Words and how to spell them aloud."
    )
    initial_codec_chunk_frames: int | None = Field(
        default=None, ge=1, le=1_000, description="Frames before the first audio."
    )
    deadline: float | None = Field(
        default=None, gt=0, description="Seconds after which the request is given up."
    )
    options: dict[str, Any] | None = Field(
        default=None, max_length=50, description="Switches of one model family."
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
        form = data.get("response_format")
        data = {key: value for key, value in data.items() if key not in nothing}
        return data | {"response_format": form.lower()} if isinstance(form, str) else data

    @property
    def voice_name(self) -> str | None:
        """The voice asked for, by name."""
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class SpeechBody(Manner):
    """`POST /v1/audio/speech`: OpenAI's fields and the extensions of other servers."""

    input: str = Field(description="The text to speak; [pause:500ms] is a pause.")
    response_format: ResponseFormat = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = Field(
        default=True, description="false sends the finished file at once, with true lengths in its header."
    )
    source_audio: Clip | None = Field(
        default=None, description="Voice conversion: this speech in the voice asked for; input is then empty."
    )


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
    input: Annotated[str, Field(max_length=2_000)] = (
        "This is how I sound when I read a sentence or two aloud."
    )
    language: Name | None = None
    seed: int | None = None


def unused_fields(body: Manner, spec: ModelSpec | None = None) -> list[str]:
    """Names of what was sent and does nothing here, as `a` or `a.b`; near misses name their field.

    Without `spec`, only what no model would take.
    """
    known = list(type(body).model_fields)
    unused = []
    for name in body.model_extra or {}:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        unused.append(f"{name} (did you mean {close[0]}?)" if close else name)
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
    emotion_audio: Audio | None = None,
    source_audio: Audio | None = None,
    text_feed: TextFeed | None = None,
    designs_voices: bool = False,
    deadline: float,
) -> SpeechRequest:
    """The library's request. Raises RequestError naming the field."""
    languages = [language_of(given) for given in (body.language, body.lang_code) if given is not None]
    if len(set(languages)) > 1:
        raise RequestError("language and lang_code disagree. Send one of them.", field="language")
    layout = body.text_layout
    if body.non_streaming_mode is not None:
        named: TextLayout = "full" if body.non_streaming_mode else "progressive"
        if layout is not None and layout != named:
            raise RequestError(
                "text_layout and non_streaming_mode disagree. Send one of them.", field="text_layout"
            )
        layout = named
    instruction = body.instructions or (body.speaker_description if designs_voices else None)
    first = body.initial_codec_chunk_frames
    return SpeechRequest(
        text,
        voice=voice,
        language=languages[0] if languages else None,
        style=Style(
            instruction=instruction or None,
            emotion_vector=_emotion_vector(body.emotion_vector),
            emotion_audio=emotion_audio,
            emotion_text=body.emotion_text or None,
            emotion_from_text=body.emotion_from_text,
            emotion_strength=body.emotion_strength,
            emotion_random=body.emotion_random,
        ),
        sampling=_sampling(body),
        speed=body.speed,
        seed=body.seed,
        text_layout=layout,
        normalize=body.normalize and (body.normalization_options or {}).get("normalize") is not False,
        glossary=body.glossary or {},
        source_audio=source_audio,
        text_feed=text_feed,
        chunk_policy=ChunkPolicy() if first is None else ChunkPolicy(first=first, largest=max(16, first)),
        deadline=min(deadline, body.deadline) if body.deadline is not None else deadline,
        options=body.options or {},
    )


def _emotion_vector(given: list[float] | dict[str, float] | None) -> tuple[float, ...] | None:
    if given is None:
        return None
    if isinstance(given, list):
        return tuple(given)
    unknown = [name for name in given if name not in EMOTIONS]
    if unknown:
        raise RequestError(
            f"there is no emotion {unknown[0]!r}; there are: {', '.join(EMOTIONS)}.", field="emotion_vector"
        )
    return tuple(given.get(name, 0.0) for name in EMOTIONS)


def _sampling(body: Manner) -> Sampling:
    values = body.sampling.model_dump(exclude_none=True) if body.sampling is not None else {}
    short = {
        "temperature": body.temperature,
        "top_k": body.top_k,
        "top_p": body.top_p,
        "repetition_penalty": body.repetition_penalty,
        "max_frames": body.max_new_tokens,
    }
    for name, value in short.items():
        if value is None:
            continue
        if values.get(name, value) != value:
            raise RequestError(f"{name} was given twice with different values. Send it once.", field=name)
        values[name] = value
    return Sampling(**values)
