"""Voices of several models judged over the same sentences, by the judges of `sonant measure --judge`.

    python benchmarks/judge_voices.py OUT.jsonl --voice builtin --voice nano --voice FOLDER=af_heart
    python benchmarks/judge_voices.py OUT.jsonl --sentences 2 --voice FOLDER   # every voice of a model

One JSON line for each voice and sentence; what is in OUT.jsonl is not spoken again, so the whole can be done
in pieces (`--seconds`). The sentences are the first of src/sonant/bench/sentences.txt, all of them for 100.
Every clip is judged as it leaves, at the default loudness. Needs the judge extra. Behind each figure stands
where it lies with 95 %, by resampling the sentences. No package ships UTMOS's or NISQA's weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import sonant
from sonant.bench.quality import sentences
from sonant.quality.bootstrap import Interval, difference_interval, mean_interval
from sonant.quality.judges import Judges
from sonant.request.settings import LOUDNESS

COUNTS = ("words", "word_errors", "letters", "letter_errors")


def judged(text: str, speech: sonant.Speech, judges: Judges) -> dict[str, object]:
    """What the judges say of one clip."""
    found = judges.judge(speech.at_loudness(LOUDNESS), text=text, language="english")
    row: dict[str, object] = {"seconds": round(speech.seconds, 2), "heard": found.heard}
    row |= {name: getattr(found.words, name) for name in COUNTS}
    if found.mos is not None:  # of silence there is none
        row |= {"dnsmos": round(found.mos.overall, 3), "p808": round(found.mos.p808, 3)}
    return row


FIGURES = {
    "WER": ("word_errors", "words", "{:.1%}"),
    "CER": ("letter_errors", "letters", "{:.1%}"),
    "DNSMOS": ("dnsmos", None, "{:.2f}"),
    "P.808": ("p808", None, "{:.2f}"),
}
"""Column: what is counted of a sentence, of how many, and how it is written."""


def column(rows: list[dict], name: str) -> tuple[list[float], list[float] | None]:
    """The values of a figure over the sentences that have it, and their weights where it is a rate."""
    top, bottom, _ = FIGURES[name]
    there = [row for row in rows if top in row]
    return [row[top] for row in there], [row[bottom] for row in there] if bottom else None


def paired(first: list[dict], second: list[dict], name: str) -> list[list[dict]]:
    """The rows of two voices of which both have this figure, sentence by sentence."""
    sides = [{row["sentence"]: row for row in side if FIGURES[name][0] in row} for side in (first, second)]
    both = sorted(sides[0].keys() & sides[1].keys())
    return [[side[sentence] for sentence in both] for side in sides]


def written(name: str, found: Interval) -> str:
    """A figure with the interval in which it lies, where there are sentences enough; nothing of none."""
    if not found.count:
        return ""
    form = FIGURES[name][2].format
    value = form(found.value)
    return f"{value} ({form(found.low)} to {form(found.high)})" if found.is_known else value


def table(rows: list[dict]) -> str:
    """A line for each voice, as Markdown, and what each differs by from the first over the same sentences.

    Of a difference is told of how many sentences both have the figure; where none, there is no line.
    """
    by_voice = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["sentence"]):
        by_voice[row["model"], row["voice"]].append(row)
    heads = ["model", "voice", "sentences", "words", *FIGURES, "rated", "work / speech"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for (model, voice), mine in by_voice.items():
        figures = (written(name, mean_interval(*column(mine, name))) for name in FIGURES)
        pace = sum(row["worked"] for row in mine) / sum(row["seconds"] for row in mine)
        words = sum(row["words"] for row in mine)
        rated = sum("dnsmos" in row for row in mine)
        cells = [model, voice, str(len(mine)), str(words), *figures, str(rated), f"{pace:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    apart = []
    for (model, voice), mine in list(by_voice.items())[1:]:
        for name in FIGURES:
            base, same = paired(next(iter(by_voice.values())), mine, name)
            if not same:
                continue
            (a, wa), (b, wb) = column(base, name), column(same, name)
            found = difference_interval(a, b, weights=(wa, wb) if wa and wb else None)
            apart.append(f"- {model} {voice}, {name}: {written(name, found)}, {len(same)} sentences")
    if apart:
        lines += [
            "",
            f"Less {' '.join(next(iter(by_voice)))}, over the sentences that both have:",
            "",
            *apart,
        ]
    return "\n".join(lines)


def main() -> None:
    """Judge what is missing, within the time given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--voice", action="append", default=[], help="MODEL (all its voices) or MODEL=VOICE")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further clip after these")
    given = parser.parse_args()
    until = time.monotonic() + given.seconds
    kept = given.out.read_text(encoding="utf-8").splitlines() if given.out.is_file() else []
    rows = [json.loads(line) for line in kept]
    done = {(row["model"], row["voice"], row["sentence"]) for row in rows}
    texts, judges = sentences()[: given.sentences], Judges.load("english")
    for asked in given.voice:
        folder, _, voice = asked.partition("=")
        engine = sonant.load(folder, slots=1)
        name = engine.spec.name if Path(folder).is_dir() else folder
        for one in [voice] if voice else engine.spec.voices:
            for number, text in enumerate(texts):
                if time.monotonic() > until or (name, one, number) in done:
                    continue
                began = time.process_time()
                speech = engine.synthesize(text, voice=one, seed=1, language="english")
                worked = round(time.process_time() - began, 3)
                row = {"model": name, "voice": one, "sentence": number, "worked": worked}
                rows.append(row | judged(text, speech, judges))
                with given.out.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(rows[-1]) + "\n")
        engine.close()
    print(table(rows))


if __name__ == "__main__":
    main()
