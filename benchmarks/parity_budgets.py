"""Measure the table of budgets: python benchmarks/parity_budgets.py [TABLE]

The tiny checkpoints of the tests, float32 against float64 and reduced precision against float32, on the
same inputs and tokens. A budget is the measured loss times a margin: 10 for float32, which other machines
and libraries round differently, 3 for the rest.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sonant.catalogue.registry import precisions as offered
from sonant.parity.drift import drift_of, update_budgets
from tests.parity import cases

TABLE = Path(__file__).parents[1] / "src/sonant/parity/budgets.json"
REDUCED = ("bfloat16", "int8", "int4")


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    path.write_text(json.dumps({"default": table["default"]}), encoding="utf-8")
    for family in cases.FAMILIES:
        has_mixed = "mixed" in offered(cases.checkpoint(family))
        for base, precisions, margin, least in (
            ("float64", ("float32",), 10.0, 3e-6),
            ("float32", (*REDUCED, "mixed") if has_mixed else REDUCED, 3.0, 1e-5),
        ):
            found = drift_of(
                lambda precision, family=family: cases.load(family, precision),
                cases.task(family),
                precisions,
                base=base,
            )
            update_budgets(path, found, margin=margin, least=least)
            for precision in precisions:
                print(f"{family} {precision}: {found.headline(precision)}")


if __name__ == "__main__":
    main()
