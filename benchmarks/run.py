"""The tables of docs/benchmarks.md that any machine can make: `make bench`.

    python benchmarks/run.py [MODEL ...] [--batches 1 4 8] [--seconds 5 10 30] [--rounds 3]
                             [--precisions int8 int4] [--rival-python PYTHON] [--json FILE]

Without models: the built-in voice, and Qwen3-TTS 0.6B with random weights of the true shapes in every
precision, int8 also with 4 and 8 utterances at a time; then the back ends in turn where `onnx` is
installed. A figure is the median of `--rounds` fresh processes with the least and the most beside it, made
for each length of `--seconds`. With one round of 5 seconds about ten minutes on two cores, 3 GB of disk
and up to 10 GB of memory; `cosyvoice3-0.5b` and `indextts2` take five minutes more each. A rival is the
model's own original; its python is that of an environment with that original. `--json` keeps the figures,
one JSON object a line, which `benchmarks/plots.py` draws.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from sonant.bench.checkpoints import folder_for, rival_of
from sonant.catalogue import registry


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["builtin", "qwen3-tts-0.6b"])
    parser.add_argument("--batches", nargs="+", default=["1", "4", "8"], help="utterances at a time, in int8")
    parser.add_argument("--seconds", nargs="+", default=["5"], help="lengths of speech")
    parser.add_argument("--rounds", default="1", help="fresh processes for each figure, in turn with a rival")
    parser.add_argument("--precisions", nargs="+", help="only these of what a model offers")
    parser.add_argument("--json", type=Path, help="append every figure to this file")
    parser.add_argument("--rival-python", help="python of the original's environment")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sonant-bench-") as scratch:
        for model in arguments.models:
            folder = str(folder_for(model, Path(scratch)))
            offered = [name for name in registry.precisions(folder) if name not in ("auto", "full")]
            if arguments.precisions:
                offered = [name for name in offered if name in arguments.precisions]
            for precision in offered or ["auto"]:
                for seconds in arguments.seconds:
                    bench(model, folder, precision, seconds, arguments)
    if "qwen3-tts-0.6b" in arguments.models and find_spec("onnx"):
        subprocess.run([sys.executable, str(Path(__file__).with_name("backends.py"))], check=True)


def bench(model, folder, precision, seconds, arguments):
    """One table of `sonant bench`, with the original beside it where it can be run."""
    command = [sys.executable, "-m", "sonant", "bench", folder, "--precision", precision]
    command += ["--seconds", seconds, "--rounds", arguments.rounds]
    for batch in arguments.batches if precision == "int8" else ["1"]:
        command += ["--batch", batch]
    original = rival_of(model)
    if original and arguments.rival_python:
        dtype = "float32" if precision == "lossless" else "bfloat16"
        command += ["--compare", original, "--rival-python", arguments.rival_python, "--rival-dtype", dtype]
    if arguments.json is None:
        subprocess.run(command, check=True)
        return
    done = subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    with arguments.json.open("a", encoding="utf-8") as file:
        for one in found if isinstance(found, list) else [found]:
            line = json.dumps({**one, "model": model, "seconds": float(seconds)})
            file.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
