"""What `sonant parity` is asked to speak: from flags, or from another trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        return told_task(text, voice, transcript, language, instruction, seed, greedy, settings, steps)
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
    seed: int | None,
    greedy: Mapping[str, bool],
    settings: list[str],
    steps: int | None,
) -> Task:
    """The task that flags ask for. Raises RequestError where they do not fit together."""
    from sonant.errors import RequestError
    from sonant.parity.task import Task
    from sonant.request.audio import Audio
    from sonant.request.speech import request_from

    told, sampling, options = _told(settings)
    flags = {"language": language, "instruction": instruction, "seed": seed}
    for name, value in flags.items():
        if value is not None and name in told:
            raise RequestError(
                f"--set {name} was given beside --{name}, which says the same; expected one of them. "
                "Leave one out.",
                field=name,
            )
        told.setdefault(name, value)
    is_file = voice is not None and Path(voice).is_file()
    if transcript is not None and not is_file:
        raise RequestError(
            f"a transcript was given, and {voice or 'no voice'} is no file that says it; expected --voice "
            "with a clip. Check its path, or leave out --transcript.",
            field="transcript",
        )
    request = request_from(
        text,
        # an original is compared with what its own front end reads, under a seed that both know
        {**told, "seed": told["seed"] or 0, "normalize": told.get("normalize", "original")},
        sampling={**greedy, **sampling},
        options=options,
        voice=None if is_file else voice,
    )
    return Task(
        request=request,
        audio=Audio.read(voice) if voice is not None and is_file else None,
        transcript=transcript,
        max_steps=steps,
    )


def _told(settings: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What --set says: settings of request and style, of sampling, and options. Raises RequestError."""
    from sonant.errors import RequestError
    from sonant.readings.given import BY_ANY_NAME, job_fields
    from sonant.readings.job import SPOKEN, parse_option
    from sonant.request.audio import LONGEST_CLIP, Audio

    known: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for item in settings:
        name, equals, value = item.partition("=")
        if not equals:
            raise RequestError(f"--set {item!r} has no '='; expected NAME=VALUE, such as top_k=5.")
        row = BY_ANY_NAME.get(name.strip().lower())
        if row is None:  # the model tells what options it has
            option, said = parse_option(item)
            if option in options:
                raise RequestError(f"--set gives {option} twice; expected it once. Leave one out.")
            options[option] = said
        elif row.name == "preset":
            raise RequestError(
                "preset is no setting of a recorded request, it stands for several; expected those. Give "
                "each with a --set of its own.",
                field="preset",
            )
        elif row.home == "job" or row.engine:
            raise RequestError(
                f"{name} is no setting of a recorded request: a model's tensors do not depend on it, or "
                "it has an option of its own; expected what a model is asked for. Leave it out.",
                field=row.name,
            )
        elif row.key in known:
            raise RequestError(f"--set gives {row.name} twice; expected it once. Leave one out.")
        else:
            is_list = row.kind == "emotions" and value.lstrip().startswith("[")
            known[row.key] = value.strip(" []") if is_list else value
    fields = job_fields(known)
    told = {SPOKEN[key].name: value for key, value in fields["settings"].items()}
    for name in (row.name for row in SPOKEN.values() if row.kind == "clip" and row.name in told):
        told[name] = Audio.read(told[name], max_seconds=LONGEST_CLIP)
    return told, fields["sampling"], {**fields["options"], **options}
