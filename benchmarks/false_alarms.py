"""How often a guard fires in ordinary speech: English prose, spoken or encoded, and what was told.

    python benchmarks/false_alarms.py --model builtin --count 1500 --out alarms.jsonl --seconds 500
    python benchmarks/false_alarms.py --model nano --count 600 --out alarms.jsonl --seconds 500
    python benchmarks/false_alarms.py --codes CHECKPOINT --count 300 --out alarms.jsonl --seconds 500
    python benchmarks/false_alarms.py --out alarms.jsonl --show

Goes on where it was stopped, so it can be run in steps of --seconds. The prose is that of Python's own manual
(pydoc_data.topics), which every CPython has. --codes takes a Qwen3-TTS Base or CosyVoice3 checkpoint: speech
of the built-in voice becomes its speech tokens, which the token guards then watch as if the model had said
them, with another sentence as the reference. Every guard is on; every event counts but the limiter of peaks.
"""

import argparse
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import sonant
from sonant.engine.guards import EchoWatch, LoopWatch
from sonant.text.segment import sentences

WATCHED = {
    "repeated_code", "repeated_phrase", "near_silence", "missing_end", "reference_echo", "not_finite",
    "runaway", "length_ceiling",
}  # fmt: skip


def prose(count: int) -> list[str]:
    """Different sentences of 5 to 25 words without signs of a programming language."""
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            for sentence in sentences(" ".join(paragraph.split())):
                said = sentence.strip()
                if re.fullmatch(r"[A-Z][A-Za-z0-9,;:'’() -]+[.?!]", said) and 5 <= len(said.split()) <= 25:
                    found.setdefault(said)
    picked = list(found)
    np.random.default_rng(0).shuffle(picked)
    if len(picked) < count:
        print(f"only {len(picked)} sentences")
    return picked[:count]


def spoken(model: str, texts: list[tuple[int, str]]):
    """Rows of what a model says; greedy and streaming in turn with the defaults."""
    engine = sonant.load(model, slots=1)
    for number, text in texts:
        request = sonant.SpeechRequest(text, seed=number, guards="all")
        if number % 5 == 4 and "greedy" in engine.spec.sampling:
            request = replace(request, sampling=sonant.Sampling(temperature=0.6))
        speech = engine.synthesize(request)
        told = [(guard.kind, guard.message) for guard in speech.guards if guard.kind in WATCHED]
        yield number, len(speech.segments), speech.seconds, told


def tokens_of(model, speech) -> torch.Tensor:
    """The model's own tokens [frames, K] of some speech: its codec's, or those of a voice that has them."""
    if hasattr(model, "encode_audio"):
        return model.encode_audio(speech)
    return model.encode_voice(speech, "x").tensors["tokens"][:, None]


def encoded(checkpoint: str, texts: list[tuple[int, str]]):
    """Rows of the built-in voice's speech as codec tokens, watched by the guards that look at tokens."""
    engine = sonant.load("builtin", slots=1)
    codec = sonant.load(checkpoint, slots=1)
    before = None
    for number, text in texts:
        speech = engine.synthesize(sonant.SpeechRequest(text, seed=number))
        codes = tokens_of(codec.model, speech)
        watches = [LoopWatch(codec.spec.frame_rate)]
        if before is not None:
            watches.append(EchoWatch(codec.spec.frame_rate, before))
        before = codes
        told = [(stuck.kind, stuck.message) for watch in watches if (stuck := watch.push(codes)) is not None]
        yield number, 1, speech.seconds, told


def show(path: Path) -> None:
    """A table of what was run so far."""
    totals: dict[str, list] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        total = totals.setdefault(row["source"], [0, 0.0, []])
        total[0] += row["segments"]
        total[1] += row["seconds"]
        total[2] += [(row["number"], *event) for event in row["told"]]
    for source, (segments, seconds, told) in totals.items():
        print(f"{source}: {segments} segments, {seconds / 60:.0f} min of speech, {len(told)} alarms")
        for event in told:
            print("   ", *event)
    print(f"all: {sum(total[0] for total in totals.values())} segments")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--model")
    options.add_argument("--codes")
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--first", type=int, default=0, help="number of the first sentence")
    options.add_argument("--out", type=Path, default=Path("alarms.jsonl"))
    options.add_argument("--seconds", type=float, default=500.0)
    options.add_argument("--show", action="store_true")
    given = options.parse_args()
    if given.show:
        show(given.out)
        return
    source = given.model or f"codes of {Path(given.codes).name}"
    done = set()
    if given.out.exists():
        rows = (json.loads(line) for line in given.out.read_text(encoding="utf-8").splitlines())
        done = {row["number"] for row in rows if row["source"] == source}
    texts = [(n, text) for n, text in enumerate(prose(given.count)) if n >= given.first and n not in done]
    until = time.monotonic() + given.seconds
    with given.out.open("a", encoding="utf-8") as out:
        for number, segments, seconds, told in (
            spoken(given.model, texts) if given.model else encoded(given.codes, texts)
        ):
            row = {"source": source, "number": number, "segments": segments, "seconds": seconds, "told": told}
            out.write(json.dumps(row) + "\n")
            out.flush()
            if time.monotonic() > until:
                print(f"stopped after {given.seconds:g} s; run it again to go on")
                break
    show(given.out)


if __name__ == "__main__":
    main()
