"""The velocity network of a flow on one device: as it is, and through torch.compile, in turn.

    python benchmarks/flow_compile.py FOLDER [--device cuda] [--frames 650] [--rounds 3]

FOLDER is a checkpoint of CosyVoice3 or IndexTTS2; random weights do. One step with both rows of the
guidance, in float32 and, on a GPU, in bfloat16: milliseconds as the median (least to most) of all rounds,
what the first call of the compiled one costs, and its largest difference over the largest value.
On a CPU set SONANT_NATIVE=0: calls into C cannot be compiled.
"""

import argparse
import sys
import time
from pathlib import Path
from statistics import median

import torch

from sonant.catalogue import registry


def cosyvoice3(folder, device, frames):
    """The network, and what one step gives it."""
    from sonant.families.cosyvoice3.loading import read_config
    from sonant.families.cosyvoice3.weights import load_flow

    config = read_config(folder)
    network = load_flow(folder, config, device=device, dtype=torch.float32).decoder.estimator
    mels = config.flow.mel_bins
    rows = [torch.randn(2, mels, frames) for _ in range(3)]
    given = [*rows, torch.randn(2, mels), torch.full((2,), 0.3), torch.arange(frames)]
    return network, given, {"chunked": False}


def indextts2(folder, device, frames):
    """The network, and what one step gives it."""
    from sonant.families.indextts2.config import CONFIG_NAME, read_config
    from sonant.families.indextts2.layout import locate
    from sonant.families.indextts2.weights import load_s2mel

    config = read_config(folder / CONFIG_NAME)
    half = load_s2mel(locate(folder, config).s2mel, config, device=device)
    sizes = half.config
    rows = [torch.randn(2, sizes.dit.in_channels, frames) for _ in range(2)]
    condition = torch.randn(2, frames, sizes.dit.content_dim)
    given = [*rows, condition, torch.randn(2, sizes.style_dim), torch.full((2,), 0.3)]
    return half.estimator, given, {}


def without_taps(network):
    """Taps ask a context variable, which cuts what is compiled into pieces; here they are gone either way."""
    for name in {type(part).__module__ for part in network.modules()}:
        if hasattr(sys.modules[name], "tap"):
            sys.modules[name].tap = lambda name, x: x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=650, help="of mel, the reference's included")
    parser.add_argument("--rounds", type=int, default=3, help="of five steps each way")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; eager tries this script out")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    family = registry.detect(arguments.folder)
    torch.manual_seed(0)
    network, given, options = {"cosyvoice3": cosyvoice3, "indextts2": indextts2}[family](
        arguments.folder, device, arguments.frames
    )
    without_taps(network)
    for dtype in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
        network.to(dtype)
        inputs = [x.to(device, dtype if x.is_floating_point() else None) for x in given]
        with torch.inference_mode():
            measure(f"{family} {str(dtype)[6:]}", network, inputs, options, arguments)


def measure(name, network, inputs, options, arguments):
    def seconds(call, count):
        torch.cuda.synchronize() if inputs[0].is_cuda else None
        began = time.perf_counter()
        for _ in range(count):
            made = call(*inputs, **options)
        torch.cuda.synchronize() if inputs[0].is_cuda else None
        return (time.perf_counter() - began) / count, made

    # Layers differ in what they hold, and a piece is compiled anew for each; by default only eight times.
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, 256)
    compiled = torch.compile(network, dynamic=False, backend=arguments.backend)
    _, expected = seconds(network, 2)
    first, found = seconds(compiled, 1)
    seconds(compiled, 3)  # what the first call left behind may have some pieces compiled again
    difference = float((found - expected).abs().max() / expected.abs().max())
    spent = {"plain": [], "compiled": []}
    for _ in range(arguments.rounds):
        for way, call in (("plain", network), ("compiled", compiled)):
            spent[way].append(seconds(call, 5)[0] * 1000)
    middle = {way: median(values) for way, values in spent.items()}
    figures = ", ".join(
        f"{way} {middle[way]:.2f} ({min(values):.2f} to {max(values):.2f})" for way, values in spent.items()
    )
    print(
        f"{name}, {arguments.frames} frames: ms a step {figures}; plain / compiled "
        f"{middle['plain'] / middle['compiled']:.2f}; first call {first:.1f} s; differs by {difference:.1e}",
        flush=True,
    )


if __name__ == "__main__":
    main()
