"""Products of many rows on a CPU, and steps of flows made of them: float32 and narrower, in turn.

    python benchmarks/flow_products.py [--rows 300 900] [--frames 450] [--rounds 5] [--only products]

First single layers, in billions of products a second: float32 packed for oneDNN, weights in int8 with inputs
of 16 bits as language models have them, and fixed point. Then one step of CosyVoice3's and of IndexTTS2's
velocity network at the released sizes, random weights, both rows of the guidance: seconds in float32 and in
the form that `--precision int8` takes on this processor, and how far the velocities are from each other.
Medians of processor time of all threads, which others on the machine move less than the clock's; about four
minutes and 4 GB of disk and memory.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn

from sonant import native
from sonant.bench import cosyvoice3_checkpoint, indextts2_checkpoint
from sonant.bench.random_weights import recorded_shapes
from sonant.nn.narrow_products import FixedRows, narrow_form
from sonant.nn.packed import PackedLinear
from sonant.nn.precision import INT8
from sonant.nn.quantized import NativeLinear

SHAPES = ((1024, 1024), (1024, 2048), (2048, 1024), (512, 512), (512, 1536), (1536, 512))
"""Inputs and outputs of the blocks' layers: CosyVoice3's, then IndexTTS2's."""


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


def in_turn(calls, rounds):
    """Of each call its result and the median of its seconds."""
    found, taken = {}, {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            found[name] = call()
            if turn:  # the first is for warming up
                taken[name].append(time.process_time() - begin)
    return found, {name: median(seconds) for name, seconds in taken.items()}


def products(rows, rounds):
    library = native.library()
    if library is None:
        raise SystemExit("the kernel is not there; expected a C compiler. Install gcc or clang.")
    for inner, outer in SHAPES:
        layer = nn.Linear(inner, outer)
        weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
        forms = {
            "float32": PackedLinear(layer, rows=512),
            "int8 x 16 bits": NativeLinear(library, weight, bias, INT8),
            "fixed point": FixedRows(library, layer),
        }
        for count in rows:
            x = torch.randn(count, inner)
            exact = x.double() @ weight.double().T + bias.double()
            found, seconds = in_turn({name: partial(form, x) for name, form in forms.items()}, 4 * rounds)
            speeds = {name: count * inner * outer / taken / 1e9 for name, taken in seconds.items()}
            cells = (
                f"{name} {speeds[name]:.1f} G/s, loss {distance(y, exact):.1e}" for name, y in found.items()
            )
            print(f"{inner} x {outer}, {count} rows: " + "; ".join(cells), flush=True)


def cosyvoice3(folder, frames):
    """Networks in both forms, and what a step gives them."""
    from sonant.families.cosyvoice3.config import read_config
    from sonant.families.cosyvoice3.weights import load_flow

    name = "flow.pt"
    cosyvoice3_checkpoint.write(folder, shapes={name: recorded_shapes("cosyvoice3")[name]})
    config = read_config(folder)
    cpu = torch.device("cpu")
    networks = [
        load_flow(folder, config, device=cpu, dtype=torch.float32, narrow=narrow).decoder.estimator
        for narrow in (False, True)
    ]
    mels = config.flow.mel_bins
    given = [*(torch.randn(2, mels, frames) for _ in range(3)), torch.randn(2, mels)]
    return networks, [*given, torch.full((2,), 0.3), torch.arange(frames)], {"chunked": False}


def indextts2(folder, frames):
    """Networks in both forms, and what a step gives them."""
    from sonant.families.indextts2.config import CONFIG_NAME, read_config
    from sonant.families.indextts2.weights import load_s2mel

    name = "s2mel.pth"
    indextts2_checkpoint.write(folder, shapes={name: recorded_shapes("indextts2")[name]})
    config = read_config(folder / CONFIG_NAME)
    halves = [load_s2mel(folder / name, config, device="cpu", narrow=narrow) for narrow in (False, True)]
    sizes = halves[0].config
    rows = [torch.randn(2, sizes.dit.in_channels, frames) for _ in range(2)]
    condition = torch.randn(2, frames, sizes.dit.content_dim)
    given = [*rows, condition, torch.randn(2, sizes.style_dim), torch.full((2,), 0.3)]
    return [half.estimator for half in halves], given, {}


def steps(family, frames, rounds):
    with tempfile.TemporaryDirectory() as folder:
        (wide, narrow), given, options = family(Path(folder), frames)
    calls = {"wide": lambda: wide(*given, **options), "narrow": lambda: narrow(*given, **options)}
    found, seconds = in_turn(calls, rounds)
    form = narrow_form()
    print(
        f"{family.__name__}, {frames} frames: float32 {seconds['wide']:.2f} s, "
        f"{'float32' if form is None else form.value} {seconds['narrow']:.2f} s, "
        f"{seconds['wide'] / seconds['narrow']:.2f} times as fast; velocities differ by "
        f"{distance(found['narrow'], found['wide']):.2%}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[300, 900])
    parser.add_argument("--frames", type=int, default=450, help="of mel, the reference's included")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("products", "cosyvoice3", "indextts2"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        if arguments.only in (None, "products"):
            products(arguments.rows, arguments.rounds)
        for family in (cosyvoice3, indextts2):
            if arguments.only in (None, family.__name__):
                steps(family, arguments.frames, arguments.rounds)


if __name__ == "__main__":
    main()
