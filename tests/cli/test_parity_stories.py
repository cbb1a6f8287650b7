"""docs/parity.md, run as it is written: each command of a story, and the lines that the page shows for it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/parity.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(sh setup|sh story|text)\n(.*?)```", re.DOTALL)


def blocks(text):
    """Commands, and the lines that are shown after the last of them."""
    found = []
    for kind, body in BLOCK.findall(text):
        if kind == "text":
            found[-1][1].extend(line.strip() for line in body.splitlines())
        else:
            found.append((body.strip().splitlines(), []))
    return found


SETUP, *STORIES = re.split(r"^## (?=Story)", PAGE.split("## A port of your own")[0], flags=re.MULTILINE)


@pytest.fixture
def shell(sonant, tmp_path, monkeypatch):
    """Runs lines of the page: assignments, python and sonant; the last command's text."""
    named = {}
    monkeypatch.chdir(tmp_path)
    for name in ("tests", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)

    def run(lines):
        said = ""
        for line in lines:
            assignment = re.fullmatch(r"([A-Z]+)=(\S+)", line)
            if assignment:
                named[assignment[1]] = assignment[2]
                continue
            program, *words = shlex.split(re.sub(r"\$([A-Z]+)", lambda match: named[match[1]], line))
            if program == "python":
                subprocess.run([sys.executable, *words], check=True, timeout=120)
            else:
                assert program == "sonant"
                device = ["--device", "cpu"] * (words[1] in {"record", "bisect"})
                result = sonant(*words, *device)
                assert result.code in {0, 1}, result.err
                said = result.text
        return said

    for lines, _ in blocks(SETUP):
        run(lines)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=[story.splitlines()[0] for story in STORIES])
def test_the_page_shows_what_happens(shell, story):
    assert len(blocks(story)) >= 2
    for lines, shown in blocks(story):
        said = shell(lines)
        for line in shown:
            assert line in said, f"{lines}\n{said}"
