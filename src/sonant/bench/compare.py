"""Sonant and a rival in turn, in fresh processes, and the ratio of their figures."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import sonant
from sonant.bench.reference_clip import reference_clip
from sonant.bench.rivals import RIVALS
from sonant.bench.spoken_text import FIRST_AUDIO_TEXT, TEXT
from sonant.bench.worker import Workload
from sonant.errors import DependencyError, GenerationError, RequestError


def run_workload(workload: Workload) -> dict[str, Any]:
    """The figures of one measurement, made in a fresh process."""
    return _json_of(
        [sys.executable, "-m", "sonant.bench.worker", json.dumps(asdict(workload))],
        "the measurement",
        workload.threads,
    )


def run_rival(
    rival: str, workload: Workload, folder: Path, *, python: str | None, dtype: str
) -> dict[str, Any]:
    """The same figures of a rival: a known original in its own environment, or any command line.

    A known original runs in the environment of `python` (or SONANT_RIVAL_PYTHON). A command line is timed
    as a whole; `{model}` in it stands for the checkpoint's folder.
    """
    if rival in RIVALS:
        interpreter = _interpreter(rival, python)
        script = resources.files("sonant.bench.rivals").joinpath("run_" + rival.replace("-", "_") + ".py")
        arguments = {
            "folder": str(folder),
            "dtype": dtype,
            "threads": workload.threads,
            "batch": workload.batch,
            "seconds": workload.seconds,
            "runs": workload.runs,
            "text": TEXT,
            "first_text": FIRST_AUDIO_TEXT,
        }
        with resources.as_file(script) as path, tempfile.TemporaryDirectory() as scratch:
            clip = Path(scratch) / "clip.wav"
            reference_clip().write(clip)
            given = json.dumps({**arguments, "clip": str(clip)})
            return _json_of([interpreter, str(path), given], rival, workload.threads)
    command = [part.replace("{model}", str(folder)) for part in _command(rival)]
    began = time.perf_counter()
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", "") or str(error)
        raise GenerationError(f"the rival {command[0]} failed: {detail[-400:]}") from error
    return {"model": command[0], "command_s": round(time.perf_counter() - began, 3)}


def _interpreter(rival: str, python: str | None) -> str:
    interpreter = python or os.environ.get("SONANT_RIVAL_PYTHON")
    if not interpreter or shutil.which(interpreter) is None:
        named = f"{interpreter} is no program" if interpreter else "none was named"
        raise DependencyError(
            f"the rival {rival} runs in an environment of its own, and {named}. Make one in which "
            f"its package can be imported, then pass its python as --rival-python or SONANT_RIVAL_PYTHON."
        )
    return interpreter


def _environment() -> dict[str, str]:
    """Without what Sonant sets for itself: a rival's threads wait as they do by themselves."""
    ours = {"GOMP_SPINCOUNT"} if sonant.SETS_SPIN_COUNT else set()
    return {name: value for name, value in os.environ.items() if name not in ours}


def _command(rival: str) -> list[str]:
    try:
        command = shlex.split(rival)
    except ValueError as error:
        raise RequestError(f"--compare {rival!r} is no command line: {error}.", field="compare") from error
    if not command:
        raise RequestError("--compare is empty; give a rival's name or a command line.", field="compare")
    return command


def _json_of(command: Sequence[str], what: str, threads: int) -> dict[str, Any]:
    environment = {**_environment(), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise GenerationError(f"{what} failed: {done.stderr.strip()[-800:]}")
    try:
        figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, json.JSONDecodeError) as error:
        raise GenerationError(f"{what} printed no figures: {done.stdout.strip()[-200:]!r}") from error
    return figures


SPREAD = ("rtf", "ttfa_ms", "tokens_per_s", "command_s")
"""Figures of which the least and the most of all rounds are told beside the median."""


def merge(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rounds as one: the median of every number, everything else from the first.

    Of several rounds `spread` tells the least and the most of the figures that are compared.
    """
    merged = _medians(rounds)
    compared = [name for name in SPREAD if name in rounds[0]]
    if len(rounds) > 1 and compared:
        merged["spread"] = {name: extent(one[name] for one in rounds) for name in compared}
    return merged


def extent(values: Iterable[float]) -> list[float]:
    """The least and the most."""
    found = list(values)
    return [min(found), max(found)]


def _medians(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key, value in rounds[0].items():
        values = [one[key] for one in rounds]
        if isinstance(value, Mapping):
            merged[key] = _medians(values)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            middle = median(values)
            merged[key] = int(middle) if middle in values and isinstance(value, int) else round(middle, 4)
        else:
            merged[key] = value
    return merged


def compare(
    workload: Workload, folder: Path, rival: str | None, *, python: str | None, dtype: str, rounds: int
) -> dict[str, Any]:
    """Figures of the workload; with a rival also its figures and `ratio` (above 1: Sonant is faster).

    The two run in turn, round by round, so that a machine that slows down slows both. `ratio` is the
    median over rounds of rival RTF / own RTF (of whole times where the rival is a command line). Of several
    rounds `spread` has the least and the most of each figure. A rival that fails costs no figure of ours:
    `rival_error` says why it has none.
    """
    if rival in RIVALS:  # now, not after the minutes that ours takes
        _interpreter(rival, python)
    elif rival is not None:
        _command(rival)
    own, other, ratios, failure = [], [], [], None
    for _ in range(rounds):
        began = time.perf_counter()
        own.append(run_workload(workload))
        spent = time.perf_counter() - began
        if rival is not None and failure is None:
            try:
                theirs = run_rival(rival, workload, folder, python=python, dtype=dtype)
            except GenerationError as error:
                failure = str(error)
                continue
            other.append(theirs)
            ratios.append(theirs["rtf"] / own[-1]["rtf"] if "rtf" in theirs else theirs["command_s"] / spent)
    result = merge(own)
    if failure is not None:
        result["rival_error"] = failure
    elif rival is not None:
        result["rival"] = {"name": rival, **merge(other)}
        result["ratio"] = round(median(ratios), 3)
        if rounds > 1:
            result.setdefault("spread", {})["ratio"] = extent(round(ratio, 3) for ratio in ratios)
    return result
