"""sonant bench: how fast a model runs on this machine, alone or against a rival in the same minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sonant.bench.rivals import RIVALS
from sonant.cli.flags import from_table

if TYPE_CHECKING:
    from sonant.request.audio import Audio


@from_table
def bench(
    *,
    model: Annotated[str, typer.Argument(help="A checkpoint folder, or a known name.")],
    device: str,
    dtype: str,
    precision: str,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    memory_limit: str | None,
    batch: Annotated[list[int] | None, typer.Option(help="Utterances at once; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(help="Speech to make, each.")] = 5.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs in one process; the median counts.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Fresh processes, in turn with the rival.")] = 1,
    rival: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help=f"An original ({', '.join(RIVALS)}), or a command line ({{model}} is the folder).",
        ),
    ] = None,
    rival_python: Annotated[str | None, typer.Option(help="Python of the rival's environment.")] = None,
    rival_dtype: Annotated[str, typer.Option(help="float32 or bfloat16 for the rival.")] = "float32",
    quality: Annotated[
        Path | None,
        typer.Option(
            help="Instead of speed: what precision costs in what is said. Sentences are spoken into this "
            "folder in every precision (or --precision and the widest); a run that was stopped goes on.",
            metavar="FOLDER",
        ),
    ] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Of --quality: how many.")] = 100,
    texts: Annotated[
        Path | None, typer.Option(help="Of --quality: your own sentences, one a line.", metavar="FILE")
    ] = None,
    listen: Annotated[
        bool, typer.Option("--listen", help="Of --quality: word errors and DNSMOS too, by the judge extra.")
    ] = False,
    for_seconds: Annotated[
        float | None, typer.Option(help="Of --quality: stop after so long; call again to go on.")
    ] = None,
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
    from sonant.catalogue.registry import check_precision, choose_device
    from sonant.checkpoints.memory import parse_size
    from sonant.errors import GenerationError, RequestError

    _check_together(
        quality,
        of_quality={"--texts": texts, "--listen": listen or None, "--for-seconds": for_seconds},
        of_speed={
            "--compare": rival,
            "--batch": batch,
            "--memory-limit": memory_limit,
            "--dtype": None if dtype == "auto" else dtype,
            "--device": None if device in ("auto", "cpu") else device,
        },
    )
    where = choose_device(device)  # told here, not by the process that measures
    if memory_limit is not None:
        parse_size(memory_limit)
    if quality is not None:
        _quality(
            model,
            quality,
            precision,
            sentences,
            texts,
            listens=listen,
            seconds=for_seconds,
            threads=threads,
            as_json=as_json,
        )
        return
    from sonant.bench.compare import compare
    from sonant.bench.worker import Workload

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="sonant-bench-") as scratch:
        if not as_json:
            typer.echo(f"preparing {model} ...", err=True)
        folder = folder_for(model, Path(scratch))
        check_precision(folder, precision, where)
        if rival is not None and (rival in RIVALS or "{model}" in rival) and not folder.is_dir():
            raise RequestError(f"{model} has no folder that another could load. Leave --compare out.")
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
    else:
        _print(results)
    for result in results:
        if "rival_error" in result:
            raise GenerationError(f"the other was not measured: {result['rival_error']}")


def _check_together(quality: Path | None, *, of_quality: dict[str, Any], of_speed: dict[str, Any]) -> None:
    """Raises RequestError for an option that would be passed over."""
    from sonant.errors import RequestError

    useless = of_speed if quality is not None else of_quality
    given = [name for name, value in useless.items() if value is not None]
    if given:
        without = "without --quality FOLDER" if quality is None else "with --quality, which measures no speed"
        raise RequestError(
            f"{', '.join(given)} does nothing {without}. Leave it out.", field=given[0].strip("-")
        )
    if quality is not None and quality.exists() and not quality.is_dir():
        raise RequestError(f"--quality {quality} is a file; expected a folder, or the name of a new one.")


def _quality(
    model: str,
    folder: Path,
    precision: str,
    count: int,
    texts: Path | None,
    *,
    listens: bool,
    seconds: float | None,
    threads: int,
    as_json: bool,
) -> None:
    import json
    import time
    from dataclasses import asdict

    from sonant.bench import quality
    from sonant.catalogue import registry

    said = quality.sentences() if texts is None else quality.read_texts(texts)
    trial = quality.Trial(
        model=model,
        fingerprint=registry.describe(model).fingerprint,
        precisions=quality.choose_precisions(model, precision),
        texts=said[:count],
    )
    began = time.monotonic()

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    done = quality.speak(trial, folder, threads=threads, seconds=seconds, tell=tell)
    if listens:
        from sonant.quality.judges import Judges

        judges = Judges.load(text=" ".join(trial.texts))

        def judge(audio: Audio, text: str) -> tuple[str, float]:
            found = judges.judge(audio, text=text)
            assert found.heard is not None, "words were asked for"
            assert found.mos is not None, "and the sound"
            return found.heard, found.mos.overall

        left = None if seconds is None else seconds - (time.monotonic() - began)
        done = quality.listen(trial, folder, judge, seconds=left, tell=tell) and done
    found = quality.shares(trial, folder)
    if as_json:
        typer.echo(
            json.dumps({"done": done, "base": trial.precisions[0], "shares": [asdict(s) for s in found]})
        )
        return
    from rich.console import Console
    from rich.table import Table

    columns = ("by", "said", "equal", "parts at", "alike", "length", "WER", "CER", "MOS")
    title = f"{model}, codes against {trial.precisions[0]}"
    table = Table("precision", *columns, title=title, box=None, padding=(0, 1))
    for one in found:
        table.add_row(
            one.precision,
            one.mode,
            str(one.sentences),
            f"{one.equal:.1%}",
            f"{one.first:g}",
            str(one.whole),
            f"{one.length:.1%}",
            *("" if share is None else f"{share:.1%}" for share in (one.wer, one.cer)),
            "" if one.dnsmos is None else f"{one.dnsmos:.2f}",
        )
    Console().print(table)
    typer.echo(
        "equal: share of codes; parts at: the first frame that differs, median; alike: whole sentences"
    )
    if not done:
        typer.echo("not all of it is done yet; call again to go on", err=True)


def _figure(row: dict[str, Any], name: str, form: str) -> str:
    """A figure, and of several rounds the least and the most of it; empty where there is none."""
    if name not in row:
        return ""
    least, most = row.get("spread", {}).get(name, (None, None))
    return f"{row[name]:{form}}" + ("" if least is None else f" ({least:{form}} to {most:{form}})")


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
                _figure(row, "ttfa_ms", ".0f"),
                _figure(row, "rtf", ".3f") or _figure(row, "command_s", ".2f") + " s in all",
                f"{row['peak_mb']:.0f}" if "peak_mb" in row else "",
            )
        if "ratio" in result:
            table.add_row(
                "", "", "", "", "", f"[bold]{_figure(result, 'ratio', '.2f')}x[/bold]", "rival / sonant"
            )
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
