"""One measurement in this process: load, warm up, speak, and print one JSON object. Run as a module."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sonant.bench.rivals.peak_memory import peak_megabytes
from sonant.bench.spoken_text import FIRST_AUDIO_TEXT, TEXT

UNLIMITED = "1000TB"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to measure."""

    model: str
    device: str = "cpu"
    dtype: str = "auto"
    precision: str = "auto"
    threads: int = 2
    batch: int = 1
    seconds: float = 5.0
    """Speech to make, for each of the batch."""
    runs: int = 3
    memory_limit: str | None = None


class Stopwatch:
    """Seconds spent inside methods that were wrapped, by stage name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, owner: Any, method: str, stage: str) -> Iterator[None]:
        """Count the time inside `owner.method` under `stage` while the block runs."""
        original = getattr(owner, method)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                spent = time.perf_counter() - began
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

        owner.__dict__[method] = wrapped
        try:
            yield
        finally:
            del owner.__dict__[method]


def measure(workload: Workload) -> dict[str, Any]:
    """Load the model, speak, and return the figures documented in docs/benchmarks.md."""
    import torch

    torch.set_num_threads(workload.threads)
    began = time.perf_counter()
    from sonant.bench.reference_clip import reference_voice
    from sonant.catalogue.registry import choose_device, choose_precision, limit_device, load, plan
    from sonant.checkpoints.memory import resident_bytes
    from sonant.request.speech import Sampling, SpeechRequest, Style

    is_cpu = choose_device(workload.device).type == "cpu"
    taken = resident_bytes() if is_cpu else 0
    planned = plan(
        workload.model,
        memory_limit=workload.memory_limit or UNLIMITED,
        device=workload.device,
        dtype=workload.dtype,
        precision=workload.precision,
        slots=workload.batch,
        taken=taken,
    )
    is_limited = workload.memory_limit is not None
    if workload.memory_limit is not None:
        limit_device(workload.device, workload.memory_limit)
    dtype, precision = (
        (planned.dtype, planned.precision) if is_limited else (workload.dtype, workload.precision)
    )
    precision = choose_precision(workload.model, precision, device=workload.device, dtype=dtype)
    engine = load(
        workload.model,
        device=workload.device,
        dtype=dtype,
        precision=precision,
        slots=planned.slots,
        cache_positions=planned.cache_positions if is_limited else None,
        records_ahead=True,
    )
    load_seconds = time.perf_counter() - began
    spec = engine.spec
    frames = max(4, round(workload.seconds * spec.frame_rate))
    voice = reference_voice(engine) if spec.needs_voice else (spec.voices[0] if spec.voices else None)
    style = Style(instruction="a calm, low voice") if spec.needs_instruction else Style()

    def request(text: str, limit: int | None, seed: int) -> SpeechRequest:
        sampling = Sampling(max_frames=limit) if limit and "max_frames" in spec.sampling else Sampling()
        return SpeechRequest(text, voice=voice, style=style, sampling=sampling, seed=seed)

    engine.synthesize(request("Warm up.", 4, 0))
    _reset_peak(torch)
    firsts, results = [], []
    # Enough for the first chunk; a model that streams by the segment has nothing before its end.
    first_frames = 8 if spec.streams_by == "frame" else round(2 * spec.frame_rate)
    for number in range(workload.runs):
        if spec.streams_by != "segment":
            with engine.stream(request(FIRST_AUDIO_TEXT, first_frames, number)) as stream:
                stream.get()
                firsts.append(stream.timings["first_audio"])
                if spec.streams_by == "chunk":
                    for _ in stream:  # a chunk that is being decoded would run into what is timed next
                        pass
            # A cancelled stream of frames leaves at the next step.
        began = time.perf_counter()
        streams = [
            engine.submit(request(TEXT, frames, number * workload.batch + row), streaming=False)
            for row in range(workload.batch)
        ]
        audio = 0.0
        stages: dict[str, float] = {}
        spoken = 0.0
        for stream in streams:
            for chunk in stream:
                audio += len(chunk.samples) / spec.sample_rate
            spoken += stream.timings["frames"]
            for name, value in stream.timings.items():
                stages[name] = stages.get(name, 0.0) + value
        wall = time.perf_counter() - began
        if spec.streams_by == "segment":
            firsts.append(wall)
        results.append(_run_figures(wall, audio, spoken, stages, workload.batch))
    engine.close()
    return {
        "model": spec.name,
        "family": spec.family,
        "precision": dtype if precision == "full" else precision,
        "batch": workload.batch,
        "threads": workload.threads,
        "device": _device_name(workload.device),
        "load_s": round(load_seconds, 3),
        "ttfa_ms": round(median(firsts) * 1000, 1),
        "rtf": round(median(r["rtf"] for r in results), 4),
        "tokens_per_s": round(median(r["tokens_per_s"] for r in results), 2),
        "ms_per_frame": {
            name: round(median(r["ms_per_frame"].get(name, 0.0) for r in results), 3)
            for name in results[0]["ms_per_frame"]
        },
        "audio_s": round(median(r["audio_s"] for r in results), 2),
        "peak_mb": round(_peak_megabytes(torch), 1),
        "estimate_mb": round((taken + planned.needed) / 2**20, 1),
    }


def _run_figures(
    wall: float, audio: float, frames: float, stages: Mapping[str, float], batch: int
) -> dict[str, Any]:
    counted = {"prepare", "prefill", "generate", "decode", "latent", "codec", "flow", "vocoder"}
    return {
        "rtf": wall / max(audio, 1e-9),
        "audio_s": audio,
        "tokens_per_s": frames / wall,
        "ms_per_frame": {
            **{name: value * 1000 / max(frames, 1) for name, value in stages.items() if name in counted},
            "whole": wall * 1000 / max(frames, 1),
        },
    }


def _reset_peak(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_megabytes(torch: Any) -> float:
    """Largest resident size of this process so far; on a GPU that of its allocator."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_allocated()) / 2**20
    return peak_megabytes()


def _device_name(device: str) -> str:
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        return torch.cuda.get_device_name(device if ":" in device else None)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(Workload(**json.loads(sys.argv[1])))) + "\n")
