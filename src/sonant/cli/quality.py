"""sonant sweep, compare, evaluate: speech judged over sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.catalogue.registry import DEFAULT_MODEL
from sonant.cli.completions import model_names
from sonant.cli.flags import from_table

if TYPE_CHECKING:
    from sonant.engine.engine import Engine
    from sonant.quality.comparison import Difference
    from sonant.quality.judges import Judges
    from sonant.quality.trials import Clip, Task

Sentences = Annotated[
    Path | None,
    typer.Option(help="What is said, one sentence a line; default eight English or Chinese ones."),
]
_BEGINS_AGAIN = "a judgement is of all clips together. Run the same command again: it begins anew."


@from_table
def sweep(
    *,
    model: str = DEFAULT_MODEL,
    voice: str | None,
    transcript: str | None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("sweep"),
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            help="A candidate: NAME:key=value,key=value, or the name of a preset. Again for more; without "
            "any, the model's presets and each of its knobs moved a little.",
            metavar="CANDIDATE",
        ),
    ] = None,
    sentences: Sentences = None,
    language: str | None,
    seed: Annotated[int, typer.Option(help="Of every candidate.")] = 0,
    device: str,
    dtype: str,
    precision: str,
) -> None:
    """Say sentences with many settings: clips, metrics_report.json, a page, a ranking, a recommendation."""
    from sonant.cli.speaking import told_when_stopped, warn
    from sonant.errors import RequestError
    from sonant.quality.standings import doubts, recommend
    from sonant.quality.sweep import PAGE, grid, run_sweep
    from sonant.quality.trials import Candidate, parse_settings

    with told_when_stopped(_BEGINS_AGAIN), _ready(
        model, voice=voice, transcript=transcript, sentences=sentences, language=language, seed=seed,
        device=device, dtype=dtype, precision=precision,
    ) as (engine, task, judges):  # fmt: skip
        candidates = grid(engine.spec)
        if setting:
            candidates = [candidates[0]]
            for given in setting:
                name, colon, values = given.partition(":")
                if "=" in name or not name.strip() or not all(c.isalnum() or c in "-_." for c in name):
                    raise RequestError(
                        f"the candidate {given!r} has no name; expected NAME:key=value, such as "
                        "lively:temperature=1.1"
                    )
                candidates.append(Candidate(name, parse_settings(values if colon else name, engine.spec)))

        def tell(clip: Clip) -> None:
            result = f"failed: {clip.error}" if clip.error else f"{clip.points:.1f} points"
            typer.echo(f"{clip.candidate.name:<24} {clip.number + 1:3d}  {result}", err=True)

        standings = run_sweep(engine, candidates, task, judges, output, on_clip=tell)
    for doubt in doubts(len(task.sentences)):
        warn(doubt)
    for rank, standing in enumerate(standings, 1):
        found = standing.summary
        shown = [
            f"{name} {value:{form}}"
            for name, key, form in (
                ("wer", "wer", ".1%"), ("DNSMOS", "dnsmos", ".2f"), ("likeness", "similarity", ".2f")
            )
            if (value := found[key]) is not None
        ]  # fmt: skip
        typer.echo(
            f"{rank:3d}. {standing.candidate.name:<24} {standing.points:6.1f} points  {', '.join(shown)}"
        )
    name, reason = recommend(standings)
    typer.echo(f"recommended: {name} ({reason})")
    typer.echo(str(output / PAGE))
    _need_speech([clip for standing in standings for clip in standing.clips])


@from_table
def compare(
    *,
    first: Annotated[str, typer.Argument(help="MODEL, or MODEL:key=value,key=value.", metavar="A")],
    second: Annotated[str, typer.Argument(help="The same; :key=value alone is A's model.", metavar="B")],
    voice: str | None,
    transcript: str | None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the clips and comparison.json.")
    ] = Path("comparison"),
    sentences: Sentences = None,
    language: str | None,
    seed: Annotated[int, typer.Option(help="Of both.")] = 0,
    device: str,
    dtype: str,
    precision: str,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge two models, or two settings of one, over the same sentences, with 95 % intervals."""
    from sonant.bench.quality import read_texts
    from sonant.cli.speaking import told_when_stopped
    from sonant.errors import RequestError
    from sonant.files import write_atomically
    from sonant.quality.comparison import as_data, compare_clips
    from sonant.quality.trials import Candidate, parse_settings, speak_and_judge
    from sonant.request.checks import make_folder

    sides = [_model_and_settings(text) for text in (first, second)]
    if not sides[0][0]:
        raise RequestError(f"{first!r} names no model; expected MODEL or MODEL:key=value for the first.")
    make_folder(output)
    said = read_texts(sentences) if sentences is not None else None
    clips: list[list[Clip]] = []
    for letter, (model, settings) in zip("AB", sides, strict=True):
        with told_when_stopped(_BEGINS_AGAIN), _ready(
            model or sides[0][0], voice=voice, transcript=transcript, sentences=sentences, language=language,
            seed=seed, device=device, dtype=dtype, precision=precision, said=said,
        ) as (engine, task, judges):  # fmt: skip
            said = tuple(task.sentences)
            candidate = Candidate(letter, parse_settings(settings, engine.spec))
            clips.append([])
            for clip in speak_and_judge(engine, candidate, task, judges, output):
                clips[-1].append(clip)
                typer.echo(
                    f"{letter} {clip.number + 1:3d}  {clip.error or f'{clip.points:.1f} points'}", err=True
                )
    differences = compare_clips(*clips)
    data = {
        "A": first,
        "B": second,
        "differences": as_data(differences),
        "clips": {
            letter: [clip.as_dict() for clip in side] for letter, side in zip("AB", clips, strict=True)
        },
    }
    text = json.dumps(data, indent=2, ensure_ascii=False)
    write_atomically(output / "comparison.json", (text + "\n").encode("utf-8", "replace"), is_private=False)
    typer.echo(text if as_json else _differences(differences))
    _need_speech([clip for side in clips for clip in side])


@from_table
def evaluate(
    *,
    meta: Annotated[Path, typer.Argument(help="A meta.lst: name|transcript|clip|text lines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for clips and results.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint folder or known name; without it, the clips that lie in the folder are judged.",
            autocompletion=model_names,
        ),
    ] = None,
    language: str | None,
    most: Annotated[int | None, typer.Option(help="Only so many of the first lines.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of every line.")] = 0,
    device: str,
    dtype: str,
    precision: str,
) -> None:
    """Speak and judge a list in the format of the Seed-TTS evaluation; goes on where it was stopped."""
    from contextlib import nullcontext

    from sonant.cli.speaking import load_engine, told_when_stopped, warn
    from sonant.quality.judges import Judges
    from sonant.quality.seedtts import evaluate as run
    from sonant.quality.seedtts import read_meta

    items = read_meta(meta)[:most]
    judges = Judges.load(language, "\n".join(item.text for item in items))
    for remark in judges.remarks:
        warn(remark)

    def tell(row: dict[str, Any]) -> None:
        typer.echo(f"{row['name']:<32} {row.get('error') or format(row['wer'], '.1%')}", err=True)

    stopped = told_when_stopped("what was judged is kept. Run the same command again to go on.")
    loaded = (
        load_engine(model, device=device, dtype=dtype, precision=precision)
        if model is not None
        else nullcontext()
    )
    with stopped, loaded as engine:
        summary = run(items, output, judges, engine=engine, language=language, seed=seed, on_item=tell)
    typer.echo(json.dumps(summary, indent=2, ensure_ascii=False))
    if summary["failed"]:
        raise typer.Exit(6)


def _need_speech(clips: list[Clip]) -> None:
    """Raise GenerationError where every clip failed: then nothing was judged."""
    from sonant.errors import GenerationError

    if all(clip.error for clip in clips):
        raise GenerationError(f"every clip failed, the first so: {clips[0].error}")


@contextmanager
def _ready(
    model: str, *, voice: str | None, transcript: str | None, sentences: Path | None, language: str | None,
    seed: int, device: str, dtype: str, precision: str, said: tuple[str, ...] | None = None,
) -> Iterator[tuple[Engine, Task, Judges]]:  # fmt: skip
    """The engine, what is to be said, and the judges; without these nothing is loaded."""
    from sonant.bench.quality import read_texts
    from sonant.cli.speaking import job_voice, load_engine, warn
    from sonant.quality.judges import Judges
    from sonant.quality.trials import Task, sentences_for
    from sonant.readings.job import Job
    from sonant.request.voice import Voice

    if said is None and sentences is not None:
        said = read_texts(sentences)
    judges = Judges.load(language, "\n".join(said or ()))
    for remark in judges.remarks:
        warn(remark)
    job = Job(
        text="",
        model=model,
        device=device,
        dtype=dtype,
        precision=precision,
        voice=voice,
        transcript=transcript,
    )
    with load_engine(model, device=device, dtype=dtype, precision=precision) as engine:
        found = job_voice(job, engine.spec)
        said = said or sentences_for(language, engine.spec)
        judges.recognisers.expect("\n".join(said))
        yield (
            engine,
            Task(
                sentences=said,
                voice=found,
                language=language,
                reference=found.clip if isinstance(found, Voice) else None,
                seed=seed,
            ),
            judges,
        )


def _model_and_settings(text: str) -> tuple[str, str]:
    """Model and settings of "model:key=value": the last colon, for a name may have one."""
    head, colon, tail = text.rpartition(":")
    return (head, tail) if colon and "=" in tail else (text, "")


def _differences(differences: list[Difference]) -> str:
    from sonant.quality.comparison import FIGURES

    lines = [f"{'':<32}{'A':>10}{'B':>10}   B - A (95 %)"]
    for found in differences:
        name = FIGURES[found.key][0]
        change = found.change
        between = f"{change.low:+.3f} to {change.high:+.3f}" if change.is_known else "too few sentences"
        verdict = f"  {found.better} is better" if found.better else ""
        lines.append(
            f"{name:<32}{found.first.value:10.3f}{found.second.value:10.3f}   {change.value:+.3f} "
            f"({between}){verdict}"
        )
    return "\n".join(lines)
