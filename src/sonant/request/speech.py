"""The nouns that travel through Sonant: requests, audio and what a model says of itself. No torch here."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from sonant.errors import GenerationError, RequestError, SonantError
from sonant.request.audio import Audio, Samples
from sonant.request.settings import BY_NAME, StuckSpeech, check_all, guards_of
from sonant.request.settings import EMOTIONS as EMOTIONS
from sonant.request.settings import Normalize as Normalize
from sonant.request.settings import TextLayout as TextLayout
from sonant.text.language import LANGUAGE_CODES as LANGUAGE_CODES
from sonant.text.language import language_name as language_name

if TYPE_CHECKING:
    from sonant.request.voice import Voice


@dataclass(frozen=True, kw_only=True)
class Style:
    """How something is said. Everything is optional; a model that lacks a part refuses it by name."""

    instruction: str | None = None
    """Words such as "cheerful, a little hurried", or a description of a voice to design."""
    emotion_vector: tuple[float, ...] | None = None
    """Eight numbers in the order of EMOTIONS, each in 0..1."""
    emotion_audio: Audio | None = None
    """A clip whose emotion is copied."""
    emotion_text: str | None = None
    """Words from which the emotion is inferred; may differ from the spoken text."""
    emotion_from_text: bool = False
    """Infer the emotion from the spoken text itself."""
    emotion_strength: float = 1.0
    """0 is the speaker's own manner, 1 the full emotion."""
    emotion_random: bool = False
    """Draw the speaker rows of a vector emotion at random instead of by nearest speaker."""

    def __post_init__(self) -> None:
        if self.emotion_vector is not None:
            object.__setattr__(self, "emotion_vector", tuple(float(value) for value in self.emotion_vector))
        check_all(self, "style")
        sources = [
            name
            for name, given in (
                ("emotion_vector", self.emotion_vector is not None),
                ("emotion_audio", self.emotion_audio is not None),
                ("emotion_text", self.emotion_text is not None),
                ("emotion_from_text", self.emotion_from_text),
            )
            if given
        ]
        if len(sources) > 1:
            raise RequestError(
                f"{' and '.join(sources)} were given together; an emotion has one source. Keep one.",
                field=sources[1],
            )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Decoding settings. None means the model's own default; top_k 0 and top_p 1 mean off."""

    greedy: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    predictor_greedy: bool | None = None
    """The second network of a frame (Qwen3-TTS's code predictor, "sub-talker") has its own settings."""
    predictor_temperature: float | None = None
    predictor_top_k: int | None = None
    predictor_top_p: float | None = None
    beams: int | None = None
    length_penalty: float | None = None
    flow_steps: int | None = None
    guidance: float | None = None
    max_frames: int | None = None
    """Hard limit on generated frames of one segment; the guard derived from the text also applies."""

    def __post_init__(self) -> None:
        check_all(self, "sampling")

    def given(self) -> dict[str, Any]:
        """The settings that are not None, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def over(self, defaults: Mapping[str, Any]) -> Sampling:
        """These settings, with `defaults` where nothing is set."""
        return Sampling(**{**defaults, **self.given()})


@dataclass(frozen=True, kw_only=True)
class ChunkPolicy:
    """How many frames to gather before each decode: it moves latency, never samples.

    `first` frames make the first chunk, each later one is `growth` times longer, up to `largest`.
    """

    first: int = 1
    growth: float = 2.0
    largest: int = 16

    def __post_init__(self) -> None:
        if self.first < 1 or self.largest < self.first or self.growth < 1:
            raise RequestError(
                f"chunk policy first={self.first}, growth={self.growth}, largest={self.largest} is "
                "impossible; expected 1 <= first <= largest and growth >= 1"
            )

    def size(self, index: int) -> int:
        """Frames of the chunk number `index`, from 0."""
        return min(self.largest, math.ceil(self.first * self.growth ** min(index, 64)))


class TextFeed:
    """Text that arrives while it is spoken. One thread puts pieces and closes; the engine takes them.

    What was taken is kept, so that an utterance can be begun again; a request speaks a feed once.
    """

    def __init__(self) -> None:
        self._text = ""
        self._taken = 0
        self._half = ""
        """The first half of a surrogate pair that a piece was cut in."""
        self._is_closed = False
        self._failure: SonantError | None = None
        self._check: Callable[[str], None] = lambda text: None
        self._wake: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    @staticmethod
    def reading(pieces: Iterable[str]) -> TextFeed:
        """A feed that a thread of its own fills from an iterable, such as a language model's answer.

        An error of the iterable ends the speech with GenerationError.
        """
        feed = TextFeed()

        def read() -> None:
            try:
                for piece in pieces:
                    feed.put(piece)
                feed.close()
            except SonantError as error:
                feed.fail(error)
            except BaseException as error:
                made = GenerationError(
                    f"the text of the feed broke off: its source raised {type(error).__name__}: {error}. "
                    "What came before may have been spoken; mend the source and say the rest again."
                )
                made.__cause__ = error
                feed.fail(made)

        threading.Thread(target=read, name="sonant-text", daemon=True).start()
        return feed

    def put(self, text: str) -> None:
        """Say this next. Raises RequestError after `close`, and for what a given text is refused for; the
        speech then ends with the same error."""
        with self._changed:
            if self._is_closed:
                raise self._failure or RequestError(
                    "this text feed was closed; start a new request.", field="text_feed"
                )
            try:
                if not isinstance(text, str):
                    raise RequestError(
                        f"a piece of the text is a {type(text).__name__}; expected a string.", field="text"
                    )
                whole = self._half + text
                self._half = whole[-1:] if "\ud800" <= whole[-1:] <= "\udbff" else ""
                whole = whole[: len(whole) - len(self._half)]
                if any("\ud800" <= letter <= "\udfff" for letter in whole):  # a pair that was cut, or worse
                    whole = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
                self._check(self._text + whole)
            except RequestError as error:
                self._failure, self._is_closed = error, True
                raise
            else:
                self._text += whole
            finally:
                self._changed.notify_all()
        self._wake()

    def close(self) -> None:
        """There is no more text. Harmless when already closed."""
        with self._changed:
            if self._half and not self._is_closed:
                self._text += self._half
                self._failure = _refused(self._check, self._text)
            self._is_closed = True
            self._changed.notify_all()
        self._wake()

    def fail(self, error: SonantError) -> None:
        """There is no more text, and the speech ends with this error. Harmless when already closed."""
        with self._changed:
            if not self._is_closed:
                self._failure, self._is_closed = error, True
            self._changed.notify_all()
        self._wake()

    def take(self) -> tuple[str, bool]:
        """What has arrived since the last call, and whether that was the end. One that failed has no end: who
        speaks it looks at `failure`."""
        with self._changed:
            text, self._taken = self._text[self._taken :], len(self._text)
            return text, self._is_closed and self._failure is None

    def wait(self, seconds: float) -> None:
        """Return when there is something to take, or after so many seconds."""
        with self._changed:
            if self._taken == len(self._text) and not self._is_closed:
                self._changed.wait(seconds)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to take, or nothing more will come."""
        return self._taken < len(self._text) or self._is_closed

    @property
    def failure(self) -> SonantError | None:
        """What `fail` was given, or what a piece was refused for."""
        return self._failure

    def rewind(self) -> None:
        """Give everything once more from the beginning."""
        with self._changed:
            self._taken = 0

    def watch(self, check: Callable[[str], None], wake: Callable[[], None]) -> None:
        """For the engine: `check` raises RequestError for a text that is refused, `wake` is called when there
        is something new. Raises what is wrong with the text so far."""
        with self._changed:
            if self._failure is None:
                check(self._text)
            self._check, self._wake = check, wake


def _refused(check: Callable[[str], None], text: str) -> RequestError | None:
    try:
        check(text)
    except RequestError as error:
        return error
    return None


@dataclass(frozen=True, repr=False)
class SpeechRequest:
    """One thing to say. Only `text` is needed where the model has a default voice."""

    text: str
    voice: Voice | str | None = field(default=None, kw_only=True)
    """A `Voice`, or the name of a preset speaker of the model."""
    language: str | None = field(default=None, kw_only=True)
    """A language of `ModelSpec.languages`, or None / "auto"."""
    style: Style = field(default_factory=Style, kw_only=True)
    sampling: Sampling = field(default_factory=Sampling, kw_only=True)
    speed: float = field(default=1.0, kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    """Same request and seed, same samples. None draws a seed, which the result reports."""
    text_layout: TextLayout | None = field(default=None, kw_only=True)
    """Qwen3-TTS: all text in the prompt ("full") or one token a frame ("progressive")."""
    normalize: Normalize | bool | None = field(default=None, kw_only=True)
    """How numbers, dates, signs and mark-up become words: by Sonant's front end ("sonant"), by the family's
    own as its original has it ("original"), or not at all ("off"). None is the model's default, which is also
    what True means; False is "off"."""
    stuck_speech: StuckSpeech = field(default="again", kw_only=True)
    """What becomes of a segment that goes wrong (it repeats itself without end, falls silent, misses its end,
    begins with the reference): it is spoken again with another seed where nothing of it was heard yet, else
    stopped ("again"), always stopped ("stop"), or left alone ("off"). Told by a guard event; thresholds are
    in engine/guards.py."""
    guards: str = field(default="usual", kw_only=True)
    """Which of `request.settings.GUARDS` watch: "usual", "all", "none", or names with commas."""
    trim: bool = field(default=False, kw_only=True)
    """Cut the silence at the ends of each segment; pauses that were asked for stay."""
    remove_dc: bool = field(default=False, kw_only=True)
    """Take a constant offset out of the samples as they are made."""
    emoji: Literal["skip", "say"] = field(default="skip", kw_only=True)
    """Whether Sonant's front end leaves emoji out or says their names."""
    code: Literal["say", "skip"] = field(default="say", kw_only=True)
    """Whether Sonant's front end says code in Markdown as it is typed, or leaves it out."""
    exact: bool = field(default=False, kw_only=True)
    """Refuse what the model itself cannot do instead of mending its sound: a speed by time-stretching."""
    glossary: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Words and how to spell them for the voice: applied before everything else."""
    source_audio: Audio | None = field(default=None, kw_only=True)
    """Voice conversion: this speech is said again by `voice`; `text` is then empty."""
    text_feed: TextFeed | None = field(default=None, kw_only=True)
    """Text that arrives while it is spoken; `text` is then empty."""
    chunk_policy: ChunkPolicy = field(default_factory=ChunkPolicy, kw_only=True)
    deadline: float | None = field(default=None, kw_only=True)
    """Seconds from submission after which the request fails with DeadlineError."""
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Switches that only one family has, listed in `ModelSpec.options`; unknown ones are refused."""

    def __post_init__(self) -> None:
        if isinstance(self.normalize, bool):
            object.__setattr__(self, "normalize", None if self.normalize else "off")
        check_all(self, "request")
        guards_of(self.guards)

    def __repr__(self) -> str:
        """The text and what is set of the rest."""
        fresh = SpeechRequest("")
        told = [f"{self.text[:60]!r}" + ("..." if len(self.text) > 60 else "")]
        for one in fields(self)[1:]:
            value = getattr(self, one.name)
            if value != getattr(fresh, one.name):
                told.append(f"{one.name}={value!r}")
        return f"SpeechRequest({', '.join(told)})"


def request_from(
    text: str,
    settings: Mapping[str, Any],
    *,
    sampling: Mapping[str, Any],
    options: Mapping[str, Any],
    **parts: Any,
) -> SpeechRequest:
    """A request from settings by name, as the table names them; `parts` are fields as they are.

    Raises RequestError.
    """
    style = {name: value for name, value in settings.items() if BY_NAME[name].home == "style"}
    return SpeechRequest(
        text,
        style=Style(**style),
        sampling=Sampling(**sampling),
        options=options,
        **{name: value for name, value in settings.items() if name not in style},
        **parts,
    )


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """A piece of the answer, in order. `samples` may be empty in the final chunk."""

    samples: Samples
    sample_rate: int
    index: int
    start: float
    """Seconds from the beginning of the answer to the first sample."""
    is_final: bool
    text: str | None = None
    """The segment of text that this chunk belongs to, in the first chunk of each segment."""


@dataclass(frozen=True)
class GuardEvent:
    """Something the engine stopped or mended on its own, told to the user."""

    kind: str
    """"length_ceiling", "peak_limited", ..."""
    message: str
    segment: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Speech(Audio):
    """A whole answer: samples plus how it was made."""

    seed: int = 0
    guards: tuple[GuardEvent, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: "prepare", "prefill", "decode", "first_audio", "total", ... and "frames"."""
    segments: tuple[str, ...] = ()

    def __repr__(self) -> str:
        told = f", {len(self.guards)} guard events" if self.guards else ""
        return f"{super().__repr__()[:-1]}, seed {self.seed}{told}>"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a loaded model is and can do; the source of capability documents and docs tables."""

    family: str
    name: str
    fingerprint: str
    sample_rate: int
    frame_rate: float
    """Steps of the autoregressive half per second of audio."""
    languages: tuple[str, ...]
    voices: tuple[str, ...] = ()
    """Preset speakers."""
    default_voice: str | None = None
    voice_languages: Mapping[str, str] = field(default_factory=dict)
    """Preset speakers that were trained in one language -> that language."""
    voice_aliases: Mapping[str, str] = field(default_factory=dict)
    """Names that another service has for a voice -> the preset speaker that stands for it here."""
    capabilities: frozenset[str] = frozenset()
    """Some of CAPABILITIES."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Sampling` that this model reads, with its defaults."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Named sets of sampling settings: name -> fields of `Sampling`."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Family switches accepted in `SpeechRequest.options`: name -> what it does."""
    needs_voice: bool = False
    """True when nothing can be said without a reference voice."""
    needs_instruction: bool = False
    """True when nothing can be said without an instruction (voice design)."""
    max_reference_seconds: float = 60.0
    min_reference_seconds: float = 0.1
    min_reference_rate: int = 0
    """Hz."""
    mixed: tuple[str, ...] = ()
    """Tensors of a stored voice that may be mixed by weight; of a mixture nothing else is used."""
    max_text: int = 100_000
    """Characters of one request."""
    rows: int = 1
    """Cache rows that one utterance takes by default (the beam width)."""
    streams_by: Literal["frame", "chunk", "segment"] = "segment"
    normalize: Normalize = "sonant"
    """Which front end reads its text where the request does not say; chosen by score, see docs/text.md."""
    front_ends: tuple[Normalize, ...] = ("sonant", "original", "off")
    """What `SpeechRequest.normalize` may be."""
    text_marks: str = ""
    """A pattern of marks of the model's own in its text, such as <laughter>, that no front end may read."""
    licence: str = ""
    note: str = ""

    @property
    def greedy(self) -> dict[str, bool]:
        """The sampling fields that let every network of it take the most likely token."""
        return {name: True for name in ("greedy", "predictor_greedy") if name in self.sampling}


CAPABILITIES: Mapping[str, str] = {
    "clone": "speaks with the voice of a clip",
    "clone_in_context": "also uses the clip's transcript",
    "preset_voice": "has named voices of its own",
    "voice_mixing": "mixes voices by weight, such as af_bella:0.6+af_sky:0.4",
    "voice_design": "makes a voice from a description",
    "instruction": "follows style instructions in words",
    "emotion_vector": "takes eight emotion numbers",
    "emotion_audio": "copies the emotion of a clip",
    "emotion_text": "infers the emotion from words",
    "voice_conversion": "says given speech again in another voice",
    "speed": "changes pace",
    "pronunciation": "takes words with their phonemes, [word](/phonemes/)",
    "text_layout": "offers the progressive and the full text layout",
    "text_stream": "takes text while it speaks",
    "frame_streaming": "gives audio before a segment is complete",
    "seed": "same seed, same samples",
}
