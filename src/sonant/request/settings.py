"""Every setting of speech, said once. Light: the command line reads it before anything else is loaded.

From a row follow: the check of its value, the command-line option, the HTTP field, its place in jobs and
receipts, whether a model may be asked for it, and its line in docs/settings.md. Rows of the home "load" say
how a model is loaded: options of every command that loads one and of the server, and no part of a request.

To add a setting, write a row here and a field of the same name and default in the class that `home` means (an
option of one family needs no field), and write docs/settings.md anew: python -m sonant.request.settings_page
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from sonant.errors import RequestError

TextLayout = Literal["progressive", "full"]
StuckSpeech = Literal["again", "stop", "off"]
"""What becomes of a segment that goes wrong: spoken again where nobody has heard it yet, else
stopped; or left alone."""
GUARDS = (
    "repeated_code", "repeated_phrase", "near_silence", "missing_end", "reference_echo", "not_finite",
    "runaway",
)  # fmt: skip
"""What the engine watches for; thresholds are in engine/guards.py."""
USUAL_GUARDS = frozenset(GUARDS) - {"runaway"}
"""Without speaking again what reached its ceiling: that takes as long as the longest speech, each time."""
Normalize = Literal["sonant", "original", "off"]
"""Which front end reads numbers, signs and mark-up: Sonant's, the family's own, or none."""

LOUDNESS = -19.0
"""LUFS at which speech leaves where nothing else is asked for: what mono podcasts are made at."""

EMOTIONS = ("happy", "angry", "sad", "afraid", "disgusted", "melancholic", "surprised", "calm")
"""Order of the numbers in `Style.emotion_vector`. Source: IndexTTS2's eight emotion groups."""

Kind = Literal[
    "switch",  # true or false
    "whole",  # a whole number
    "number",
    "level",  # a number, or off, which is None
    "text",
    "name",  # short text: a language, a preset
    "choice",  # one of `choices`
    "voice",  # a voice, or its name
    "clip",  # sound: a path on the command line, base64 over HTTP
    "emotions",  # a number for each of EMOTIONS
    "glossary",  # words and how to spell them
    "options",  # names and values of one family's switches
    "feed",  # text that is still arriving
]
Home = Literal["request", "style", "sampling", "options", "job", "load"]
"""`SpeechRequest`, its `Style` or `Sampling`, a name in its `options`, only a reading's `Job`, or how a model
is loaded."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option of the command line. `--the-name` unless `names` says otherwise."""

    names: tuple[str, ...] = ()
    panel: Literal["Output", "How it sounds", "Decoding", "Model and machine"] = "How it sounds"
    metavar: str | None = None
    help: str | None = None
    """Where the command line says it in other words than `Setting.help`."""
    offers: Literal["models", "voices"] | None = None
    """What the shell completes."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the HTTP bodies, named like the setting unless `name` says otherwise."""

    name: str | None = None
    on: Literal["every", "speech"] = "every"
    """Every body that speaks, or only `POST /v1/audio/speech` and its batch."""
    help: str | None = None
    """Where HTTP says it in other words than `Setting.help`."""
    least: float | None = None
    """Where HTTP takes less than `Setting.least`, as another way to say nothing."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    home: Home
    help: str
    """A sentence, without the range: that is appended."""
    default: Any = None
    """None leaves it to the model, or is nothing."""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    """In place of `least`: the number itself is not allowed."""
    choices: tuple[str, ...] = ()
    unit: str = ""
    said: str = ""
    """Its name in messages, where that is not the name."""
    remark: str = ""
    """What a message adds to the range."""
    needs: tuple[str, ...] = ()
    """One of these capabilities must be the model's when this is set."""
    engine: bool = False
    """Done by the engine to what a model speaks: a family never hears of it, and parity goes without."""
    word: str = ""
    """Its name on the command line and in jobs, where that is not the name."""
    flag: Flag | None = Flag()
    field: Field | None = Field()

    @property
    def key(self) -> str:
        """The name on the command line and in jobs."""
        return self.word or self.name

    @property
    def field_name(self) -> str:
        """The name in HTTP bodies."""
        return (self.field.name if self.field is not None else None) or self.name

    @property
    def range(self) -> str:
        """The values it takes, in words, such as "0.25 to 4"; empty where any will do."""
        if self.choices:
            return " or ".join(filter(None, (", ".join(self.choices[:-1]), self.choices[-1])))
        if self.kind == "level":
            return f"off or {self.least:g} to {self.most:g}"
        if self.most is None:
            return f"more than {self.above:g}" if self.above is not None else ""
        assert self.least is not None
        most = "2^63-1" if self.most == 2**63 - 1 else f"{self.most:,}".removesuffix(".0")
        return f"{self.least:g} to {most}"

    @property
    def help_with_range(self) -> str:
        """The help, and the range in brackets, but for two or three choices, which stand beside it."""
        has_range = self.range and len(self.choices) not in (1, 2, 3)
        return f"{self.help.removesuffix('.')} ({self.range})." if has_range else self.help

    def is_set(self, value: Any) -> bool:
        """Whether a value asks for something."""
        return bool(value) if self.kind in ("glossary", "options") else value != self.default


def _sampling(name: str, kind: Kind, help: str, **more: Any) -> Setting:
    """A row of `Sampling`; None is the model's own. Over HTTP all are in the field `sampling`."""
    more = {"field": None, "flag": Flag(panel="Decoding"), **more}
    return Setting(name=name, kind=kind, home="sampling", help=help, **more)


def _option(name: str, kind: Kind, help: str, **more: Any) -> Setting:
    """A row of `SpeechRequest.options`: what one family has. Over HTTP all are in the field `options`."""
    return Setting(name=name, kind=kind, home="options", help=help, **{"field": None, "flag": None, **more})


def _load(name: str, kind: Kind, help: str, *, flag: Flag | None = None, **more: Any) -> Setting:
    """A row of how a model is loaded: for who runs it, never a field of a request."""
    flag = flag or Flag(panel="Model and machine")
    return Setting(name=name, kind=kind, home="load", help=help, flag=flag, field=None, **more)


_EMOTIONAL = ("emotion_vector", "emotion_audio", "emotion_text")
_TEMPERATURE = {"least": 1e-3, "most": 10.0}
_TOP_K = {"least": 0, "most": 1_000_000}
_TOP_P = {"least": 1e-6, "most": 1.0}
_DECODING = Flag(panel="Decoding")

DEVICES = "auto, cpu, cuda, cuda:N or mps"

SETTINGS: tuple[Setting, ...] = (
    # -- how a model is loaded ------------------------------------------------------------------
    _load(
        "model", "name", "Checkpoint folder or known name (sonant models).",
        flag=Flag(panel="Model and machine", offers="models"),
    ),
    _load("device", "name", f"Where the model runs: {DEVICES}.", default="auto"),
    _load(
        "dtype", "choice", "Numbers of the autoregressive half; auto is float32.", default="auto",
        choices=("auto", "float32", "bfloat16", "float16", "float64"),
    ),
    _load(
        "precision", "choice", "How a CPU keeps the weights, of models that offer it.", default="auto",
        choices=("auto", "full", "lossless", "int8", "mixed", "int4"),
    ),
    _load("slots", "whole", "Utterances spoken at a time as one batch.", default=4, least=1, most=256),
    _load(
        "memory_limit", "text", "The most that Sonant may use, such as 6GB: of a CPU's memory, or of the "
        "accelerator's. What is auto gives way to it.",
        flag=Flag(panel="Model and machine", metavar="SIZE"),
    ),
    _load(
        "strict", "switch",
        "Refuse files that hold tensors which nothing reads; without it they are told and left out.",
        default=False, flag=Flag(panel="Model and machine", names=("--strict",)),
    ),
    # -- the recording ------------------------------------------------------------------------
    Setting(
        name="loudness", kind="level", home="job", default=LOUDNESS, least=-70.0, most=0.0, unit="LUFS",
        said="the loudness", remark=". Speech is usually at -23 to -16.",
        help="Integrated loudness of the recording, or off for the model's own.",
        flag=Flag(panel="Output", metavar="LUFS|off"),
        field=Field(help="LUFS of the sound, or off for the model's own; the server's setting by default."),
    ),
    Setting(
        name="de_rumble", kind="text", home="job", default="auto",
        help="High-pass: off, a cutoff in Hz, or auto, which applies it with a warning only when the result "
        "has a DC offset or rumble.",
        flag=Flag(panel="Output", metavar="off|auto|HZ"), field=None,
    ),
    Setting(
        name="verify", kind="switch", home="job", default=False, field=None,
        help="Have a recogniser listen to each segment, and speak those again that it hears wrong (the judge"
        " extra).",
        flag=Flag(names=("--verify",), panel="Output"),
    ),
    Setting(
        name="verify_tries", kind="whole", home="job", default=2, least=0, most=10, field=None,
        help="How often a segment that is heard wrong is spoken again.", flag=Flag(panel="Output"),
    ),
    # -- how it sounds ------------------------------------------------------------------------
    Setting(
        name="voice", kind="voice", home="job",
        help="A voice of the model, or the name of a stored one.",
        flag=Flag(
            help="A voice of the model, a name from sonant voice list, a voice file, or a clip.",
            offers="voices",
        ),
        field=Field(help="A voice of the model, a stored voice, or one of OpenAI's names for a default."),
    ),
    Setting(
        name="transcript", kind="text", home="job", help="What the clip that is the voice says.",
        flag=Flag(help="What the clip given as --voice says."),
        field=Field(name="ref_text", help="What ref_audio says."),
    ),
    Setting(
        name="language", kind="name", home="request",
        help="Language by name, code or locale; auto or nothing lets the model choose.",
        flag=Flag(help="Language by name or code; default auto."),
    ),
    Setting(
        name="instruction", kind="text", home="style", needs=("instruction", "voice_design"),
        help="How to say it, or the voice to design, in words.", field=Field(name="instructions"),
    ),
    Setting(
        name="design_model", kind="name", home="job", field=None,
        help="A voice-design model that makes the voice from --instruction; --model then speaks.",
        flag=Flag(offers="models"),
    ),
    Setting(
        name="design_text", kind="text", home="job", field=None,
        help="What the designed voice says to be cloned from.",
    ),
    Setting(
        name="emotion_vector", kind="emotions", home="style", needs=("emotion_vector",), word="emotion",
        help=f"Eight numbers in 0..1, or some of them by name: {', '.join(EMOTIONS)}.",
        flag=Flag(help=f'Such as happy, or "happy=0.6,calm=0.2"; also {" ".join(EMOTIONS[1:-1])}.'),
    ),
    Setting(
        name="emotion_audio", kind="clip", home="style", needs=("emotion_audio",),
        help="A clip whose emotion is copied.",
    ),
    Setting(
        name="emotion_text", kind="text", home="style", needs=("emotion_text",),
        help="Words from which the emotion is inferred.",
    ),
    Setting(
        name="emotion_from_text", kind="switch", home="style", default=False, needs=("emotion_text",),
        help="Infer the emotion from the spoken text.", flag=Flag(names=("--emotion-from-text",)),
    ),
    Setting(
        name="emotion_random", kind="switch", home="style", default=False,
        needs=("emotion_vector", "emotion_text"),
        help="Draw the emotion's examples at random instead of by the nearest speaker.",
        flag=Flag(names=("--emotion-random",)),
    ),
    Setting(
        name="emotion_strength", kind="number", home="style", default=1.0, least=0.0, most=2.0,
        needs=_EMOTIONAL, said="emotion strength", remark=" (1 is the full emotion)",
        help="0 is the voice's own manner, 1 the full emotion.",
    ),
    Setting(
        name="speed", kind="number", home="request", default=1.0, least=0.25, most=4.0,
        help="Times the model's own pace; stretched in time where the model has none.",
        remark=" (1 is the model's own pace)",
    ),
    Setting(
        name="text_layout", kind="choice", home="request", choices=get_args(TextLayout),
        needs=("text_layout",), said="the text layout", remark=". Choose one of them.",
        help="Text one token a frame, or all of it in the prompt (Qwen3-TTS).",
    ),
    Setting(
        name="exact", kind="switch", home="request", default=False, flag=Flag(names=("--exact",)),
        engine=True,
        help="Refuse a speed that the model itself cannot do, instead of stretching its sound.",
    ),
    Setting(
        name="normalize", kind="choice", home="request", choices=get_args(Normalize),
        help="Which front end reads numbers, signs and mark-up: Sonant's, the family's own, or none; nothing "
        "is the model's choice.",
        said="normalize", remark=". Choose one of them.",
    ),
    Setting(
        name="emoji", kind="choice", home="request", choices=("skip", "say"), default="skip",
        help="Leave emoji out, or say their names.",
    ),
    Setting(
        name="code", kind="choice", home="request", choices=("say", "skip"), default="say",
        help="Say code in Markdown as it is typed, or leave it out.",
    ),
    Setting(
        name="glossary", kind="glossary", home="request", default={},
        help="Words and how to spell them aloud.", flag=Flag(help="File of lines: word = spelling."),
    ),
    Setting(
        name="source_audio", kind="clip", home="request", needs=("voice_conversion",),
        help="Voice conversion: this speech is said again by the voice asked for, and no text is given.",
        flag=Flag(help="Voice conversion: speech to say again in another voice; no TEXT."),
        field=Field(on="speech"),
    ),
    Setting(
        name="text_feed", kind="feed", home="request", needs=("text_stream",), engine=True,
        help="Text that arrives while it is spoken.", flag=None, field=None,
    ),
    Setting(
        name="deadline", kind="number", home="request", above=0.0, unit="s", engine=True,
        help="Seconds after which the request is given up.", flag=None,
    ),
    # -- decoding -----------------------------------------------------------------------------
    Setting(
        name="stuck_speech", kind="choice", home="request", choices=get_args(StuckSpeech), default="again",
        help="What to do with a segment that goes wrong, such as one that repeats itself without end.",
        flag=_DECODING, engine=True,
    ),
    Setting(
        name="guards", kind="text", home="request", default="usual",
        help=f"What is watched for: usual (all but runaway), all, none, or some of {', '.join(GUARDS)}.",
        flag=Flag(panel="Decoding", metavar="NAMES"), engine=True,
    ),
    Setting(
        name="trim", kind="switch", home="request", default=False, flag=Flag(names=("--trim",)), engine=True,
        help="Cut the silence at the ends of each segment, but for a tenth of a second before and a quarter "
        "after it.",
    ),
    Setting(
        name="remove_dc", kind="switch", home="request", default=False, flag=Flag(names=("--remove-dc",)),
        engine=True,
        help="Take a constant offset out of the samples as they are made (a high-pass at 10 Hz).",
    ),
    Setting(
        name="seed", kind="whole", home="request", least=0, most=2**63 - 1, help="Same seed, same samples.",
        flag=_DECODING,
        field=Field(help="Same request and seed, same audio; -1 or nothing draws one.", least=-1),
    ),
    Setting(
        name="preset", kind="name", home="job", field=None,
        help="A named set of these settings, see sonant inspect MODEL.", flag=_DECODING,
    ),
    _sampling(
        "greedy", "switch", "Take the likeliest token each time instead of drawing one.",
        flag=Flag(names=("--greedy/--sample",), panel="Decoding"),
    ),
    _sampling("temperature", "number", "Above 1 livelier, below 1 steadier.", **_TEMPERATURE, field=Field()),
    _sampling(
        "top_k", "whole", "Draw among so many of the likeliest tokens; 0 is off.", **_TOP_K, field=Field()
    ),
    _sampling(
        "top_p", "number", **_TOP_P,
        help="Draw among the likeliest tokens that have this share of the probability; 1 is off.",
        field=Field(),
    ),
    _sampling(
        "repetition_penalty", "number", "Above 1 makes what was said less likely to come again.", least=1e-3,
        most=100.0, field=Field(),
    ),
    _sampling(
        "predictor_greedy", "switch", "greedy for the second network of a frame (Qwen3-TTS).",
        flag=Flag(names=("--predictor-greedy/--predictor-sample",), panel="Decoding"),
    ),
    _sampling(
        "predictor_temperature", "number", "temperature for the second network of a frame.", **_TEMPERATURE
    ),
    _sampling("predictor_top_k", "whole", "top_k for the second network of a frame.", **_TOP_K),
    _sampling("predictor_top_p", "number", "top_p for the second network of a frame.", **_TOP_P),
    _sampling("beams", "whole", "Width of the beam search.", least=1, most=16),
    _sampling("length_penalty", "number", "Of beams: above 0 favours long ones.", least=-10.0, most=10.0),
    _sampling(
        "flow_steps", "whole", "Steps of the flow's solver; more are finer and slower.", least=1, most=1000
    ),
    _sampling("guidance", "number", "Classifier-free guidance of the flow; 0 is off.", least=0.0, most=20.0),
    _sampling(
        "max_frames", "whole", "Most frames of one segment.", least=1, most=1_000_000,
        field=Field(name="max_new_tokens"),
    ),
    # -- switches of one family, taken by the models that list them in `ModelSpec.options` -------
    _option(
        "duration_factor", "number",
        "Length of the speech as a multiple of the model's own: 1 / speed, as IndexTTS-2.5 calls it.",
        least=0.25, most=4.0, flag=Flag(panel="How it sounds"),
    ),
    _option(
        "noise", "choice",
        '"reference": the noise of the original\'s constructors, bit for bit, for 300 s (CosyVoice3).',
        choices=("reference", "seeded"), flag=_DECODING,
    ),
    _option(
        "stream_hop", "whole",
        "First hop of a stream in tokens; the original starts a later stream with 50 or 100.",
        least=1, most=100_000,
    ),
    _option(
        "reference_stream", "switch",
        "Each chunk runs flow and vocoder on everything so far, the last under full attention, as the"
        " original does.",
        default=False,
    ),
    _option(
        "codec_chunks", "switch",
        "Decode 300 frames at a time with 25 of context, as the original's interface does; audio then comes"
        " at the end of a segment only.",
        default=False,
    ),
    _option(
        "speaker_vector_only", "switch",
        "Use a voice's speaker vector alone, even if its clip has a transcript.", default=False,
    ),
    _option(
        "emotion_bias", "switch",
        "Weigh and cap an emotion vector as the original's web page does; false takes the numbers as they"
        " are, as the original's Python interface does.",
        default=True,
    ),
    _option(
        "emotion_random_seed", "whole",
        "Seed of Python's generator for emotion_random; the request's seed where it is left out.",
        least=0, most=2**63 - 1,
    ),
    _option(
        "segment_pieces", "whole",
        "Pieces or tokens of text in one segment at most, no more than the model's limit.",
        default=120, least=1, most=100_000,
    ),
    _option(
        "quick_pieces", "whole",
        "Join the first this many pieces less, for an earlier first sound.", default=0, least=0, most=100_000,
    ),
    _option(
        "interval_silence_ms", "number", "Silence between segments.",
        default=200.0, least=0.0, most=10_000.0, unit="ms",
    ),
    _option("typical_mass", "number", "Locally typical sampling with this mass.", least=1e-6, most=1.0),
    _option(
        "early_stopping", "switch", "Beams stop as soon as enough of them ended.", default=False,
    ),
    _option(
        "mask_start_code", "switch",
        "Never choose the start code, which ends in an error; changes parity.", default=False,
    ),
    _option(
        "language_code", "name",
        "A code of the original's table that is no language of the list, such as zhen for Chinese mixed with"
        " English, yue or fr.",
    ),
    _option(
        "piece_characters", "whole",
        "First cut the text at marks into pieces of so many characters, each with an emotion of its own"
        " words; the original does so with 40 on small GPUs.",
        least=1, most=100_000,
    ),
    Setting(
        name="options", kind="options", home="request", default={},
        help="Switches of one model family, see GET /v1/models.", word="option",
        flag=Flag(
            names=("--option",), panel="Decoding", metavar="NAME=VALUE",
            help="A switch of one family, see sonant inspect.",
        ),
    ),
)  # fmt: skip

BY_NAME: Mapping[str, Setting] = {row.name: row for row in SETTINGS}


def settings_of(*homes: Home) -> tuple[Setting, ...]:
    """The rows that live in these places, in the table's order."""
    return tuple(row for row in SETTINGS if row.home in homes)


def options_of(*names: str) -> Mapping[str, str]:
    """What these switches of a family do, for its `ModelSpec.options`."""
    return {name: BY_NAME[name].help_with_range for name in names}


def guards_of(text: str) -> frozenset[str]:
    """The guards that a setting names. Raises RequestError for others."""
    named = [name.strip() for name in text.replace("-", "_").split(",") if name.strip()]
    known = {"usual": USUAL_GUARDS, "all": frozenset(GUARDS), "none": frozenset[str]()}
    if len(named) == 1 and named[0] in known:
        return known[named[0]]
    if not named or not {*named} <= {*GUARDS}:
        raise RequestError(
            f"guards is {text!r}; expected usual, all, none, or some of {', '.join(GUARDS)}, with commas.",
            field="guards",
        )
    return frozenset(named)


def check_all(owner: object, home: Home) -> None:
    """Check each setting that `owner` has as an attribute. Raises RequestError naming the first wrong one."""
    for row in SETTINGS:
        if row.home == home:
            check_value(row, getattr(owner, row.name))


def check_value(row: Setting, value: Any) -> None:
    """Raise RequestError for a value of another kind or out of range. None passes where it is the default."""
    if value is None and row.default is None:
        return
    said = row.said or row.name

    def refuse(expected: str) -> RequestError:
        return RequestError(f"{said} is {value!r}; expected {expected}", field=row.name)

    if value is None and row.kind == "level":
        return
    match row.kind:
        case "switch":
            if not isinstance(value, bool):
                raise refuse("true or false")
        case "text" | "name":
            if not isinstance(value, str):
                raise refuse("text")
        case "choice":
            if value not in row.choices:
                raise refuse(f"{row.range}{row.remark}")
        case "glossary" | "options":
            if not isinstance(value, Mapping):
                raise refuse("names with values")
            for word, spelling in value.items() if row.kind == "glossary" else ():
                if not isinstance(word, str) or not isinstance(spelling, str):
                    raise RequestError(
                        f"glossary gives {word!r:.60} the spelling {spelling!r:.60}; expected text for both",
                        field=row.name,
                    )
        case "emotions":
            _check_emotions(tuple(value), row.name)
        case "whole" | "number" | "level":
            is_number = isinstance(value, Integral if row.kind == "whole" else Real)
            if row.kind == "level" and (isinstance(value, bool) or not is_number):
                raise refuse(f"{row.range}{row.remark}")
            if isinstance(value, bool) or not is_number:
                raise refuse("a whole number" if row.kind == "whole" else "a number")
            if not _is_within(row, value):
                unit = f" {row.unit}" if row.unit else ""
                raise RequestError(
                    f"{said} is {value}{unit}; expected {row.range}{row.remark}", field=row.name
                )


def read_level(row: Setting, value: object) -> float | None:
    """The number of a setting of kind "level", or None for "off". Raises RequestError."""
    if isinstance(value, str):
        if value.strip().lower() in ("off", "none"):
            return None
        with contextlib.suppress(ValueError):  # other text is refused below
            value = float(value)
    check_value(row, value)
    return None if value is None else float(value)  # type: ignore[arg-type]


def _is_within(row: Setting, value: float) -> bool:
    return (
        (isinstance(value, Integral) or math.isfinite(value))
        and (row.least is None or value >= row.least)
        and (row.above is None or value > row.above)
        and (row.most is None or value <= row.most)
    )


def _check_emotions(vector: tuple[float, ...], field: str) -> None:
    if len(vector) != len(EMOTIONS):
        raise RequestError(
            f"emotion vector has {len(vector)} numbers; expected {len(EMOTIONS)}: {', '.join(EMOTIONS)}",
            field=field,
        )
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in vector):
        raise RequestError(f"emotion vector {list(vector)} has a number outside 0..1", field=field)
