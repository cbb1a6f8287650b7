"""Judge a checkpoint as a user would run it: Sonant speaks the held-out sentences, Whisper and DNSMOS listen.

judge/table.json, judge/heard.json and judge/NNN.wav. `judge` reads `work/model`; the sentences are in
`sonant.bench.sentences.txt`. The real-time factor is measured with one thread.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

from recipes.nano.hearing import Ear, Score, find_mos
from recipes.nano.progress import Progress
from recipes.nano.settings import Settings
from recipes.nano.texts import held_out

MOS_CLIPS = 20
"""DNSMOS takes seconds for a clip, so about this many, evenly spread, are judged for sound."""


def judge(model: Path | str, folder: Path, sentences: list[str], seed: int) -> dict[str, float]:
    """Speak and score; writes the audio and what was heard into `folder`."""
    import sonant

    torch.set_num_threads(1)
    progress = Progress("judge", folder)
    engine = sonant.load(model, slots=1)
    ear, mos, total = Ear(), find_mos(), Score()
    sounds: list[tuple[float, float]] = []
    heard = []
    spoken = worked = 0.0
    engine.synthesize(sonant.SpeechRequest("Ready.", seed=seed))
    for index, text in enumerate(sentences):
        start = time.process_time()
        speech = engine.synthesize(sonant.SpeechRequest(text, seed=seed))
        worked += time.process_time() - start
        spoken += speech.seconds
        speech.write(folder / f"{index:03d}.wav")
        score, understood = ear.score(speech.samples, speech.sample_rate, text)
        total += score
        heard.append({"text": text, "heard": understood, "seconds": round(speech.seconds, 2)})
        if mos is not None and speech.seconds > 0.5 and index % max(1, len(sentences) // MOS_CLIPS) == 0:
            found = mos.score(speech)
            if found is not None:
                sounds.append((found.overall, found.p808))
        progress.bar((index + 1) / len(sentences), understood)
    table = {
        "sentences": len(sentences),
        "words": total.words,
        "wer": round(100 * total.wer, 2),
        "cer": round(100 * total.cer, 2),
        "real_time_factor": round(worked / max(spoken, 1e-9), 3),
        "speech_seconds": round(spoken, 1),
    }
    if sounds:
        overall, p808 = np.mean(sounds, axis=0)
        table |= {"dnsmos": round(float(overall), 2), "dnsmos_p808": round(float(p808), 2)}
    if Path(model).is_dir():
        files = [path for path in Path(model).rglob("*") if path.is_file()]
        table["megabytes"] = round(sum(path.stat().st_size for path in files) / 1e6, 1)
    progress.log(**table)
    progress.close()
    (folder / "heard.json").write_text(json.dumps(heard, indent=1) + "\n", encoding="utf-8")
    (folder / "table.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def make(s: Settings, model: Path | None = None) -> None:
    """Judge `model`, or `work/model`, on the held-out sentences."""
    judge(model or s.folder("model"), s.folder("judge"), held_out()[: s.held_out], s.seed)
