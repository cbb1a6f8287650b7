"""One voice with a grid of settings: clips, figures, a page to listen to, a ranking and a recommendation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sonant.engine.engine import Engine
from sonant.errors import RequestError
from sonant.files import write_atomically
from sonant.quality.bootstrap import difference_interval
from sonant.quality.judges import Judges
from sonant.quality.standings import DEFAULT, Standing, doubts, recommend
from sonant.quality.sweep_page import page
from sonant.quality.trials import Candidate, Clip, Task, speak_and_judge
from sonant.readings.receipt import versions
from sonant.request.checks import make_folder
from sonant.request.speech import ModelSpec

REPORT, PAGE = "metrics_report.json", "index.html"


def grid(spec: ModelSpec) -> list[Candidate]:
    """The model's defaults, its presets, and what moves each knob that it has a little."""
    made = [Candidate(DEFAULT), *(Candidate(name, dict(values)) for name, values in spec.presets.items())]

    def add(**settings: Any) -> None:
        name = "-".join(
            f"{key}-{value:g}" if not isinstance(value, bool) else key for key, value in settings.items()
        )
        if not all(spec.sampling.get(key) == value for key, value in settings.items()):
            made.append(Candidate(name.replace("_", "-"), settings))

    own = spec.sampling
    if "temperature" in own and own.get("temperature"):
        for factor in (0.6, 0.8, 1.2):
            add(temperature=round(own["temperature"] * factor, 3))
    if "top_p" in own:
        add(top_p=0.8)
    if "top_k" in own:
        add(top_k=20)
    if "repetition_penalty" in own:
        add(repetition_penalty=1.1 if own["repetition_penalty"] != 1.1 else 1.05)
    if own.get("flow_steps"):
        add(flow_steps=max(1, own["flow_steps"] // 2))
    if own.get("guidance"):
        add(guidance=round(own["guidance"] * 0.5, 3))
    if "speed" in spec.capabilities:
        add(speed=0.9)
        add(speed=1.1)
    return made


def run_sweep(
    engine: Engine,
    candidates: Sequence[Candidate],
    task: Task,
    judges: Judges,
    folder: Path,
    *,
    on_clip: Callable[[Clip], None] = lambda clip: None,
) -> list[Standing]:
    """Every candidate says every sentence; the report and the page are written; best first.

    Raises RequestError for a folder that cannot be made, or two candidates of one name.
    """
    names = [candidate.name for candidate in candidates]
    if len(set(names)) != len(names):
        raise RequestError(f"two candidates have one name in {', '.join(names)}; expected different ones.")
    make_folder(folder)
    spoken: dict[str, tuple[Clip, ...]] = {}
    for candidate in candidates:
        clips = []
        for clip in speak_and_judge(engine, candidate, task, judges, folder):
            clips.append(clip)
            on_clip(clip)
        spoken[candidate.name] = tuple(clips)
    standings = [_standing(candidate, spoken) for candidate in candidates]
    standings.sort(key=lambda standing: standing.points)
    data = report(engine.spec, task, judges, standings)
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / REPORT, text.encode("utf-8", "replace"), is_private=False)
    listening = page(engine.spec, task, standings, data, folder)
    write_atomically(folder / PAGE, listening.encode("utf-8", "replace"), is_private=False)
    return standings


def _standing(candidate: Candidate, spoken: Mapping[str, tuple[Clip, ...]]) -> Standing:
    clips = spoken[candidate.name]
    against = None
    if candidate.name != DEFAULT and DEFAULT in spoken:
        own, others = ([clip.points for clip in side] for side in (spoken[DEFAULT], clips))
        against = difference_interval(own, others)
    return Standing(candidate=candidate, clips=clips, against_default=against)


def report(spec: ModelSpec, task: Task, judges: Judges, standings: Sequence[Standing]) -> dict[str, Any]:
    """Everything measured, as plain data for JSON, best first."""
    name, reason = recommend(standings)
    settings = next(standing.candidate.settings for standing in standings if standing.candidate.name == name)
    return {
        "model": {"name": spec.name, "family": spec.family, "fingerprint": spec.fingerprint},
        "recommended": {"name": name, "settings": dict(settings), "reason": reason},
        "sentences": list(task.sentences),
        "language": task.language,
        "seed": task.seed,
        "not_judged": list(judges.remarks),
        "doubts": list(doubts(len(task.sentences))),
        "versions": versions(),
        "candidates": [
            {
                "rank": rank,
                "name": standing.candidate.name,
                "settings": dict(standing.candidate.settings),
                "summary": {
                    key: round(value, 4) if value is not None else None
                    for key, value in standing.summary.items()
                },
                "against_default": (
                    standing.against_default.as_dict() if standing.against_default is not None else None
                ),
                "clips": [clip.as_dict() for clip in standing.clips],
            }
            for rank, standing in enumerate(standings, 1)
        ],
    }
