"""What streaming costs, and when it begins to sound: the same sentence whole and streamed, in turn.

    python benchmarks/streams.py MODEL [--seconds 10 20] [--rounds 3] [--precision int8] [--threads 2]

MODEL is a folder, or a known name, which gets random weights of its true shapes. Each round speaks the same
number of tokens whole, then streamed by a voice that has not streamed yet, then by the same voice again.
Wall seconds from the request on, medians of the rounds with the least and the most, and all over the whole's.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import sonant
from sonant.bench.checkpoints import folder_for
from sonant.bench.reference_clip import reference_clip
from sonant.bench.spoken_text import TEXT
from sonant.request.audio import Audio
from sonant.request.speech import Sampling, SpeechRequest


def fresh_voice(engine, number):
    """A voice that no stream has had yet; its encoding, which every way would share, is done."""
    spec = engine.spec
    if not spec.needs_voice:
        return spec.voices[0] if spec.voices else None
    clip = reference_clip()
    samples = np.roll(clip.samples, 1_000 * number)
    return engine.clone(Audio(samples, clip.sample_rate), name=f"bench-{number}")


def spoken(engine, request, *, streams):
    """Seconds to the first sound and to the last, and seconds of sound."""
    began = time.perf_counter()
    first, samples = None, 0
    with engine.submit(request, streaming=streams) as stream:
        for chunk in stream:
            first = time.perf_counter() - began if first is None else first
            samples += len(chunk.samples)
    return first, time.perf_counter() - began, samples / engine.spec.sample_rate


def told(values):
    low, high = min(values), max(values)
    return f"{median(values):.2f}" + (f" ({low:.2f} to {high:.2f})" if len(values) > 1 else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    number = 0
    with tempfile.TemporaryDirectory(prefix="sonant-bench-") as scratch:
        folder = folder_for(arguments.model, Path(scratch))
        with sonant.load(str(folder), device="cpu", precision=arguments.precision, slots=1) as engine:
            spoken(engine, SpeechRequest("Warm up.", voice=fresh_voice(engine, 99)), streams=False)
            for seconds in arguments.seconds:
                frames = round(seconds * engine.spec.frame_rate)
                figures = {}
                for _ in range(arguments.rounds):
                    number += 1
                    voice = fresh_voice(engine, number)
                    request = SpeechRequest(TEXT, voice=voice, seed=1, sampling=Sampling(max_frames=frames))
                    for way in ("whole", "streamed", "streamed again"):
                        first, last, sound = spoken(engine, request, streams=way != "whole")
                        figures.setdefault(way, []).append((first, last))
                print(f"{engine.spec.name}, {arguments.precision}, {sound:.1f} s of sound")
                for way, pairs in figures.items():
                    firsts, lasts = zip(*pairs, strict=True)
                    ratio = median(lasts) / median(last for _, last in figures["whole"])
                    print(f"  {way:<15} first sound {told(firsts)} s, all {told(lasts)} s, {ratio:.2f}")


if __name__ == "__main__":
    main()
