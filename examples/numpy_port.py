"""Two talker layers of Qwen3-TTS in numpy, as someone would port them: python examples/numpy_port.py --help

    python examples/numpy_port.py CHECKPOINT right.safetensors port.npz --mistake key --mistake gelu

Takes the layers' input from a trace, prefill and steps with a cache, and writes what it computes under names
and in layouts of its own. `--mistake` makes one that ports have made. docs/parity.md finds them.
"""

import argparse
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Dump = Callable[[str, Array], None]

MISTAKES = ("key", "gelu", "position")
PLAIN = {"F32": "<f4", "I64": "<i8", "F64": "<f8"}
EPS, THETA, HEADS, KV_HEADS, WIDTH = 1e-6, 1e6, 4, 2, 16


def read(path: str) -> dict[str, Array]:
    """Every tensor of numbers of a safetensors file."""
    with open(path, "rb") as file:
        head = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    made = {}
    for name, item in head.items():
        if name == "__metadata__" or item["dtype"] not in {"BF16", *PLAIN}:
            continue
        raw = data[slice(*item["data_offsets"])]
        if item["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "I64": "<i8", "F64": "<f8"}.get(item["dtype"], "u1"))
        made[name] = (
            values.reshape(item["shape"]) if item["dtype"] in {"BF16", "F32", "F64", "I64"} else values
        )
    return made


def norm(x: Array, weight: Array) -> Array:
    """RMS norm over the last axis."""
    scaled: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight
    return scaled


def rotate(x: Array, positions: Array) -> Array:
    """x [T, H, D] turned by its positions [T], in halves."""
    angle = positions[:, None] / THETA ** (np.arange(0, WIDTH, 2) / WIDTH)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    first, second = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), -1)


class Layer:
    """One decoder layer and its cache."""

    def __init__(self, weights: dict[str, Array], index: int, mistakes: list[str]) -> None:
        prefix = f"talker.model.layers.{index}."
        self.w = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        self.index, self.mistakes = index, mistakes
        self.keys, self.values = np.zeros((0, KV_HEADS, WIDTH)), np.zeros((0, KV_HEADS, WIDTH))

    def __call__(self, x: Array, start: int, dump: Dump) -> Array:
        """x [T, D] that begins at position `start`; every stage goes to `dump`."""
        name, w = f"h{self.index}", self.w
        y = norm(x, w["input_layernorm.weight"])
        q = (y @ w["self_attn.q_proj.weight"].T).reshape(len(x), HEADS, WIDTH)
        k = (y @ w["self_attn.k_proj.weight"].T).reshape(len(x), KV_HEADS, WIDTH)
        v = (y @ w["self_attn.v_proj.weight"].T).reshape(len(x), KV_HEADS, WIDTH)
        q = norm(q, w["self_attn.q_norm.weight"])
        if not ("key" in self.mistakes and self.index == 1):
            k = norm(k, w["self_attn.k_norm.weight"])
        at = start - 1 if "position" in self.mistakes and start else start
        q, k = (rotate(z, np.arange(at, at + len(x))) for z in (q, k))
        dump(f"{name}/q", q)
        dump(f"{name}/k", k)
        self.keys, self.values = np.concatenate((self.keys, k)), np.concatenate((self.values, v))
        keys, values = (np.repeat(z, HEADS // KV_HEADS, axis=1) for z in (self.keys, self.values))
        scores = np.einsum("qhd,khd->hqk", q, keys) / np.sqrt(WIDTH)
        seen = np.arange(len(keys))[None] <= start + np.arange(len(x))[:, None]
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", weights, values).reshape(len(x), -1)
        branch = out @ w["self_attn.o_proj.weight"].T
        dump(f"{name}/attn", branch)
        x = x + branch
        y = norm(x, w["post_attention_layernorm.weight"])
        gate = y @ w["mlp.gate_proj.weight"].T
        if "gelu" in self.mistakes:
            gate = 0.5 * gate * (1 + np.tanh(0.7978845608 * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        branch = (gate * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
        dump(f"{name}/ffn", branch)
        x = x + branch
        dump(f"{name}/out", x)
        return x


def main() -> None:
    """Read, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("trace")
    parser.add_argument("output")
    parser.add_argument("--mistake", action="append", default=[], choices=MISTAKES)
    parser.add_argument("--steps", type=int, default=2, help="passes: the prefill, then one for each frame")
    parser.add_argument("--half", action="store_true", help="store float16")
    parser.add_argument("--compute-half", action="store_true", help="compute in float16")
    given = parser.parse_args()
    weights, trace = read(f"{given.checkpoint}/model.safetensors"), read(given.trace)
    if given.compute_half:
        weights = {name: value.astype(np.float16) for name, value in weights.items()}
    layers = [Layer(weights, index, given.mistake) for index in (0, 1)]
    made: dict[str, Array] = {}
    start = 0
    kind = np.float16 if given.half or given.compute_half else np.float32
    for step in range(given.steps):
        x = trace["talker.layer.0.in" + (f"@{step}" if step else "")][0]
        x = x.astype(np.float16 if given.compute_half else np.float64)

        def dump(name: str, value: Array, step: int = step) -> None:
            made[f"step{step}/{name}"] = value.astype(kind)

        length = len(x)
        for layer in layers:
            x = layer(x, start, dump)
        start += length
    np.savez(given.output, **made)


if __name__ == "__main__":
    main()
