"""The nouns of the house mean one thing each: no second class takes one of their names."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "sonant"
NOUNS = {
    "Job": "readings/job.py",
    "Kit": "parity/kits/driver.py",
    "Plan": "checkpoints/memory.py",
    "Prompt": "engine/model.py",
    "Reference": "families/qwen3_tts/prompt.py",
    "Segment": "engine/progress.py",
    "Speaking": "server/service.py",
    "SpeechRequest": "request/speech.py",
    "SpeechStream": "engine/stream.py",
    "Spoken": "cli/speaking.py",
    "Step": "engine/model.py",
    "Utterance": "engine/model.py",
    "Voice": "request/voice.py",
}


@pytest.fixture(scope="module")
def homes():
    """Name of a class, a leading underscore aside -> the files that define one."""
    found = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        for name in re.findall(r"^class _?(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            found[name].add(path.relative_to(SOURCE).as_posix())
    return found


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_has_one_meaning(noun, homes):
    assert homes[noun] == {NOUNS[noun]}
