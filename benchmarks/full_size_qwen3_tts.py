"""Qwen3-TTS at its true size with random weights: load, speak, and print time and memory.

    python benchmarks/full_size_qwen3_tts.py FOLDER [--size 1.7b] [--dtype bfloat16]

The first call writes the checkpoint into FOLDER (about 2.5 GB for the 0.6B), the second measures.
"""

import argparse
import resource
import time
from pathlib import Path

import torch

from sonant.bench.qwen3_tts_checkpoint import write


def peak_gib():
    """Largest resident memory so far, mapped weight files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=["0.6b", "1.7b"], default="0.6b")
    parser.add_argument("--kind", choices=["custom_voice", "base", "voice_design"], default="custom_voice")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only-write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not (arguments.folder / "model.safetensors").is_file():
        write(arguments.folder, size=arguments.size, kind=arguments.kind)
        print("written; run again to measure in a fresh process")
        return
    if arguments.only_write:
        return

    from sonant.catalogue.registry import load
    from sonant.request.audio import Audio
    from sonant.request.speech import Sampling, SpeechRequest, Style

    before = peak_gib()
    began, busy = time.perf_counter(), time.process_time()
    engine = load(arguments.folder, device="cpu", dtype=arguments.dtype, slots=1)
    loaded, loading = time.perf_counter() - began, time.process_time() - busy
    after_load = peak_gib()
    frames = round(arguments.seconds * engine.spec.frame_rate)
    voice = None
    if engine.spec.voices:
        voice = engine.spec.voices[0]
    elif engine.spec.needs_voice:
        noise = torch.randn(24_000 * 5, generator=torch.Generator().manual_seed(0)) * 0.1
        voice = engine.clone(Audio(noise.numpy(), 24_000))
    style = Style(instruction="calm") if engine.spec.needs_instruction else Style()
    request = SpeechRequest(
        "The quick brown fox jumps over the lazy dog, and then it does so once more, because it can.",
        voice=voice, style=style, seed=1, sampling=Sampling(max_frames=frames),
    )  # fmt: skip
    busy = time.process_time()
    speech = engine.synthesize(request)
    busy = time.process_time() - busy
    times = speech.timings
    print(f"Qwen3-TTS {arguments.size} {arguments.kind}, {arguments.dtype}, {arguments.threads} threads, CPU")
    print(f"load            {loaded:8.2f} s, {loading:.2f} s of one processor")
    print(
        f"peak memory     {before:8.2f} GiB before, {after_load:.2f} after loading, {peak_gib():.2f} at end"
    )
    print(f"audio           {speech.seconds:8.2f} s, {int(times['frames'])} frames")
    print(f"processor time  {busy * 1000 / times['frames']:8.1f} ms a frame, all of it")
    print(f"prefill         {times['prefill'] * 1000:8.1f} ms")
    print(f"talker, 15 more {times['generate'] * 1000 / times['frames']:8.1f} ms a frame")
    print(f"codec           {times['decode'] * 1000 / times['frames']:8.1f} ms a frame")
    engine.close()


if __name__ == "__main__":
    main()
