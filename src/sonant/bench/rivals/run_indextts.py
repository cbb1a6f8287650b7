"""The original IndexTTS2 or 2.5 measured in its own environment; prints one JSON object.

Imports nothing of Sonant.

Run by `sonant bench --compare indextts`; `indextts` must be importable. Its default of three beams is kept;
the clip is encoded in the warm-up, since both sides remember it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from importlib import import_module
from statistics import median
from typing import Any

from peak_memory import peak_megabytes
from stopwatch import Stopwatch

FRAMES_PER_FEATURE = 1.72
HOP, RATE = 256, 22_050


def main() -> None:
    """Load the checkpoint of the arguments, speak a fixed number of codes, print the figures."""
    job = json.loads(sys.argv[1])
    if job["dtype"] != "float32" or job["batch"] != 1:
        raise SystemExit("the original runs on a CPU in float32 and speaks one text at a time")
    import torch

    torch.set_num_threads(job["threads"])
    began = time.perf_counter()
    is_multilingual = os.path.isfile(os.path.join(job["folder"], "codec.pth"))  # IndexTTS-2.5
    with contextlib.redirect_stdout(sys.stderr):
        code = import_module("indextts.infer_v2_5" if is_multilingual else "indextts.infer_v2")
        original = code.IndexTTS2(
            cfg_path=os.path.join(job["folder"], "config.yaml"),
            model_dir=job["folder"],
            device="cpu",
            use_qwen_emo=False,
        )
    load_seconds = time.perf_counter() - began
    watch = Stopwatch()

    def is_prefill(options: dict[str, Any]) -> bool:
        return options["input_ids"].shape[1] > 1

    watch.wrap(original.gpt, "merge_emovec", "emotion")
    if is_multilingual:
        watch.wrap(original.semantic_codec, "decode", "codec")
    else:
        watch.wrap(original.gpt, "get_conditioning", "speaker")
    watch.wrap(original.gpt.inference_model, "forward", "prefill", is_prefill)
    watch.wrap(original.gpt, "inference_speech", "codes")
    watch.wrap(original.gpt, "forward", "latent")
    watch.wrap(original.s2mel.models["cfm"], "inference", "flow")
    watch.wrap(original.bigvgan, "forward", "vocoder")

    def say(text: str, codes: int) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            language = ("en",) if is_multilingual else ()
            return original.infer(job["clip"], text, None, *language, max_mel_tokens=codes)

    features = job["seconds"] * RATE / HOP / FRAMES_PER_FEATURE
    codes = max(4, round(features / (2 if is_multilingual else 1)))
    say("Warm up.", 4)
    walls, lengths, stages = [], [], []
    for number in range(job["runs"]):
        torch.manual_seed(number)
        watch.seconds.clear()
        began = time.perf_counter()
        rate, samples = say(job["text"], codes)
        walls.append(time.perf_counter() - began)
        lengths.append(len(samples) / rate)
        spent = watch.seconds
        stages.append(
            {
                "prepare": spent["emotion"] + spent.get("speaker", 0.0),
                "prefill": spent["prefill"],
                "generate": spent["codes"] - spent["prefill"] - spent.get("speaker", 0.0),
                **{name: spent[name] for name in ("latent", "codec", "flow", "vocoder") if name in spent},
                "whole": walls[-1],
            }
        )
    print(
        json.dumps(
            {
                "model": job["folder"].rstrip("/").split("/")[-1],
                "precision": job["dtype"],
                "batch": job["batch"],
                "threads": job["threads"],
                "load_s": round(load_seconds, 3),
                # a segment is spoken whole
                "ttfa_ms": round(median(walls) * 1000, 1),
                "rtf": round(median(w / s for w, s in zip(walls, lengths, strict=True)), 4),
                "ms_per_frame": {
                    name: round(median(run[name] for run in stages) * 1000 / codes, 3) for name in stages[0]
                },
                "audio_s": round(median(lengths), 2),
                "peak_mb": round(peak_megabytes(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
