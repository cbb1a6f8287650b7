"""Plant every deliberate fault and count what was missed: python -m benchmarks.parity_faults FILE

Asks `compare` and `bisect` of each fault of the tests, one after another, and writes a line of JSON for each
to FILE; goes on where FILE stands, and stops after --seconds. Once all are there it prints the table of
docs/parity-faults.md, and every answer that was not right. --only TEXT plants those whose name has it.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.parity.judging import answers
from tests.parity.test_mutations import LISTED, measured_table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    lines = given.file.read_text(encoding="utf-8").splitlines() if given.file.exists() else []
    rows = {row["fault"]: row for row in map(json.loads, lines)}
    begun = time.monotonic()
    faults = {
        f"{family}: {fault.what}": (family, fault) for family, found in LISTED.items() for fault in found
    }
    for name, (family, fault) in faults.items():
        if name in rows or given.only not in name or time.monotonic() - begun > given.seconds:
            continue
        with pytest.MonkeyPatch.context() as patch:
            found = answers(family, fault, patch)
        rows[name] = {"fault": name, "kind": fault.kind, "wrong": found.wrongs, "said": found.row(family)}
        with given.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[name], ensure_ascii=False) + "\n")
    kept = [rows[name] for name in faults if name in rows]
    for row in kept:
        for kind, words in row["wrong"].items():
            print(f"{row['fault']}: {kind}: {words}")
    print(f"{len(kept)} of {len(faults)} planted")
    if len(kept) == len(faults):
        wrong = Counter((row["kind"], kind) for row in kept for kind in row["wrong"])
        print(measured_table(Counter(row["kind"] for row in kept), wrong))


if __name__ == "__main__":
    main()
