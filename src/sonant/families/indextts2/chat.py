"""The chat that the text-to-emotion model is asked in, by the model folder's own template.

A template comes with the checkpoint, so it is rendered in jinja2's sandbox, with the variables and settings
that `transformers` gives one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sonant.checkpoints.files import read_json
from sonant.errors import CheckpointError

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")

# What the released template makes of its two messages; for folders unpacked without the file.
RELEASED = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ 'System: ' + m.content + '<|endoftext|>\\n' }}"
    "{% elif m.role == 'user' %}{{ 'Human: ' + m.content + '<|endoftext|>\\nAssistant:' }}{% endif %}"
    "{% endfor %}"
)

Messages = Sequence[Mapping[str, str]]


def chat_renderer(folder: Path) -> Callable[[Messages], str]:
    """Messages (`role`, `content`) -> the prompt an answer follows. Raises CheckpointError."""
    where, source = _template(folder)
    variables = _special_tokens(folder)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse

    def damaged(error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{where} is no usable chat template ({type(error).__name__}: {error}). "
            "Download the emotion model again."
        )

    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise damaged(error) from error

    def render(messages: Messages) -> str:
        try:
            return template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                enable_thinking=False,
                **variables,
            )
        except Exception as error:  # a template computes: whatever Python raises may come out of it
            raise damaged(error) from error

    probe = "text of a user"
    if probe not in render([{"role": "system", "content": "task"}, {"role": "user", "content": probe}]):
        raise CheckpointError(
            f"{where} leaves out what the user says; expected a template that holds it. "
            "Download the emotion model again."
        )
    return render


def _template(folder: Path) -> tuple[str, str]:
    """Where the template is and its text, in the order that `transformers` looks."""
    file = folder / TEMPLATE
    if file.is_file():
        try:
            return str(file), file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(
                f"{file} is no text ({error}). Download the emotion model again."
            ) from error
    config = folder / TOKENIZER_CONFIG
    found = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several, by name
        found = next((each.get("template") for each in found if each.get("name") == "default"), None)
    if found is None:
        return "the released chat template", RELEASED
    if not isinstance(found, str):
        raise CheckpointError(
            f"chat_template in {config} is a {type(found).__name__}; expected text. "
            "Download the emotion model again."
        )
    return f"chat_template in {config}", found


def _special_tokens(folder: Path) -> dict[str, str]:
    config = folder / TOKENIZER_CONFIG
    data = read_json(config) if config.is_file() else {}
    found: dict[str, str] = {}
    for name in SPECIAL_TOKENS:
        value = data.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise TemplateError(message)
