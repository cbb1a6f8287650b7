"""The two commands: what they install, and that a text arrives as it was typed."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words, folder):
    """make, as if nothing had been installed but what is in `folder`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", f"VENV={folder}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("target", "installed"),
    [("say", ["."]), ("serve", [".", ".[server]"]), ("test", [".[server,books,dev]"])],
)
def test_each_command_installs_what_it_needs_and_tells_the_size(tmp_path, target, installed):
    planned = make("-n", target, folder=tmp_path / "absent")
    found = [line.split(" -e '")[1].split("'")[0] for line in planned.splitlines() if " -e '" in line]
    assert found == installed
    told = [line for line in planned.splitlines() if line.startswith('echo "Installing')]
    assert len(told) == len(installed)
    assert all("MB" in line for line in told)


@pytest.mark.parametrize("text", ["It costs $23.50.", "$HOME", "a \"quoted\" 'word'", "50 % of $(x) `y`"])
def test_a_text_arrives_as_it_was_typed(tmp_path, text):
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    sonant = folder / "bin" / "sonant"
    sonant.write_text('#!/bin/sh\nprintf "%s" "$2"\n', encoding="utf-8")
    sonant.chmod(0o755)
    (folder / ".speaks").touch()
    os.utime(folder / ".speaks", (time.time() + 1000,) * 2)  # newer than what it depends on
    assert make("say", f"TEXT={text}", f"OUT={tmp_path}/out.wav", folder=folder) == text
