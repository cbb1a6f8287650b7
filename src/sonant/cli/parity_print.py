"""Answers of `sonant parity` as they are printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sonant.parity.bisect import Bisection
    from sonant.parity.matching import Match
    from sonant.parity.verdicts import Comparison, StageResult

MATCHES = 12
"""So many proposed names are printed; --all prints every one."""


def print_comparison(
    found: Comparison,
    data: dict[str, Any],
    as_json: bool,
    everything: bool,
    matches: tuple[Match, ...] = (),
) -> None:
    """The headline, its words, the three verdicts, what was not compared, and the wrong stages."""
    if as_json:
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    typer.echo(found.headline)
    for line in found.diagnosis:
        typer.echo(f"    {line}")
    for name, verdict in found.verdicts.items():
        counts = f", {verdict.failed} of {verdict.stages} out of budget" if verdict.failed else ""
        typer.echo(f"  {name.replace('_', ' ')}: {verdict.status}{counts}. {verdict.detail}")
    for warning in found.warnings:
        typer.echo(f"  note: {warning}")
    for where, keys in (("reference", found.missing), ("file that is judged", found.extra)):
        if keys:
            typer.echo(f"  not compared, only in the {where}: {len(keys)} entries, first {keys[0]}")
    print_unexercised(found)
    _print_map(matches, everything)
    shown = found.stages if everything else [s for s in found.stages if s.is_wrong][:20]
    if shown:
        print_stages(shown)


def print_bisection(found: Bisection, as_json: bool, everything: bool, matches: tuple[Match, ...]) -> None:
    """Every stage that is wrong by itself, its words, and what was not judged."""
    if as_json:
        data = {**found.data(), "map": [vars(m) for m in matches]}
        typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
        return
    typer.echo(found.headline)
    for fault in found.faults:
        typer.echo(f"  {fault.stage}: {fault.wrong} of {fault.of}, first {fault.first}; {fault.detail}")
        for line in fault.diagnosis:
            typer.echo(f"    {line}")
        for key, line in fault.others:
            typer.echo(f"    at {key}: {line}")
        if fault.agreeing:
            typer.echo(f"    ours in its place makes {', '.join(fault.agreeing)} agree")
        if fault.between:
            typer.echo(f"    or on the way to it over {', '.join(fault.between)}, which the file lacks")
    for warning in found.comparison.warnings:
        typer.echo(f"  note: {warning}")
    if found.uncovered:
        named = found.uncovered if everything else found.uncovered[:MATCHES]
        more = f" and {len(found.uncovered) - len(named)} more" if len(named) < len(found.uncovered) else ""
        typer.echo(f"not in the reference: {', '.join(named)}{more}")
    if found.partly:
        typer.echo(f"in the reference for some layers or passes only: {', '.join(found.partly)}")
    if found.sampled:
        typer.echo(
            f"only samples of {len(found.sampled)} stages are in the reference: an error spreads there"
        )
    print_unexercised(found.comparison)
    _print_map(matches, everything)
    if everything:
        print_stages(found.comparison.stages)


def _print_map(matches: tuple[Match, ...], everything: bool) -> None:
    for match in matches if everything else matches[:MATCHES]:
        typer.echo(f"  map: {match.theirs} -> {match.ours} ({match.certainty}: {match.why})")
    if len(matches) > MATCHES and not everything:
        typer.echo(
            f"  map: {len(matches) - MATCHES} more; --all prints them, compare --save-map FILE keeps them"
        )


def print_unexercised(found: Comparison) -> None:
    """Paths that the request never took."""
    if found.unexercised:
        typer.echo(f"  not exercised by this request: {'; '.join(found.unexercised)}")


def print_stages(stages: Iterable[StageResult]) -> None:
    """One line a stage."""
    typer.echo(
        f"{'':4} {'stage':<44} {'shape':<18} {'dtype':<9} {'max abs':>9} {'mean abs':>9} {'relative':>9} "
        f"{'cosine':>9} {'budget':>9}"
    )
    for stage in stages:
        _row(stage)


def _row(stage: StageResult) -> None:
    d = stage.distance
    mark = "?" if stage.suspicion else "ok" if d.status == "ok" else ("FAIL" if stage.has_failed else "-")
    shape = "x".join(map(str, stage.shape))
    typer.echo(
        f"{mark:4} {stage.key:<44} {shape:<18} {stage.dtype:<9} {d.max_abs:>9.2e} {d.mean_abs:>9.2e} "
        f"{d.relative:>9.2e} {d.cosine:>9.6f} {d.allowed:>9.2e} {d.note}"
    )
