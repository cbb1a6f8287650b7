"""Codec cost of streaming Qwen3-TTS: Sonant's decoder with state against the original's window of 25 frames.

    python benchmarks/codec_streaming.py FOLDER --rival-python PYTHON [--chunk 4] [--frames 64]

Both decode the same random codes in pieces of `chunk` frames with the weights of FOLDER (a Qwen3-TTS model
folder), in turns, each turn in a fresh process. The original runs in an environment of its own (qwen-tts).
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median


def codes_of(torch, frames):
    return torch.randint(0, 2048, (frames, 16), generator=torch.Generator().manual_seed(0))


def sonant(folder, frames, chunk):
    import torch

    from sonant.catalogue.registry import load_model

    model = load_model(folder, device="cpu", precision="lossless")
    codes = codes_of(torch, frames)

    def speak(size):
        decoder = model.speech_tokenizer.decoder()
        return torch.cat([*(decoder.push(part) for part in codes.split(size)), decoder.finish()])

    return lambda: speak(chunk), lambda: speak(frames)


def original(folder, frames, chunk):
    import torch
    from qwen_tts import Qwen3TTSModel

    model = Qwen3TTSModel.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    decoder = model.model.speech_tokenizer.model.decoder
    codes = codes_of(torch, frames).T[None]

    def speak(size):
        return decoder.chunked_decode(codes, chunk_size=size, left_context_size=25)[0, 0]

    return lambda: speak(chunk), lambda: decoder(codes)[0, 0]


def measure(who, folder, frames, chunk, threads):
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        in_pieces, whole = {"sonant": sonant, "original": original}[who](folder, frames, chunk)
        seconds, waves = {}, {}
        for name, speak in (("pieces", in_pieces), ("whole", whole)):
            taken = []
            for _ in range(3):
                began = time.perf_counter()
                waves[name] = speak()
                taken.append(time.perf_counter() - began)
            seconds[name] = 1000 * median(taken[1:]) / frames
    error = float((waves["pieces"] - waves["whole"]).abs().max() / waves["whole"].abs().max())
    print(json.dumps({**seconds, "error": error}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--rival-python", required=True)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--who", choices=["sonant", "original"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.who:
        measure(given.who, given.folder, given.frames, given.chunk, given.threads)
        return
    figures = {"sonant": [], "original": []}
    for _ in range(given.rounds):
        for who, python in (("sonant", sys.executable), ("original", given.rival_python)):
            command = [python, __file__, *sys.argv[1:], "--who", who]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures[who].append(json.loads(done.stdout.splitlines()[-1]))
    for who, rounds in figures.items():
        pieces, whole, error = (median(one[key] for one in rounds) for key in ("pieces", "whole", "error"))
        print(
            f"{who}: {pieces:.1f} ms a frame in pieces of {given.chunk}, {whole:.1f} whole; "
            f"pieces differ from the whole by {error:.1e} of its peak"
        )
    ratio = median(one["pieces"] for one in figures["original"]) / median(
        one["pieces"] for one in figures["sonant"]
    )
    print(f"ratio: {ratio:.1f}")


if __name__ == "__main__":
    main()
