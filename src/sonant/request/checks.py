"""What is checked of a request before any work: fields against what the model can do."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from sonant.errors import RequestError, UnsupportedError
from sonant.request.audio import Audio
from sonant.request.settings import BY_NAME, SETTINGS, check_value
from sonant.request.speech import ModelSpec, SpeechRequest, Style, language_name
from sonant.text.markup import PRONUNCIATION


def check_reading(request: SpeechRequest, spec: ModelSpec) -> None:
    """Raise RequestError or UnsupportedError for a text that the model cannot be asked to read so."""
    _check_text(request, spec)
    _check_pronunciations(request.text, spec)
    if request.normalize not in (None, *spec.front_ends):
        raise UnsupportedError(
            f"{spec.name} cannot read its text with normalize={request.normalize}: its own front end is not "
            f"to be switched off. It takes: {', '.join(spec.front_ends)}. Choose one of them.",
            field="normalize",
        )
    _check_language(request.language, spec)


def check_request(request: SpeechRequest, spec: ModelSpec) -> None:
    """Raise RequestError or UnsupportedError, by field, for whatever the model cannot do."""
    check_reading(request, spec)
    style = request.style
    for row in SETTINGS:
        if not row.needs or not spec.capabilities.isdisjoint(row.needs):
            continue
        if row.is_set(getattr(style if row.home == "style" else request, row.name)):
            can = ", ".join(sorted(spec.capabilities)) or "plain speech only"
            raise UnsupportedError(
                f"{spec.name} does not take {row.name}; it can: {can}. "
                f"Leave {row.name} out or choose another model.",
                field=row.name,
            )
    if request.exact and request.speed != 1.0 and "speed" not in spec.capabilities:
        raise UnsupportedError(
            f"{spec.name} does not take speed; exact forbids to stretch its sound instead. Leave exact or "
            "speed out, or choose another model.",
            field="speed",
        )
    if spec.needs_instruction and not (style.instruction or "").strip():
        raise RequestError(
            f"{spec.name} makes its voice from a description. Give one as instruction, such as "
            '"a calm, low male voice".',
            field="instruction",
        )
    for name in request.sampling.given():
        if name not in spec.sampling:
            known = ", ".join(spec.sampling) or "none"
            raise UnsupportedError(
                f"{spec.name} has no sampling setting {name}; it has: {known}. Leave {name} out.", field=name
            )
    for name, value in request.options.items():
        if name not in spec.options:
            raise UnsupportedError(
                f"{spec.name} has no option {name!r}{_nearest(name, list(spec.options))}; "
                f"it has: {', '.join(spec.options) or 'none'}.",
                field=name,
            )
        check_value(BY_NAME[name], value)
    _check_emotion(style)
    if style.emotion_audio is not None:
        check_clip(style.emotion_audio, spec, field="emotion_audio", what="emotion clip")
    if request.source_audio is not None:
        check_clip(request.source_audio, spec, field="source_audio", what="source recording")


def check_clip(audio: Audio, spec: ModelSpec, *, field: str, what: str) -> None:
    """Raise RequestError for a clip beyond the model's limits: rate, length, silent or no sound at all."""
    if audio.sample_rate < spec.min_reference_rate:
        raise RequestError(
            f"the {what} has {audio.sample_rate} Hz; {spec.name} needs at least {spec.min_reference_rate}. "
            "Use a recording of better quality; raising the rate adds nothing.",
            field=field,
        )
    if audio.seconds > spec.max_reference_seconds:
        raise RequestError(
            f"the {what} lasts {audio.seconds:.1f} s; {spec.name} takes at most "
            f"{spec.max_reference_seconds:g} s. Cut it to one clear passage of 5 to 15 s.",
            field=field,
        )
    if audio.seconds < spec.min_reference_seconds:
        raise RequestError(
            f"the {what} lasts {audio.seconds:.2f} s; at least {spec.min_reference_seconds:g} s are needed. "
            "Use a clip of 5 to 15 s.",
            field=field,
        )
    _check_numbers(audio, field=field, what=what)
    if np.abs(audio.samples).max() <= 1e-4:
        raise RequestError(
            f"the {what} is silent (no sample above -80 dB); expected speech. Record it again.", field=field
        )


def _check_numbers(audio: Audio, *, field: str, what: str) -> None:
    if not np.isfinite(audio.samples).all():
        raise RequestError(
            f"the {what} has samples that are no finite numbers; expected values in -1 to 1. Record or "
            "export it again.",
            field=field,
        )


def _check_text(request: SpeechRequest, spec: ModelSpec) -> None:
    text = request.text
    if not isinstance(text, str):
        raise RequestError(f"the text is a {type(text).__name__}; expected a string.", field="text")
    if request.text_feed is not None:
        if text.strip() or request.source_audio is not None:
            raise RequestError(
                "a text feed was given together with a text or a source to convert. Keep one of them.",
                field="text_feed",
            )
        if request.glossary:
            raise RequestError(
                "a glossary was given with a text feed, whose words go to the model as they come; expected "
                "one with whole texts only. Leave it out, or respell the words before putting them.",
                field="glossary",
            )
        if request.normalize == "sonant":
            raise RequestError(
                "normalize=sonant was given with a text feed, whose words go to the model as they come; "
                "expected it with whole texts only. Leave it out, or put the feed's sentences one by one.",
                field="normalize",
            )
        return
    if request.source_audio is not None:
        if text.strip():
            raise RequestError(
                "voice conversion says given speech again and takes no text. Leave one of them out.",
                field="text",
            )
        return
    if not text.strip():
        raise RequestError("the text is empty. Give at least one word to say.", field="text")
    _check_characters(text, spec)


def check_fed_text(text: str, spec: ModelSpec) -> None:
    """Raise RequestError or UnsupportedError for text of a feed, as for text that is given whole."""
    _check_characters(text, spec)
    _check_pronunciations(text, spec)


def _check_characters(text: str, spec: ModelSpec) -> None:
    if len(text) > spec.max_text:
        raise RequestError(
            f"the text has {len(text):,} characters; {spec.name} takes at most {spec.max_text:,} in one "
            "request. Split it, for example by chapter, or read it with: sonant say @FILE --resume",
            field="text",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text has half of a surrogate pair at position {error.start}, which is no character. "
            "It was probably cut or decoded wrongly; send valid Unicode.",
            field="text",
        ) from error


def _check_emotion(style: Style) -> None:
    has_numbers = (
        style.emotion_vector is not None or style.emotion_text is not None or style.emotion_from_text
    )
    if style.emotion_random and not has_numbers:
        raise RequestError(
            "emotion_random was given without an emotion to draw examples for; expected emotion_vector, "
            "emotion_text or emotion_from_text with it. Add one, or leave it out.",
            field="emotion_random",
        )
    if style.emotion_strength != 1.0 and not has_numbers and style.emotion_audio is None:
        raise RequestError(
            f"emotion_strength is {style.emotion_strength:g} and no emotion was given; expected "
            "emotion_vector, emotion_audio, emotion_text or emotion_from_text with it. Add one, or leave it "
            "out.",
            field="emotion_strength",
        )


def _check_pronunciations(text: str, spec: ModelSpec) -> None:
    found = PRONUNCIATION.search(text)
    if found and "pronunciation" not in spec.capabilities:
        word = found[0][1:].split("](/", 1)[0]
        raise UnsupportedError(
            f"{spec.name} takes no phonemes, but the text has {found[0]!r}. Write {word!r} as it sounds, or "
            "put a respelling into the glossary.",
            field="text",
        )


def _check_language(language: str | None, spec: ModelSpec) -> None:
    name = language_name(language)
    if name is None or not spec.languages:
        return
    known = [one.lower() for one in spec.languages]
    if name not in known:
        raise RequestError(
            f"{spec.name} does not speak {language!r}{_nearest(name, known)}; "
            f"it speaks: {', '.join(spec.languages)}, or auto.",
            field="language",
        )


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def make_folder(folder: Path) -> None:
    """The folder is there to be written to, with those above it. Raises RequestError where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"cannot make the folder {folder} ({error.strerror}); expected a place to write to. "
            "Choose another."
        ) from error
