"""The `original` reading against what the original's own front end makes of the same texts."""

import json
from pathlib import Path

from sonant.families.cosyvoice3.text import TextRules

TEXTS = Path(__file__).parents[2] / "data" / "text" / "cosyvoice3_original.json"


def test_recorded_texts_are_read_as_the_original_reads_them():
    recorded = json.loads(TEXTS.read_text(encoding="utf-8"))
    assert len(recorded) >= 100
    rules = TextRules(len, as_original=True)
    for row in recorded:
        assert rules.whole(row["text"], normalizer="wetext") == row["whole"]
        assert rules.segments(row["text"], normalizer="wetext") == row["split"]
