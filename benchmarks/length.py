"""Cost of a second of audio as the speech gets longer: `python benchmarks/length.py MODEL --precision int4`.

The seconds are made as one text of many parts, each spoken to `--segment` seconds, and, up to `--single`
seconds, also as one segment without a break, where attention looks back over everything said.
"""

import argparse
import time

import torch

from sonant.bench.worker import TEXT
from sonant.catalogue.registry import load
from sonant.request.speech import Sampling, SpeechRequest

PAUSE = " [pause:100ms] "  # also the end of a segment


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0, 600.0])
    parser.add_argument("--segment", type=float, default=10.0)
    parser.add_argument("--single", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with load(given.model, device="cpu", precision=given.precision, slots=1) as engine:
        voice = engine.spec.voices[0] if engine.spec.voices else None

        def speak(text, segment):
            limit = round(segment * engine.spec.frame_rate)
            request = SpeechRequest(text, voice=voice, sampling=Sampling(max_frames=limit), seed=1)
            began = time.perf_counter()
            with engine.submit(request) as stream:
                samples = sum(len(chunk.samples) for chunk in stream)
            audio = samples / engine.spec.sample_rate
            return audio, (time.perf_counter() - began) / audio

        speak(TEXT, 2.0)
        for seconds in given.seconds:
            count = max(1, round(seconds / given.segment))
            audio, cost = speak(PAUSE.join([TEXT] * count), given.segment)
            print(f"{audio:6.1f} s in segments of at most {given.segment:g} s: {cost:.3f} s a second")
            if given.segment < seconds <= given.single:
                audio, cost = speak(TEXT, seconds)
                print(f"{audio:6.1f} s in one segment: {cost:.3f} s a second")


if __name__ == "__main__":
    main()
