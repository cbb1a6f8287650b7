"""The stage table of a family as Markdown, for docs and `sonant parity stages`."""

from __future__ import annotations

from sonant.parity.stages import FAMILIES, stage_table
from sonant.parity.stages.table import PARTS

TITLES = {
    "voice": "Reference voice",
    "prompt": "Prompt",
    "decode": "Autoregressive decoding",
    "audio": "Tokens to waveform",
}


def stage_markdown(family: str) -> str:
    """One table for each part, rows in the order of computation."""
    table = stage_table(family)
    lines: list[str] = []
    for part in PARTS:
        stages = [stage for stage in table if stage.part == part]
        if not stages:
            continue
        lines += [
            f"**{TITLES[part]}**",
            "",
            "| stage | shape | what it is | computed from |",
            "|---|---|---|---|",
        ]
        for stage in stages:
            sources = ", ".join(f"`{name}`" for name in (*stage.inputs, *stage.first))
            what = f"{stage.what} ({stage.kind})" if stage.kind != "stage" else stage.what
            lines.append(f"| `{stage.name}` | `{stage.shape}` | {what} | {sources} |")
        lines.append("")
    return "\n".join(lines)


def stage_page() -> str:
    """docs/parity-stages.md: the tables of all families."""
    head = (
        "# Documented stages\n\nIn the order of computation. A placeholder such as `{layer}` stands for a "
        "number from 0; the second and later times a stage is computed, its key ends in `@1`, `@2`, ... "
        "Printed by `sonant parity stages FAMILY`.\n"
    )
    return head + "".join(f"\n## {family}\n\n{stage_markdown(family)}" for family in FAMILIES)
