"""Two talker layers in numpy as docs/parity.md describes them, with mistakes to switch on.

Nothing of Sonant's: what somebody writes who has only that page. Each mistake knows where it must be found.
"""

import numpy as np

HEADS, GROUPS, WIDTH, EPS, THETA = 4, 2, 16, 1e-6, 1e6

Q, K, A, M, OUT = ("talker.layer.{layer}." + leaf for leaf in ("query", "key", "attention", "mlp", "out"))

MISTAKES = {
    "theta of another model": (Q, K),
    "theta without the factor of two": (Q, K),
    "positions from one": (Q, K),
    "positions not counted on after the prefill": (Q, K),
    "rotation the other way": (Q, K),
    "rotation of adjacent pairs": (Q, K),
    "rotation before the norm": (Q, K),
    "rotation of keys left out": (K,),
    "query norm over all heads": (Q,),
    "key norm left out": (K,),
    "norm weights plus one": (Q, K, A, M),
    "norm without its weight": (Q, K, A, M),
    "norm with the mean taken off": (Q, K, A, M),
    "epsilon outside the root": (Q, K, A, M),
    "scale applied twice": (A,),
    "scale left out": (A,),
    "scale by the width of the model": (A,),
    "mask one too wide": (A,),
    "mask one too narrow": (A,),
    "no mask": (A,),
    "softmax over the queries": (A,),
    "heads of a group in turns": (A,),
    "key heads exchanged in attention": (A,),
    "values of layer 0 exchanged": (A,),
    "cache one step behind": (A,),
    "heads joined head last": (A,),
    "output matrix transposed": (A,),
    "second norm left out": (M,),
    "second norm is the first one's": (M,),
    "second norm of the input": (M,),
    "gelu for silu": (M,),
    "silu on the other half": (M,),
    "relu for silu": (M,),
    "residual of the normed input": (OUT,),
    "second residual left out": (OUT,),
    "attention added twice": (OUT,),
}
"""Where each is found; the first ones of the order of computation come first."""


def norm(x, weight, on=()):
    if "norm weights plus one" in on:
        weight = 1 + weight
    if "norm without its weight" in on:
        weight = np.ones_like(weight)
    if "norm with the mean taken off" in on:
        x = x - x.mean(-1, keepdims=True)
    power = (x * x).mean(-1, keepdims=True)
    if "epsilon outside the root" in on:
        return x / (np.sqrt(power) + 1e-3) * weight
    return x / np.sqrt(power + EPS) * weight


def rotate(x, positions, on):
    """x [T, H, 16]"""
    theta = 1e4 if "theta of another model" in on else THETA
    power = np.arange(8) * (1 if "theta without the factor of two" in on else 2) / WIDTH
    angle = positions[:, None] / theta**power
    if "rotation the other way" in on:
        angle = -angle
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    if "rotation of adjacent pairs" in on:
        a, b = x[..., ::2], x[..., 1::2]
        return np.stack((a * cos - b * sin, b * cos + a * sin), -1).reshape(x.shape)
    a, b = x[..., :8], x[..., 8:]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


class Layer:
    def __init__(self, weights, index):
        prefix = f"talker.model.layers.{index}."
        self.w = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        self.index = index
        self.keys = self.values = np.zeros((0, GROUPS, WIDTH))

    def __call__(self, x, start, on, see):
        w, length = self.w, len(x)
        y = norm(x, w["input_layernorm.weight"], on)
        q = (y @ w["self_attn.q_proj.weight"].T).reshape(length, HEADS, WIDTH)
        k = (y @ w["self_attn.k_proj.weight"].T).reshape(length, GROUPS, WIDTH)
        v = (y @ w["self_attn.v_proj.weight"].T).reshape(length, GROUPS, WIDTH)
        first = start
        if "positions not counted on after the prefill" in on:
            first = 0
        if "positions from one" in on:
            first += 1
        at = np.arange(first, first + length)
        if "rotation before the norm" in on:
            q, k = rotate(q, at, on), rotate(k, at, on)
        if "query norm over all heads" in on:
            power = (q * q).mean((1, 2), keepdims=True)
            q = q / np.sqrt(power + EPS) * w["self_attn.q_norm.weight"]
        else:
            q = norm(q, w["self_attn.q_norm.weight"], on)
        if "key norm left out" not in on:
            k = norm(k, w["self_attn.k_norm.weight"], on)
        if "rotation before the norm" not in on:
            q = rotate(q, at, on)
            k = k if "rotation of keys left out" in on else rotate(k, at, on)
        see("q", q)
        see("k", k)
        out = self.attend(q, k, v, start, on)
        branch = out @ (w["self_attn.o_proj.weight"].T)
        if "output matrix transposed" in on:
            branch = out @ w["self_attn.o_proj.weight"].reshape(len(w["self_attn.o_proj.weight"].T), -1)
        see("att", branch)
        h = x + branch
        given = x if "second norm of the input" in on else h
        second = "input_layernorm" if "second norm is the first one's" in on else "post_attention_layernorm"
        z = given if "second norm left out" in on else norm(given, w[f"{second}.weight"], on)
        gate, up = z @ w["mlp.gate_proj.weight"].T, z @ w["mlp.up_proj.weight"].T
        if "silu on the other half" in on:
            gate, up = up, gate
        act = gate / (1 + np.exp(-gate))
        if "gelu for silu" in on:
            act = 0.5 * gate * (1 + np.tanh(0.7978845608 * (gate + 0.044715 * gate**3)))
        if "relu for silu" in on:
            act = np.maximum(gate, 0)
        branch2 = (act * up) @ w["mlp.down_proj.weight"].T
        see("ffn", branch2)
        total = h + branch2
        if "residual of the normed input" in on:
            total = y + branch + branch2
        if "second residual left out" in on:
            total = branch2
        if "attention added twice" in on:
            total = total + branch
        see("y", total)
        return total

    def attend(self, q, k, v, start, on):
        if "values of layer 0 exchanged" in on and self.index == 0:
            v = v[:, ::-1]
        past = len(self.keys)
        self.keys, self.values = np.concatenate((self.keys, k)), np.concatenate((self.values, v))
        keys, values = self.keys, self.values
        if "cache one step behind" in on and past:
            keys, values = keys[:-1], values[:-1]
        if "key heads exchanged in attention" in on:
            keys = keys[:, ::-1]
        if "heads of a group in turns" in on:
            keys, values = (np.tile(z, (1, HEADS // GROUPS, 1)) for z in (keys, values))
        else:
            keys, values = (np.repeat(z, HEADS // GROUPS, axis=1) for z in (keys, values))
        scale = np.sqrt(WIDTH)
        scale = scale**2 if "scale applied twice" in on else scale
        scale = 1 if "scale left out" in on else scale
        scale = np.sqrt(q.shape[1] * 10) if "scale by the width of the model" in on else scale
        scores = np.einsum("qhd,khd->hqk", q, keys) / scale
        reach = start + np.arange(len(q))[:, None]
        reach = reach + 1 if "mask one too wide" in on else reach
        reach = np.maximum(reach - 1, 0) if "mask one too narrow" in on else reach
        if "no mask" not in on:
            scores = np.where(np.arange(len(keys))[None] <= reach, scores, -1e30)
        axis = 1 if "softmax over the queries" in on else -1
        p = np.exp(scores - scores.max(axis, keepdims=True))
        p = p / p.sum(axis, keepdims=True)
        out = np.einsum("hqk,khd->qhd", p, values)
        if "heads joined head last" in on:
            out = out.transpose(0, 2, 1)
        return out.reshape(len(q), -1)


def speak(weights, trace, mistakes=(), steps=3, layout=lambda name, x: x, only=None):
    """What such a port writes: arrays by its own names. `only` is the one layer that has the mistakes."""
    layers = [Layer(weights, index) for index in (0, 1)]
    made, start = {}, 0
    for step in range(steps):
        x = trace["talker.layer.0.in" + (f"@{step}" if step else "")][0].astype(np.float64)
        length = len(x)
        for layer in layers:

            def see(name, value, step=step, layer=layer):
                key = f"pass_{step}/blk{layer.index}_{name}"
                made[key] = layout(name, value).astype(np.float32)

            x = layer(x, start, mistakes if only in (None, layer.index) else (), see)
        start += length
    return made
