"""Figures of `benchmarks/run.py --json FILE` as a picture: real-time factors, their spread, and rivals.

    python benchmarks/plots.py FILE [FILE ...] OUT.svg

One bar for each model, precision, length and batch: the median, and the least and the most of all rounds as a
line through its end. Of several lines for the same bar the last counts.
"""

import json
import sys
from pathlib import Path
from xml.sax.saxutils import escape

LEFT, RIGHT, BAR, GAP = 300, 560, 18, 8
OWN, OTHER = "#2a6f97", "#b0b7bf"


def read(files):
    """Bars as (group, label, rtf, least, most, is_rival), in the order of the files.

    A line that names a rival itself (`who`) is one of figures that were taken elsewhere.
    """
    found = {}
    for file in files:
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            group = f"{one['model']}, {one['seconds']:g} s"
            if one.get("batch", 1) > 1:
                group += f", {one['batch']} at a time"
            label = one["who"] if "who" in one else f"Sonant {one['precision']}"
            for name, row in ((label, one), (one.get("rival", {}).get("name"), one.get("rival"))):
                if row and "rtf" in row:
                    least, most = row.get("spread", {}).get("rtf", (row["rtf"], row["rtf"]))
                    found[group, name] = (row["rtf"], least, most, row is not one or "who" in one)
    return [(*key, *value) for key, value in found.items()]


def draw(bars):
    """The picture as SVG text."""
    widest = max(most for *_, most, _ in bars)
    parts, top, group = [], 30, None
    for name, label, rtf, least, most, is_rival in bars:
        if name != group:
            group = name
            parts.append(f'<text x="8" y="{top + 22}" font-weight="bold">{escape(name)}</text>')
            top += 32
        ends = [LEFT + RIGHT * value / widest for value in (rtf, least, most)]
        middle = top + BAR / 2
        parts.append(f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
        color = OTHER if is_rival else OWN
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{ends[0] - LEFT:.1f}" height="{BAR}" fill="{color}"/>'
        )
        parts.append(f'<path d="M{ends[1]:.1f} {middle}H{ends[2]:.1f}" stroke="#222" stroke-width="2"/>')
        spread = "" if least == most else f" ({least:.2f} to {most:.2f})"
        parts.append(f'<text x="{ends[2] + 6:.1f}" y="{middle + 4}">{rtf:.2f}{spread}</text>')
        top += BAR + GAP
    at = LEFT + RIGHT / widest
    line = f'<path d="M{at:.1f} 24V{top}" stroke="#c1121f" stroke-dasharray="4 3"/>' if widest > 1 else ""
    head = f'<text x="{LEFT}" y="16">seconds of work for a second of speech (red line: one)</text>'
    size = f'width="{LEFT + RIGHT + 160}" height="{top + 10}"'
    style = 'font-family="sans-serif" font-size="12" style="background:#fff"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
        + "\n".join([head, line, *parts])
        + "</svg>\n"
    )


def main():
    if len(sys.argv) < 3 or not sys.argv[-1].endswith(".svg"):
        raise SystemExit(__doc__)
    bars = read(sys.argv[1:-1])
    if not bars:
        raise SystemExit("no real-time factor in these files; expected lines of benchmarks/run.py --json")
    Path(sys.argv[-1]).write_text(draw(bars), encoding="utf-8")
    print(f"{len(bars)} bars in {sys.argv[-1]}")


if __name__ == "__main__":
    main()
