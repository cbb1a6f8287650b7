"""What `sonant parity` is asked to speak: from flags, or from another trace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sonant.parity.task import Task


def asked_task(
    text: str | None,
    like: Path | None,
    voice: str | None,
    transcript: str | None,
    language: str | None,
    instruction: str | None,
    seed: int | None,
    greedy: Mapping[str, bool],
    settings: list[str],
    steps: int | None,
) -> Task | None:
    """The task that flags or another trace ask for; None when nothing was given. `greedy` are the model's
    settings for it, where it is asked for."""
    from dataclasses import replace

    from sonant.errors import RequestError

    if text is not None and like is not None:
        raise RequestError(
            "both of --text and --like given; expected one of them. "
            "Say what to speak with --text, or repeat the request of a trace with --like."
        )
    if text is not None:
        return told_task(text, voice, transcript, language, instruction, seed or 0, greedy, settings, steps)
    given = [
        flag
        for flag, value in (
            ("--voice", voice),
            ("--transcript", transcript),
            ("--language", language),
            ("--instruction", instruction),
            ("--seed", seed is not None),
            ("--greedy", greedy),
            ("--set", settings),
        )
        if value
    ]
    if given:
        raise RequestError(
            f"{' and '.join(given)} given without --text; expected them to describe a request of your own. "
            "Add --text, or leave them out."
        )
    if like is None:
        return None
    task = _task_like(like)
    return task if steps is None else replace(task, max_steps=steps)


def _task_like(path: Path | None) -> Task:
    from sonant.parity.task import task_of
    from sonant.parity.trace import read_trace

    assert path is not None
    return task_of(read_trace(path))


def told_task(
    text: str,
    voice: str | None,
    transcript: str | None,
    language: str | None,
    instruction: str | None,
    seed: int,
    greedy: Mapping[str, bool],
    settings: list[str],
    steps: int | None,
) -> Task:
    """The task that flags ask for. Raises RequestError where they do not fit together."""
    from dataclasses import fields

    from sonant.errors import RequestError
    from sonant.parity.task import Task
    from sonant.request.audio import Audio
    from sonant.request.speech import Sampling, SpeechRequest, Style

    style: dict[str, Any] = {"instruction": instruction}
    sampling: dict[str, Any] = dict(greedy)
    whole: dict[str, Any] = {}
    options: dict[str, Any] = {}
    places = dict.fromkeys(("speed", "text_layout", "normalize", "source_audio"), whole)
    places |= {field.name: sampling for field in fields(Sampling)}
    places |= {field.name: style for field in fields(Style)}
    for item in settings:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item!r} has no '='; expected NAME=VALUE, such as top_k=5.")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        places.get(name, options)[name] = _setting(name, parsed)
    if whole.get("normalize", True) is True:  # an original is compared with what its own front end reads
        whole["normalize"] = "original"
    whole["exact"] = True
    is_file = voice is not None and Path(voice).is_file()
    if transcript is not None and not is_file:
        raise RequestError(
            f"a transcript was given, and {voice or 'no voice'} is no file that says it; expected --voice "
            "with a clip. Check its path, or leave out --transcript.",
            field="transcript",
        )
    try:
        request = SpeechRequest(
            text,
            voice=None if is_file else voice,
            language=language,
            style=Style(**style),
            sampling=Sampling(**sampling),
            seed=seed,
            options=options,
            **whole,
        )
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"--set {' '.join(settings)} is not understood ({error}); expected numbers, true or false. "
            "Write for example --set top_k=5 --set greedy=true"
        ) from error
    return Task(
        request=request,
        audio=Audio.read(voice) if voice is not None and is_file else None,
        transcript=transcript,
        max_steps=steps,
    )


def _setting(name: str, value: Any) -> Any:
    from sonant.request.audio import Audio

    if name in {"emotion_audio", "source_audio"}:
        return Audio.read(str(value))
    return tuple(value) if isinstance(value, list) else value
