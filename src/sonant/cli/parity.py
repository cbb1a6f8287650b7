"""`sonant parity`: record, compare, bisect, drift, report, stages, kit."""

from __future__ import annotations

import json
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sonant.cli.flags import from_table
from sonant.cli.parity_print import print_bisection, print_comparison
from sonant.cli.parity_request import asked_task, told_task
from sonant.parity.stages import FAMILIES

if TYPE_CHECKING:
    from sonant.parity.matching import Match
    from sonant.parity.trace import Trace
    from sonant.parity.verdicts import Comparison

app = typer.Typer(help="Which tensor differs first? Record, compare, bisect.", no_args_is_help=True)

ModelOption = Annotated[str, typer.Option("--model", "-m", help="Checkpoint folder or known name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Also write a report for a browser.", metavar="FILE")
]
NamesOption = Annotated[
    Path | None,
    typer.Option("--names", help="JSON that maps foreign stage names to documented ones.", metavar="FILE"),
]
MatchOption = Annotated[
    bool, typer.Option("--match/--no-match", help="Find stages of undocumented names by what they hold.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of the arithmetic, whose budgets apply: float32, float16, bfloat16, int8, ... What a "
        "file is stored in says nothing of it.",
    ),
]

TextOption = Annotated[str | None, typer.Option("--text", help="What to say.")]
LikeOption = Annotated[
    Path | None, typer.Option("--like", help="Take the request of this trace.", metavar="TRACE")
]
VoiceOption = Annotated[str | None, typer.Option("--voice", help="Reference audio file, or a preset.")]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Seed of every random draw; 0 when not given.")
]
GreedyOption = Annotated[bool, typer.Option("--greedy", help="Always take the most likely token.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of sampling, style or the request, or a family's own: top_k=5, "
        "emotion_audio=FILE, speed=1.2, normalize=sonant, source_audio=FILE.",
        metavar="K=V",
    ),
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="At most so many decoding steps.")]

WORST = ("right", "suspicious", "nothing", "wrong")
"""Of several answers the last one of these is what a command leaves with."""
SUSPICIOUS = 3
"""Exit code when everything is in budget and something is far above what right runs differ by."""


@app.command("kit")
def kit(
    folder: Annotated[Path, typer.Argument(help="Folder of a conformance kit.", metavar="DIR")],
    failures: Annotated[bool, typer.Option("--failures", help="Print only what failed.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")] = False,
) -> None:
    """Check every tensor of a conformance kit against this implementation."""
    from sonant.parity.kit import run_kit

    def write(line: str) -> None:
        if not (failures and line.startswith("PASS")):
            typer.echo(line)

    if not run_kit(folder, write, verbose=verbose):
        raise typer.Exit(1)


@app.command("record")
@from_table
def record(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Trace to write.", metavar="FILE")],
    text: TextOption = None,
    like: LikeOption = None,
    forced: Annotated[
        Path | None,
        typer.Option("--forced", help="Go on from this trace's tokens and draws.", metavar="TRACE"),
    ] = None,
    voice: VoiceOption = None,
    transcript: str | None,
    language: str | None,
    instruction: str | None,
    seed: SeedOption = None,
    greedy: GreedyOption = False,
    setting: SettingOption = None,
    steps: StepsOption = None,
    stages: Annotated[
        str, typer.Option("--stages", help="Patterns of stages to keep: 'talker.*,codec.*'.")
    ] = "*",
    max_elements: Annotated[
        int | None, typer.Option("--max-elements", min=1, help="Larger tensors are kept as so many samples.")
    ] = None,
    device: str,
    dtype: str,
) -> None:
    """Record one request: every stage, every random draw, and what the run was made of."""
    from sonant.catalogue.registry import load_model
    from sonant.errors import RequestError
    from sonant.parity.record import record as record_trace
    from sonant.parity.trace import read_trace

    _check_place(output)
    if text is None and like is None:
        raise RequestError(
            "neither of --text and --like given; expected one of them. "
            "Say what to speak with --text, or repeat the request of a trace with --like."
        )
    chosen = _greedy(model) if greedy else {}
    task = asked_task(
        text, like, voice, transcript, language, instruction, seed, chosen, setting or [], steps
    )
    assert task is not None
    trace = record_trace(
        load_model(model, device=device, dtype=dtype),
        task,
        stages=stages,
        max_elements=max_elements,
        forced=read_trace(forced) if forced else None,
        dtype="float32" if dtype == "auto" else dtype,
    )
    trace.save(output)
    typer.echo(f"{output}: {len(trace.entries)} entries, {output.stat().st_size / 1e6:.1f} MB")
    unused = trace.metadata["unmatched_patterns"]
    if unused:
        typer.echo(f"  note: no stage fits {', '.join(unused)}; see: sonant parity stages", err=True)


def _greedy(model: str) -> dict[str, bool]:
    """What a request for the most likely tokens sets, of the settings that this model has."""
    from sonant.catalogue.registry import describe

    return describe(model).greedy


@app.command("compare")
def compare(
    reference: Annotated[Path, typer.Argument(help="What is right.", metavar="REFERENCE")],
    others: Annotated[list[Path], typer.Argument(help="What is judged, one or several.", metavar="OTHER...")],
    against: Annotated[
        bool, typer.Option("--against", help="Several files follow: tries of one port, ranked.")
    ] = False,
    names: NamesOption = None,
    family: Annotated[str, typer.Option("--family", help="Whose stage names apply.")] = "",
    precision: PrecisionOption = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Judge the first so many decoding steps.")
    ] = None,
    match: MatchOption = True,
    map_file: Annotated[
        Path | None,
        typer.Option("--save-map", help="Write the found names for --names.", metavar="FILE"),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Compare again whenever OTHER is written; end with Ctrl-C.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print every stage.")] = False,
    as_json: JsonOption = False,
    html: HtmlOption = None,
) -> None:
    """Compare traces stage by stage; the first stage out of budget is the headline.

    Also reads a plain safetensors file, .npz, .npy, .pt, a folder of .npy, or of .bin with JSON.
    """
    from sonant.errors import RequestError
    from sonant.parity import tries
    from sonant.parity.compare import compare as compare_traces

    _check_place(html)
    _check_place(map_file)
    _check_precision(precision)
    if len(others) > 1 and (watch or html or map_file):
        raise RequestError(
            f"{len(others)} files to judge; expected one with --watch, --html or --save-map. Name one."
        )
    right = _read(reference, names, family)

    def judged(path: Path) -> tuple[Comparison, Trace, tuple[Match, ...]]:
        other, matches = _matched(right, _read(path, names, family or right.family), match)
        return compare_traces(right, other, precision=precision, steps=steps), other, matches

    if len(others) > 1:
        found = [(str(path), judged(path)[0]) for path in others]
        if as_json:
            data = {name: result.data() for name, result in found}
            typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        else:
            for row in tries.ranking(found):
                typer.echo(row)
            for (_, before), (name, after) in pairwise(found):
                typer.echo(f"{name} after the one before:")
                for line in tries.change(before, after).lines():
                    typer.echo(f"  {line}")
        raise typer.Exit(_code(max((result.status for _, result in found), key=WORST.index)))
    result, other, matches = judged(others[0])
    if map_file is not None:
        from sonant.parity.matching import save_map
        from sonant.parity.trace import read_names

        save_map(map_file, matches, read_names(names) if names else {})
    _report(html, result, right, other)
    print_comparison(
        result, {**result.data(), "map": [vars(m) for m in matches]}, as_json, everything, matches
    )
    if watch:
        for again in tries.watch(others[0], lambda: judged(others[0])[0]):
            if isinstance(again, str):
                typer.echo(again)
                continue
            typer.echo("")
            typer.echo(again.headline)
            for line in tries.change(result, again).lines():
                typer.echo(f"  {line}")
            result = again
    raise typer.Exit(_code(result.status))


def _code(status: str) -> int:
    return {"right": 0, "suspicious": SUSPICIOUS}.get(status, 1)


def _matched(reference: Trace, other: Trace, wanted: bool) -> tuple[Trace, tuple[Match, ...]]:
    from sonant.parity.matching import matched, propose
    from sonant.parity.stages import stage_table

    if not wanted or not other.is_foreign:
        return other, ()
    table = stage_table(reference.family or other.family)
    matches = propose(reference, other, table)
    return (matched(other, matches, table) if matches else other), matches


@app.command("bisect")
@from_table
def bisect(
    *,
    model: ModelOption,
    reference: Annotated[
        Path,
        typer.Option(
            "--reference",
            "-r",
            help="Trace whose values are fed to the model: of what is right, or a port's file.",
        ),
    ],
    names: NamesOption = None,
    match: MatchOption = True,
    text: TextOption = None,
    like: LikeOption = None,
    voice: VoiceOption = None,
    transcript: str | None,
    language: str | None,
    instruction: str | None,
    seed: SeedOption = None,
    greedy: GreedyOption = False,
    setting: SettingOption = None,
    steps: StepsOption = None,
    precision: PrecisionOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every stage.")] = False,
    device: str,
    dtype: str,
    as_json: JsonOption = False,
) -> None:
    """Feed each stage the reference's inputs and list every stage that is wrong by itself.

    A port's own file does not say what was asked for: name a trace that does with --like, or say it with
    --text, --voice and the rest, as for record. Names of its own are found as compare finds them.
    """
    from sonant.catalogue.registry import load_model
    from sonant.parity.bisect import bisect as find
    from sonant.parity.matching import has_unknown_names
    from sonant.parity.record import record as record_trace

    _check_precision(precision)
    chosen = _greedy(model) if greedy else {}
    task = asked_task(
        text, like, voice, transcript, language, instruction, seed, chosen, setting or [], steps
    )
    loaded = load_model(model, device=device, dtype=dtype)
    trace = _read(reference, names, "" if names else loaded.spec.family)
    given = _read(like, None, "") if like else None
    matches: tuple[Match, ...] = ()
    if match and trace.is_foreign and task is not None and has_unknown_names(trace, loaded.spec.family):
        # What the stages of this request hold tells which of them the file's tensors are.
        trace, matches = _matched(given or record_trace(loaded, task), trace, match)
    found = find(
        loaded,
        trace,
        task=task,
        precision=precision,
        dtype="float32" if dtype == "auto" else dtype,
        forced=given,
    )
    print_bisection(found, as_json, everything, matches)
    raise typer.Exit(_code(found.status))


@app.command("drift")
@from_table
def drift(
    *,
    model: ModelOption,
    text: Annotated[str, typer.Option("--text", help="What to say.")] = "One two three.",
    voice: Annotated[str | None, typer.Option("--voice", help="Reference audio file, or a preset.")] = None,
    transcript: str | None,
    instruction: str | None,
    steps: Annotated[int, typer.Option("--steps", help="At most so many decoding steps.")] = 8,
    precisions: Annotated[
        str, typer.Option("--precisions", help="Which, by commas: bfloat16,float16,int8,mixed,int4.")
    ] = "bfloat16,int8",
    device: str,
    top: Annotated[int, typer.Option("--top", help="Print so many stages.")] = 12,
    as_json: JsonOption = False,
    write_budgets: Annotated[
        Path | None,
        typer.Option("--write-budgets", help="Put the measured budgets into this table.", metavar="FILE"),
    ] = None,
) -> None:
    """The same network in several precisions on the same inputs: which stage loses most?"""
    from sonant.parity.drift import measure_drift, update_budgets

    _check_place(write_budgets)
    task = told_task(text, voice, transcript, None, instruction, 0, _greedy(model), [], steps)
    found = measure_drift(model, task, tuple(precisions.split(",")), device=device)
    if write_budgets is not None:
        update_budgets(write_budgets, found)
    if as_json:
        typer.echo(json.dumps(found.data(), indent=2))
        return
    for precision in found.precisions:
        typer.echo(f"{precision}: {found.headline(precision)}")
        typer.echo(f"  {'':<44} {'largest difference':>21} {'relative L2':>21}")
        typer.echo(f"  {'stage':<44}" + f" {'by itself':>10} {'piled up':>10}" * 2)
        for loss in found.worst(precision)[:top]:
            figures = (loss.own, loss.accumulated, loss.own_l2, loss.accumulated_l2)
            typer.echo(f"  {loss.stage:<44}" + "".join(f" {figure:>10.2e}" for figure in figures))


@app.command("report")
def report(
    reference: Annotated[Path, typer.Argument(help="What is right.", metavar="REFERENCE")],
    other: Annotated[Path, typer.Argument(help="What is judged.", metavar="OTHER")],
    html: Annotated[Path, typer.Option("--html", "-o", help="Page to write.", metavar="FILE")],
    names: NamesOption = None,
    family: Annotated[str, typer.Option("--family", help="Whose stage names apply.")] = "",
) -> None:
    """Write the comparison of two traces as one HTML page, and leave as compare does.

    The page is written whatever it says: 0 when all is in budget, 1 when something is wrong or nothing was
    compared, 3 when something is suspicious. compare --html FILE prints the answer as well.
    """
    from sonant.parity.compare import compare as compare_traces

    _check_place(html)
    right = _read(reference, names, family)
    judged, _ = _matched(right, _read(other, names, family or right.family), True)
    found = compare_traces(right, judged)
    _report(html, found, right, judged)
    typer.echo(f"{html}: {found.headline}")
    raise typer.Exit(_code(found.status))


@app.command("stages")
def stages(
    family: Annotated[str, typer.Argument(help=f"One of {', '.join(FAMILIES)}.", metavar="FAMILY")],
) -> None:
    """Print the documented stages of a family as a Markdown table."""
    from sonant.parity.stages.markdown import stage_markdown

    _check_family(family)
    typer.echo(stage_markdown(family), nl=False)


def _read(path: Path, names: Path | None, family: str) -> Trace:
    from sonant.parity.trace import read_names, read_trace

    if family:
        _check_family(family)
    return read_trace(path, names=read_names(names) if names else None, family=family)


def _check_place(path: Path | None) -> None:
    """Raise RequestError before any work when nothing can be written there."""
    from sonant.errors import RequestError

    if path is not None and (not path.parent.is_dir() or path.is_dir()):
        what = "is a folder" if path.is_dir() else f"lies in {path.parent}, which does not exist"
        raise RequestError(
            f"{path} {what}; expected a file to write. Make the folder, or choose another file."
        )


def _check_family(family: str) -> None:
    from sonant.errors import RequestError

    if family not in FAMILIES:
        raise RequestError(
            f"{family!r} has no documented stages; expected one of {', '.join(FAMILIES)}. Choose one of them."
        )


def _check_precision(precision: str | None) -> None:
    from sonant.errors import RequestError
    from sonant.parity.budgets import PRECISIONS

    if precision is not None and precision not in PRECISIONS:
        raise RequestError(
            f"{precision!r} has no budgets; expected one of {', '.join(PRECISIONS)}. Choose one of them."
        )


def _report(path: Path | None, found: Comparison, reference: Trace, other: Trace) -> None:
    if path is None:
        return
    from sonant.parity.report import write_report

    command = shlex.join(["sonant", *sys.argv[1:]])
    write_report(path, found, reference, other, command=command)
