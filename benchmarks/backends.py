"""Which back end reads narrow weights fastest: one table, every back end in turn in one process.

    python benchmarks/backends.py [--threads 2] [--rounds 5]     (`pip install onnx` makes its graphs)

Times the linear layers of Qwen3-TTS 0.6B at their true shapes with one row of input, in float32 outside: a
step of the talker (28 layers and its head), and a frame of the code predictor (5 layers fifteen times, a
head each time). Attention, norms and activations are left out for all; projections that share their input
are one matrix for all. Values are random: speed does not depend on them.
"""

import argparse
import platform
import time
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F

from sonant import native
from sonant.bench.qwen3_tts_checkpoint import model_shapes
from sonant.bench.random_weights import Noise
from sonant.nn.packed import PackedLinear, is_available
from sonant.nn.precision import PRECISIONS
from sonant.nn.quantized import NativeLinear

STEPS = 15
"""Of the code predictor in a frame."""
BLOCK = 64
"""Inputs that share a scale in ONNX Runtime's matrices, as in the int8 of the C kernel."""


def shapes():
    """Rows and inputs of each matrix: talker layers, talker head, predictor layers, predictor heads."""
    found = {"talker": {}, "predictor": {}}
    heads = {"talker": [], "predictor": []}
    for name, shape in model_shapes("0.6b", "custom_voice"):
        if len(shape) != 2 or "embedding" in name or "text_projection" in name:
            continue
        part = "predictor" if "code_predictor" in name else "talker"
        if "layers." not in name:
            heads[part].append(shape)
            continue
        index, matrix = name.split("layers.")[1].split(".", 1)
        found[part].setdefault(index, {})[matrix.split(".")[1]] = shape
    return {
        part: ([fused(layer) for layer in layers.values()], heads[part]) for part, layers in found.items()
    }


def fused(layer):
    """The four matrices of a layer: q, k and v as one, out, gate and up as one, down."""
    qkv = (sum(layer[name][0] for name in ("q_proj", "k_proj", "v_proj")), layer["q_proj"][1])
    middle = (2 * layer["gate_proj"][0], layer["gate_proj"][1])
    return [qkv, layer["o_proj"], middle, layer["down_proj"]]


def in_turn(linears):
    """x through linear layers, each taking as much of the last one's outputs as it has inputs."""

    def run(x):
        for inputs, linear in linears:
            x = linear(x[:, :inputs])
        return x

    return run


def each(make):
    """A back end that makes one function of each matrix: matrices -> x -> y."""
    return lambda matrices: in_turn([(w.shape[1], make(w)) for w in matrices])


def float32(w):
    return lambda x: F.linear(x, w)


def bfloat16(w):
    narrow = w.bfloat16()
    return lambda x: F.linear(x.bfloat16(), narrow).float()


def reordered(w):
    layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(w, requires_grad=False)
    return PackedLinear(layer, rows=1)


def dynamic_int8(w):
    """What torch's quantize_dynamic runs: one scale for each row, activations quantised in each call."""
    scales = w.abs().amax(dim=1) / 127
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch says that quantised tensors will go; torchao is their successor
        narrow = torch.quantize_per_channel(
            w, scales.double(), torch.zeros(len(w), dtype=torch.int64), 0, torch.qint8
        )
    packed = torch.ops.quantized.linear_prepack(narrow, None)
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, False)


def kernel(name):
    library = native.library()
    return lambda w: NativeLinear(library, w.bfloat16().float(), None, PRECISIONS[name])


def matmul_n_bits(bits):
    """One ONNX graph of all matrices, as com.microsoft.MatMulNBits with int8 activations."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def make(matrices):
        nodes, stored = [], []
        value, width = "x", None
        for number, w in enumerate(matrices):
            rows, inputs = w.shape
            if width is not None and width != inputs:
                bounds = [f"begin{number}", f"end{number}", f"axis{number}"]
                for name, at in zip(bounds, (0, inputs, 1), strict=True):
                    stored.append(numpy_helper.from_array(np.array([at], np.int64), name))
                nodes.append(helper.make_node("Slice", [value, *bounds], [f"part{number}"]))
                value = f"part{number}"
            codes, scales = blocks(w, bits, random)
            stored += [
                numpy_helper.from_array(codes, f"b{number}"),
                numpy_helper.from_array(scales, f"s{number}"),
            ]
            nodes.append(
                helper.make_node(
                    "MatMulNBits", [value, f"b{number}", f"s{number}"], [f"y{number}"],
                    domain="com.microsoft", K=inputs, N=rows, bits=bits, block_size=BLOCK, accuracy_level=4,
                )
            )  # fmt: skip
            value, width = f"y{number}", rows
        first = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, matrices[0].shape[1]])
        last = helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, matrices[-1].shape[0]])
        graph = helper.make_graph(nodes, "linears", [first], [last], stored)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = False  # seventeen pools would wait for work beside each other
        session = onnxruntime.InferenceSession(
            onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=imports, ir_version=9)),
            options,
            providers=["CPUExecutionProvider"],
        )
        return lambda x: session.run(None, {"x": x.numpy()})[0]

    return make


def blocks(w, bits, random):
    """Random codes [N, K / BLOCK, BLOCK * bits / 8] and scales [N * K / BLOCK], zero at the middle.

    No two matrices are alike: onnxruntime would keep one, and that may fit into the processor's cache.
    """
    rows, count = w.shape[0], w.shape[1] // BLOCK
    codes = random.integers(0, 256, (rows, count, BLOCK * bits // 8), dtype=np.uint8)
    return codes, np.full(rows * count, 1 / (1 << bits - 1) / w.shape[1] ** 0.5, np.float32)


class Speaker:
    """Talker and code predictor on one back end."""

    def __init__(self, make):
        noise, sizes = Noise(), shapes()
        layers, heads = sizes["talker"]
        talker = [*(shape for layer in layers for shape in layer), *heads]
        self.talker = make([noise.tensor(shape) for shape in talker])
        layers, heads = sizes["predictor"]
        self.predictor = make([noise.tensor(shape) for layer in layers for shape in layer])
        self.heads = [make([noise.tensor(shape)]) for shape in heads]
        self.x = noise.tensor((1, 1024)) * 32

    def step(self):
        self.talker(self.x)

    def frame(self):
        for head in self.heads:
            self.predictor(self.x)
            head(self.x)


def milliseconds(work, repeats):
    """Median of some calls after one that does not count."""
    work()
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        spent.append((time.perf_counter() - began) * 1000)
    return median(spent)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    onnxruntime.set_global_thread_pool_sizes(arguments.threads, 1)
    backends = {
        "torch float32": (each(float32), 4),
        "torch bfloat16": (each(bfloat16), 2),
        "torch dynamic int8": (each(dynamic_int8), 1),
        "ONNX Runtime MatMulNBits 8": (matmul_n_bits(8), 1 + 4 / BLOCK),
        "ONNX Runtime MatMulNBits 4": (matmul_n_bits(4), 0.5 + 4 / BLOCK),
    }
    if is_available():
        backends["torch float32, oneDNN's order"] = (each(reordered), 4)
    if native.library() is not None:
        for name, precision in PRECISIONS.items():
            size = precision.bits / 8 + (0 if precision.is_lossless else 2 / precision.group)
            backends[f"C kernel {name}"] = (each(kernel(name)), size)
    speakers = {name: Speaker(make) for name, (make, _) in backends.items()}
    times = {name: ([], []) for name in speakers}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for name, speaker in speakers.items():
                times[name][0].append(milliseconds(speaker.step, 3))
                times[name][1].append(milliseconds(speaker.frame, 2))
    count = sum(r * k for part in shapes().values() for layer in part[0] for r, k in layer)
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    print(f"{processor()}, {arguments.threads} threads, {versions}")
    print(f"medians of {arguments.rounds} rounds in turn; {count / 1e6:.0f} M weights in layers")
    print("| back end | bytes a weight | talker step, ms | predictor frame, ms | both |")
    print("| --- | --- | --- | --- | --- |")
    for name, (steps, frames) in times.items():
        step, frame = median(steps), median(frames)
        print(f"| {name} | {backends[name][1]:.2f} | {step:.1f} | {frame:.1f} | {step + frame:.1f} |")


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
