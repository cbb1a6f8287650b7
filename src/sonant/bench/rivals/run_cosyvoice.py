"""The original CosyVoice measured in its own environment; prints one JSON object. Imports nothing of Sonant.

Run by `sonant bench --compare cosyvoice` on a CosyVoice3 folder with a stored speaker. `cosyvoice` and
`matcha` must be importable: a checkout and its submodule on the environment's path.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from statistics import median
from typing import Any

from peak_memory import peak_megabytes
from stopwatch import Stopwatch

TOKENS_PER_SECOND = 25


def main() -> None:
    """Load the checkpoint of the arguments, speak a fixed number of tokens, print the figures."""
    job = json.loads(sys.argv[1])
    if job["dtype"] != "float32" or job["batch"] != 1:
        raise SystemExit("the original runs on a CPU in float32 and speaks one text at a time")
    import torch

    torch.set_num_threads(job["threads"])
    began = time.perf_counter()
    from cosyvoice.cli.cosyvoice import CosyVoice3

    with contextlib.redirect_stdout(sys.stderr):
        original = CosyVoice3(job["folder"])
    load_seconds = time.perf_counter() - began
    voice = next(iter(original.frontend.spk2info), None)
    if voice is None:
        raise SystemExit("this runner needs a folder with a stored speaker (spk2info.pt)")
    watch = Stopwatch()
    speak = original.model.llm.inference
    watch.wrap(original.model, "llm_job", "tokens")
    watch.wrap(original.model.llm.llm, "forward_one_step", "prefill", lambda given: given["cache"] is None)
    watch.wrap(original.model.flow, "inference", "flow")
    watch.wrap(original.model.hift, "inference", "vocoder")

    def say(text: str, tokens: int, *, stream: bool) -> Any:
        """Each piece of audio of the text; the length is forced through the original's own ratio."""
        count = original.frontend._extract_text_token(text)[0].shape[1]
        ratio = (tokens + 0.5) / count
        original.model.llm.inference = functools.partial(speak, max_token_text_ratio=ratio)
        pieces = original.inference_zero_shot(
            text, "", None, zero_shot_spk_id=voice, stream=stream, text_frontend=False
        )
        return pieces

    tokens = max(4, round(job["seconds"] * TOKENS_PER_SECOND))
    with contextlib.redirect_stdout(sys.stderr):
        for _ in say("Warm up.", 4, stream=False):
            pass
    walls, firsts, lengths, stages = [], [], [], []
    for number in range(job["runs"]):
        torch.manual_seed(number)
        with contextlib.redirect_stdout(sys.stderr):
            began = time.perf_counter()
            stream = say(job["first_text"], 2 * TOKENS_PER_SECOND, stream=True)
            next(stream)
            firsts.append(time.perf_counter() - began)
            for _ in stream:  # its thread has to end
                pass
            watch.seconds.clear()
            began = time.perf_counter()
            pieces = list(say(job["text"], tokens, stream=False))
            walls.append(time.perf_counter() - began)
        lengths.append(sum(piece["tts_speech"].shape[1] for piece in pieces) / original.sample_rate)
        spent = watch.seconds
        stages.append(
            {
                "prefill": spent["prefill"],
                "generate": spent["tokens"] - spent["prefill"],
                "flow": spent["flow"],
                "vocoder": spent["vocoder"],
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
                "ttfa_ms": round(median(firsts) * 1000, 1),
                "rtf": round(median(w / s for w, s in zip(walls, lengths, strict=True)), 4),
                "ms_per_frame": {
                    name: round(median(run[name] for run in stages) * 1000 / tokens, 3) for name in stages[0]
                },
                "audio_s": round(median(lengths), 2),
                "peak_mb": round(peak_megabytes(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
