"""The Seed-TTS evaluation's format: a list of sentences, each in the voice of a clip, spoken and judged.

A line of meta.lst is `name|transcript of the clip|clip|text to say`, in some lists with `|recording of it`
behind; clips are named from the list's folder. Source: BytedanceSpeech/seed-tts-eval. Its published figures
use Whisper-large-v3, Paraformer and a WavLM speaker model; those of the judges here are for comparing runs
with one another, not with them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sonant import __version__
from sonant.audio.encode import AudioWriter
from sonant.engine.engine import Engine
from sonant.errors import RequestError, SonantError, StorageError
from sonant.files import FULL, SHUT, write_atomically
from sonant.quality.bootstrap import mean_interval
from sonant.quality.judges import Judges
from sonant.request.audio import LONGEST_CLIP, Audio
from sonant.request.speech import SpeechRequest
from sonant.request.voice import Voice

RESULTS, SUMMARY = "results.jsonl", "summary.json"


@dataclass(frozen=True)
class Item:
    """One line of the list."""

    name: str
    transcript: str
    clip: Path
    text: str


def read_meta(path: Path) -> list[Item]:
    """The lines of a meta.lst. Raises RequestError naming the first line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read {path} ({error}); expected a meta.lst in UTF-8.") from error
    items: list[Item] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) not in (4, 5) or not all(parts[:4]):
            raise RequestError(
                f"line {number} of {path} has {len(parts)} parts; expected name|transcript|clip|text, and "
                "perhaps a recording of it. Is it a meta.lst of the Seed-TTS evaluation?"
            )
        name = parts[0].removesuffix(".wav")
        if "/" in name or "\\" in name or name in (".", ".."):
            raise RequestError(
                f"line {number} of {path} is named {parts[0]!r}; expected a name without folders."
            )
        items.append(Item(name, parts[1], path.parent / parts[2], parts[3]))
    if not items:
        raise RequestError(f"{path} is empty; expected lines of name|transcript|clip|text.")
    names = [item.name for item in items]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{path} has the name {twice!r} twice; expected each once.")
    return items


def evaluate(
    items: Sequence[Item],
    folder: Path,
    judges: Judges,
    *,
    engine: Engine | None,
    language: str | None,
    seed: int = 0,
    on_item: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Speak and judge every item into `folder`; gives the summary, which is written too.

    What is in results.jsonl already is not done again, unless another model, seed, language, text or clip
    made it. Without an engine, the clips of another program are judged: folder/NAME.wav. An item that fails
    is counted as wholly wrong, and told. Raises RequestError for a folder that cannot be written to.
    """
    place = folder / RESULTS
    keys = {item.name: _key(item, folder, engine, language, seed) for item in items}
    before = {row["name"]: row for row in _rows(place) if not row.get("error")}
    done = {
        name: row
        for name, row in before.items()
        if keys.get(name) is not None and row.get("key") == keys[name] and (folder / f"{name}.wav").is_file()
    }
    others = [row for name, row in before.items() if name not in keys]
    _write(folder, RESULTS, "".join(_line(row) for row in (*others, *done.values())))
    rows = []
    with place.open("a", encoding="utf-8", errors="replace") as file:
        for item in items:
            row = done.get(item.name)
            if row is None:
                row = _row(item, folder, judges, engine=engine, language=language, seed=seed)
                row["key"] = keys[item.name]
                file.write(_line(row))
                file.flush()
            rows.append(row)
            on_item(row)
    _write(folder, RESULTS, "".join(_line(row) for row in (*others, *rows)))  # in the list's order
    summary = summarise(rows) | {"not_judged": list(judges.remarks), "language": language, "seed": seed}
    _write(folder, SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write(folder: Path, name: str, text: str) -> None:
    try:
        write_atomically(folder / name, text.encode("utf-8", "replace"), is_private=False)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise (StorageError if error.errno in SHUT else RequestError)(
            f"cannot write to the folder {folder} ({error.strerror or error}); expected a place for clips "
            "and results. Choose another."
        ) from error


def _key(item: Item, folder: Path, engine: Engine | None, language: str | None, seed: int) -> str | None:
    """A hash of everything that decides an item's result; None while there is no clip to judge."""
    try:
        reference = hashlib.sha256(item.clip.read_bytes()).hexdigest()
        if engine is not None:
            by = [__version__, engine.spec.family, engine.spec.fingerprint, str(seed), item.transcript]
        else:
            by = [hashlib.sha256((folder / f"{item.name}.wav").read_bytes()).hexdigest()]
    except (OSError, ValueError):
        return None
    told = json.dumps([item.text, reference, language, *by])
    return hashlib.sha256(told.encode()).hexdigest()


def _rows(place: Path) -> Iterator[dict[str, Any]]:
    """Results of an earlier run; a line that was cut off is left out."""
    if not place.is_file():
        return
    for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"name", "text"} <= row.keys():
            yield row


def _row(
    item: Item, folder: Path, judges: Judges, *, engine: Engine | None, language: str | None, seed: int
) -> dict[str, Any]:
    try:
        clip = Audio.read(item.clip, max_seconds=LONGEST_CLIP)
        target = folder / f"{item.name}.wav"
        guards: list[str] = []
        if engine is not None:
            voice = Voice(name=item.name, clip=clip, transcript=item.transcript)
            speech = engine.synthesize(SpeechRequest(item.text, voice=voice, language=language, seed=seed))
            guards = [guard.kind for guard in speech.guards]
            with AudioWriter(target, speech.sample_rate, format="wav") as writer:
                writer.write(speech.samples)
        audio = Audio.read(target, max_seconds=LONGEST_CLIP)
        found = judges.judge(audio, text=item.text, language=language, reference=clip)
        return {
            "name": item.name,
            "text": item.text,
            "seconds": round(audio.seconds, 3),
            "guards": guards,
        } | (found.as_dict())
    except SonantError as error:
        return {"name": item.name, "text": item.text, "error": str(error)}


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the items with 95 % intervals: of each item's error rate, as the evaluation counts, and of
    all words together."""
    failed = [row for row in rows if row.get("error")]
    made = [row for row in rows if not row.get("error")]
    summary: dict[str, Any] = {"items": len(rows), "failed": [row["name"] for row in failed]}
    rates = [row["wer"] for row in made] + [1.0] * len(failed)
    if rates:
        summary["wer"] = mean_interval(rates).as_dict()
    if made:
        errors, words = ([row[key] for row in made] for key in ("word_errors", "words"))
        summary["wer_of_all_words"] = mean_interval(errors, words).as_dict()
        summary["longest_wrong"] = max(row["longest_wrong"] for row in made)
        summary["seconds"] = round(float(np.sum([row["seconds"] for row in made])), 3)
    for key in ("similarity", "dnsmos"):
        values = [row[key] for row in made if row.get(key) is not None]
        if values:
            summary[key] = mean_interval(values).as_dict()
    return summary
