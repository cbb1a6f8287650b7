"""sonant bench: how fast a model runs on this machine, alone or against a rival in the same minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    model: Annotated[
        str, typer.Argument(help="A checkpoint folder, or a known name such as qwen3-tts-0.6b.")
    ],
    precision: Annotated[str, typer.Option(help="auto, full, lossless, int8, mixed, int4 (CPU).")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, auto.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    memory_limit: Annotated[
        str | None, typer.Option(help="The most that Sonant may use, such as 3GB.", metavar="SIZE")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Utterances at once; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="Speech to make, each.")] = 5.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs in one process; the median counts.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Fresh processes, in turn with the rival.")] = 1,
    rival: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help='"qwen-tts", "cosyvoice", "indextts", or a command line ({model} is the folder).',
        ),
    ] = None,
    rival_python: Annotated[str | None, typer.Option(help="Python of the rival's environment.")] = None,
    rival_dtype: Annotated[str, typer.Option(help="float32 or bfloat16 for the rival.")] = "float32",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object (a list with many batches).")
    ] = False,
) -> None:
    """Load, first audio, time a frame by stage, real-time factor and memory.

    A known name that is not on disk is measured with random weights of its true shapes, written to a
    temporary folder for the run: speed does not depend on the values.
    """
    import json
    import tempfile

    from sonant.bench.checkpoints import folder_for
    from sonant.bench.compare import compare
    from sonant.bench.worker import Workload

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sonant-bench-") as scratch:
        if not as_json:
            typer.echo(f"preparing {model} ...", err=True)
        folder = folder_for(model, Path(scratch))
        for size in batch or [1]:
            workload = Workload(
                model=str(folder),
                device=device,
                dtype=dtype,
                precision=precision,
                threads=threads,
                batch=size,
                seconds=seconds,
                runs=runs,
                memory_limit=memory_limit,
            )
            figures = compare(workload, folder, rival, python=rival_python, dtype=rival_dtype, rounds=rounds)
            results.append({**figures, "model": model})
    if as_json:
        typer.echo(json.dumps(results[0] if len(results) == 1 else results))
        return
    _print(results)


def _print(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("who", "precision", "batch", "load s", "first audio ms", "RTF", "peak MB")
    stages = Table("ms a frame", "batch", "sonant", "rival", "rival / sonant")
    for result in results:
        rows = [("sonant", result)]
        if "rival" in result:
            rows.append((result["rival"]["name"], result["rival"]))
        for name, row in rows:
            table.add_row(
                name,
                str(row.get("precision", "")),
                str(row.get("batch", "")),
                f"{row['load_s']:.2f}" if "load_s" in row else "",
                f"{row['ttfa_ms']:.0f}" if "ttfa_ms" in row else "",
                f"{row['rtf']:.3f}" if "rtf" in row else f"{row.get('command_s', 0):.2f} s in all",
                f"{row['peak_mb']:.0f}" if "peak_mb" in row else "",
            )
        if "ratio" in result:
            table.add_row("", "", "", "", "", f"[bold]{result['ratio']:.2f}x[/bold]", "rival / sonant")
        own, other = result["ms_per_frame"], result.get("rival", {}).get("ms_per_frame", {})
        for stage in dict.fromkeys((*own, *other)):
            both = own.get(stage) and stage in other
            stages.add_row(
                stage,
                str(result["batch"]),
                f"{own[stage]:.2f}" if stage in own else "",
                f"{other[stage]:.2f}" if stage in other else "",
                f"{other[stage] / own[stage]:.2f}x" if both else "",
            )
    first = results[0]
    console = Console()
    console.print(f"{first['model']} on {first['device']}, {first['threads']} threads")
    console.print(table)
    console.print(stages)
