"""Voices of several models judged over the same sentences, by the judges of `sonant measure --judge`.

    python benchmarks/judge_voices.py OUT.jsonl --voice builtin --voice nano --voice FOLDER=af_heart
    python benchmarks/judge_voices.py OUT.jsonl --sentences 2 --voice FOLDER   # every voice of a model

One JSON line for each voice and sentence; what is in OUT.jsonl is not spoken again, so the whole can be done
in pieces (`--seconds`). The sentences are the first of src/sonant/bench/sentences.txt, all of them for 100.
Every clip is judged as it leaves, at the default loudness. Needs the judge extra. No package ships UTMOS's or
NISQA's weights.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import sonant
from sonant.bench.quality import sentences
from sonant.quality.judges import Judges
from sonant.request.settings import LOUDNESS
from sonant.text.scoring import Score

COUNTS = ("words", "word_errors", "letters", "letter_errors")


def judged(text: str, speech: sonant.Speech, judges: Judges) -> dict[str, object]:
    """What the judges say of one clip."""
    found = judges.judge(speech.at_loudness(LOUDNESS), text=text, language="english")
    row: dict[str, object] = {"seconds": round(speech.seconds, 2), "heard": found.heard}
    row |= {name: getattr(found.words, name) for name in COUNTS}
    if found.mos is not None:  # of silence there is none
        row |= {"dnsmos": round(found.mos.overall, 3), "p808": round(found.mos.p808, 3)}
    return row


def table(rows: list[dict]) -> str:
    """A line for each voice, as Markdown."""
    by_voice = defaultdict(list)
    for row in rows:
        by_voice[row["model"], row["voice"]].append(row)
    lines = [
        "| model | voice | sentences | words | WER | CER | DNSMOS | P.808 | rated | work / speech |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (model, voice), mine in by_voice.items():
        total = Score(**{name: sum(row[name] for row in mine) for name in COUNTS})
        rated = [row for row in mine if "dnsmos" in row]
        sound = [
            f"{np.mean([row[name] for row in rated]):.2f}" if rated else "" for name in ("dnsmos", "p808")
        ]
        pace = sum(row["worked"] for row in mine) / sum(row["seconds"] for row in mine)
        lines.append(
            f"| {model} | {voice} | {len(mine)} | {total.words} | {total.wer:.1%} | {total.cer:.1%} | "
            f"{sound[0]} | {sound[1]} | {len(rated)} | {pace:.2f} |"
        )
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
