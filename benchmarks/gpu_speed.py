"""Steps of gpu_check.sh: what the machine is, a random checkpoint, how fast it is spoken with.

    python benchmarks/gpu_speed.py machine --device cuda
    python benchmarks/gpu_speed.py write qwen3-tts-0.6b FOLDER [--small]
    python benchmarks/gpu_speed.py speak FOLDER --device cuda --batch 8 [--unrecorded] [--small]

`--small` takes the tests' checkpoints and a few frames, to try the commands out. `--unrecorded` runs the
steps of a GPU one kernel after the other instead of replaying them.
"""

import argparse
import json
import platform
import shutil
from pathlib import Path

import torch

from sonant.bench.checkpoints import folder_for
from sonant.bench.worker import Workload, measure
from sonant.nn.replay import Replay

DATA = Path(__file__).parents[1] / "tests/data"


def machine(device):
    """What is measured, so that figures can be told apart later."""
    print(f"Python {platform.python_version()}, torch {torch.__version__}")
    if device == "cpu":
        print(f"CPU with {torch.get_num_threads()} threads: the commands are tried out, nothing is measured")
        return
    if not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no CUDA device; expected one. DEVICE=cpu tries the commands out without"
        )
    found = torch.cuda.get_device_properties(0)
    print(f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        a @ a
    start.record()
    for _ in range(10):
        a @ a
    end.record()
    torch.cuda.synchronize()
    print(f"bfloat16 products: {10 * 2 * 8192**3 / start.elapsed_time(end) / 1e9:.0f} TFLOPS")


def write(name, folder, *, small):
    """A random checkpoint of the true shapes; small: the tests' own."""
    if folder.exists():
        print("there already")
    elif not small:
        made = folder_for(name, folder.parent)
        if made != folder:
            shutil.move(made, folder)
    elif name.startswith("qwen3"):
        shutil.copytree(DATA / "qwen3_tts/checkpoints/base_1p7b", folder)
    elif name.startswith("cosyvoice3"):
        shutil.copytree(DATA / "cosyvoice3/checkpoint", folder)
    else:
        from tests.families.indextts2.conftest import build_checkpoint

        build_checkpoint(folder)
    print(f"{sum(file.stat().st_size for file in folder.rglob('*')) / 1e6:.0f} MB in {folder}")


def speak(folder, *, device, batch, unrecorded, small):
    """One JSON object: what `sonant bench --json` tells."""
    if unrecorded:
        usual = Replay.__init__
        Replay.__init__ = lambda self, device, *, records=None: usual(self, device, records=False)
    is_flow_bound = not folder.name.startswith("qwen3")
    workload = Workload(
        model=str(folder),
        device=device,
        dtype="float32" if is_flow_bound or device == "cpu" else "bfloat16",
        precision="full",
        batch=batch,
        seconds=0.3 if small else 4.0 if is_flow_bound else 8.0,
        runs=1 if small else 2,
    )
    figures = measure(workload)
    figures["recorded"] = device != "cpu" and not unrecorded
    print(json.dumps(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("machine").add_argument("--device", default="cuda")
    writing = steps.add_parser("write")
    writing.add_argument("name")
    speaking = steps.add_parser("speak")
    for one in (writing, speaking):
        one.add_argument("folder", type=Path)
        one.add_argument("--small", action="store_true")
    speaking.add_argument("--device", default="cuda")
    speaking.add_argument("--batch", type=int, default=1)
    speaking.add_argument("--unrecorded", action="store_true")
    arguments = vars(parser.parse_args())
    {"machine": machine, "write": write, "speak": speak}[arguments.pop("step")](**arguments)


if __name__ == "__main__":
    main()
