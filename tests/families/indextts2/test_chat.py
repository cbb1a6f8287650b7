"""The chat of the text-to-emotion model: the folder's own template, and the released one without it."""

import json
from pathlib import Path

import pytest

from sonant.errors import CheckpointError
from sonant.families.indextts2.chat import chat_renderer

MESSAGES = [{"role": "system", "content": "文本情感分类"}, {"role": "user", "content": "How dare you!"}]
RELEASED = "System: 文本情感分类<|endoftext|>\nHuman: How dare you!<|endoftext|>\nAssistant:"

# The shape of what fine-tuning tools write, with the set and if clauses that they use.
WRITTEN_BY_A_TOOL = """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set system_message = messages[0]['content'] -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- if system_message is defined -%}{{ 'System: ' + system_message + eos_token + '\\n' }}{%- endif -%}
{%- for message in loop_messages -%}
    {%- if message['role'] == 'user' -%}
        {{ 'Human: ' + message['content'] + eos_token + '\\nAssistant:' }}
    {%- elif message['role'] == 'assistant' -%}
        {{ message['content'] + eos_token + '\\n' }}
    {%- else -%}
        {{ raise_exception('unknown role ' + message['role']) }}
    {%- endif -%}
{%- endfor -%}
"""
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


# The release's file, 550 bytes, as the tool that made it spells these three roles: line ends stand inside
# the strings.
OF_THE_RELEASED_SIZE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}"
    "{% if system_message is defined %}{{ 'System: ' + system_message + '<|endoftext|>' + '\n' }}{% endif %}"
    "{% for message in loop_messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'user' %}{{ 'Human: ' + content + '<|endoftext|>' + '\nAssistant:' }}"
    "{% elif message['role'] == 'assistant' %}{{ content + '<|endoftext|>' + '\n' }}{% endif %}{% endfor %}"
)


def _configure(folder, **data):
    (folder / "tokenizer_config.json").write_text(json.dumps(data), encoding="utf-8")


def test_a_folder_without_a_template_gets_the_released_one(tmp_path):
    assert chat_renderer(tmp_path)(MESSAGES) == RELEASED


def test_a_template_written_by_a_tool_is_rendered(tmp_path):
    (tmp_path / "chat_template.jinja").write_text(WRITTEN_BY_A_TOOL, encoding="utf-8")
    _configure(tmp_path, eos_token={"content": "<|endoftext|>"}, chat_template="{{ messages }} never read")
    assert chat_renderer(tmp_path)(MESSAGES) == RELEASED


def test_a_template_of_the_released_size_is_rendered(tmp_path):
    assert len(OF_THE_RELEASED_SIZE.encode()) == 550
    (tmp_path / "chat_template.jinja").write_text(OF_THE_RELEASED_SIZE, encoding="utf-8")
    assert chat_renderer(tmp_path)(MESSAGES) == RELEASED


def test_the_docs_show_the_prompt(tmp_path):
    docs = Path(__file__).parents[3] / "docs" / "indextts2.md"
    assert f"```text\n{RELEASED}\n```" in docs.read_text(encoding="utf-8")


def test_thinking_is_switched_off_where_a_template_asks(tmp_path):
    _configure(tmp_path, chat_template=CHATML)
    prompt = chat_renderer(tmp_path)(MESSAGES)
    assert prompt.startswith(
        "<|im_start|>system\n文本情感分类<|im_end|>\n<|im_start|>user\nHow dare you!<|im"
    )
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_of_several_templates_the_default_is_taken(tmp_path):
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": CHATML}]
    _configure(tmp_path, chat_template=templates)
    assert "How dare you!" in chat_renderer(tmp_path)(MESSAGES)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ messages[7].content + '' }}", "UndefinedError"),
        ("{{ messages[1].content }}{{ raise_exception('no system role') }}", "no system role"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("Human: {{ messages[0].content }}", "leaves out what the user says"),
    ],
)
def test_an_unusable_template_is_named(tmp_path, template, told):
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(CheckpointError, match=told) as raised:
        chat_renderer(tmp_path)
    assert "Download the emotion model again" in str(raised.value)
    assert "chat_template.jinja" in str(raised.value)


def test_templates_that_are_no_text_are_named(tmp_path):
    _configure(tmp_path, chat_template=7)
    with pytest.raises(CheckpointError, match="is a int; expected text"):
        chat_renderer(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="is no text"):
        chat_renderer(tmp_path)
