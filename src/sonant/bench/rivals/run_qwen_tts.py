"""The original qwen-tts measured in its own environment; prints one JSON object. Imports nothing of Sonant.

The file must not bear the package's own name: its folder comes first on the path.

Run by `sonant bench --compare qwen-tts`; needs only the packages that qwen-tts itself needs.
"""

import json
import sys
import time
from statistics import median

from peak_memory import peak_megabytes


def main() -> None:
    """Load the checkpoint of the arguments, speak a fixed number of frames, print the figures."""
    job = json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(job["threads"])
    began = time.perf_counter()
    from qwen_tts import Qwen3TTSModel

    model = Qwen3TTSModel.from_pretrained(job["folder"], dtype=getattr(torch, job["dtype"]), device_map="cpu")
    load_seconds = time.perf_counter() - began
    speakers = list(model.get_supported_speakers() or [])
    if not speakers:
        raise SystemExit("this runner needs a CustomVoice checkpoint")
    frames = max(4, round(job["seconds"] * 12.5))
    rtfs, per_frame, lengths = [], [], []
    for _ in range(job["runs"]):
        torch.manual_seed(0)
        texts, names = [job["text"]] * job["batch"], [speakers[0]] * job["batch"]
        began = time.perf_counter()
        waves, rate = model.generate_custom_voice(
            text=texts, speaker=names, language=["English"] * job["batch"], max_new_tokens=frames + 1
        )
        wall = time.perf_counter() - began
        seconds = sum(len(wave) for wave in waves) / rate
        rtfs.append(wall / seconds)
        lengths.append(seconds)
        per_frame.append(wall * 1000 / (seconds * 12.5))
    print(
        json.dumps(
            {
                "model": job["folder"].rstrip("/").split("/")[-1],
                "precision": job["dtype"],
                "batch": job["batch"],
                "threads": job["threads"],
                "load_s": round(load_seconds, 3),
                # the original hands out audio only when all of it is decoded
                "ttfa_ms": round(median(rtfs) * median(lengths) * 1000, 1),
                "rtf": round(median(rtfs), 4),
                "ms_per_frame": {"whole": round(median(per_frame), 2)},
                "audio_s": round(median(lengths), 2),
                "peak_mb": round(peak_megabytes(), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
