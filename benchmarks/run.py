"""The tables of docs/benchmarks.md that any machine can make: `make bench`.

    python benchmarks/run.py [MODEL ...] [--rival-python PYTHON]

Without models: the built-in voice and Qwen3-TTS 0.6B with random weights of the true shapes. A rival is the
model's own original; its python is that of an environment with that original.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from sonant.bench.checkpoints import folder_for

RIVALS = {"qwen3": "qwen-tts", "cosyvoice3": "cosyvoice", "indextts2": "indextts"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["builtin", "qwen3-tts-0.6b"])
    parser.add_argument("--rival-python", help="python of the original's environment")
    arguments = parser.parse_args()
    sonant = [sys.executable, "-m", "sonant", "bench"]
    with tempfile.TemporaryDirectory(prefix="sonant-bench-") as scratch:
        for model in arguments.models:
            folder = str(folder_for(model, Path(scratch)))
            is_qwen = model.startswith("qwen3")
            for precision in (
                [[], ["--precision", "int8"], ["--precision", "mixed"], ["--precision", "int4"]]
                if is_qwen
                else [[]]
            ):
                rival = []
                original = next((name for start, name in RIVALS.items() if model.startswith(start)), None)
                if original and arguments.rival_python:
                    dtype = "bfloat16" if precision else "float32"
                    rival = ["--compare", original, "--rival-python", arguments.rival_python]
                    rival += ["--rival-dtype", dtype]
                subprocess.run([*sonant, folder, *precision, *rival], check=True)


if __name__ == "__main__":
    main()
