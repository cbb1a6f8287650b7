"""A step of IndexTTS2's beams at the released sizes, random weights: layers one by one and joined, in turn.

    python benchmarks/beams.py [--utterances 1 4] [--precision int8] [--threads 2] [--rounds 3] [--profile]

For each number of utterances (three beams each) milliseconds of a step by what it does: choosing the codes,
sorting the rows of the cache, the network. "layers" calls each product by itself over a cache whose rows are
copied; "joined" is what models run. Both are given the same codes. About two minutes and 3 GB on two cores.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from sonant.bench.indextts2_checkpoint import CONFIG
from sonant.bench.random_weights import Noise
from sonant.checkpoints.modules import build
from sonant.families.indextts2.config import CONFIG_NAME, read_config
from sonant.families.indextts2.gpt import ConditionSizes, IndexGpt
from sonant.families.indextts2.options import SAMPLING
from sonant.families.indextts2.search import SearchSettings, make_search
from sonant.nn.cache import KVCache
from sonant.nn.precision import PRECISIONS
from sonant.nn.quantized import quantize_linear

PREFIX = 100
"""Positions before the codes: the voice, and a sentence's text."""


def network(precision, layers=None):
    """Blocks, norms, embeddings and head of the released sizes, narrow; the rest stays without weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG_NAME
        path.write_text(CONFIG, encoding="utf-8")
        config = read_config(path).gpt
    sizes = ConditionSizes(features=1024, emotion_width=512, positions=1000, latents=32)
    gpt = build(lambda: IndexGpt(config, sizes))
    if layers is not None:
        gpt.config = config = replace(config, layers=layers)
        gpt.h = gpt.h[:layers]
    noise = Noise()
    for part in (gpt.code_embedding, gpt.code_positions, gpt.ln_f, gpt.final_norm, gpt.code_head, *gpt.h):
        part.to_empty(device="cpu")
        for module in part.modules():
            for name, parameter in module.named_parameters(recurse=False):
                is_norm = isinstance(module, nn.LayerNorm)
                fill = torch.full_like(parameter, float(is_norm and name == "weight"))
                value = fill if parameter.dim() == 1 else noise.tensor(parameter.shape)
                setattr(module, name, nn.Parameter(value.bfloat16().float(), requires_grad=False))
        for name, layer in list(part.named_modules()):
            if isinstance(layer, nn.Linear) and name:
                part.set_submodule(name, quantize_linear(layer, PRECISIONS[precision]))
    gpt.code_head.bias.data[config.start_mel_token :] = -1e4  # neither the start code nor the end
    gpt.code_head = quantize_linear(gpt.code_head, PRECISIONS[precision])
    gpt.join_steps()
    return gpt


class Way:
    """One way to make steps: a cache, searches, and the seconds spent on each part."""

    def __init__(self, gpt, utterances, steps, *, native):
        self.gpt, self.native = gpt, native
        c, s = gpt.config, SAMPLING
        self.beams, self.count, self.codes = s["beams"], utterances, 0
        rows = self.beams * utterances
        self.cache = KVCache(
            layers=c.layers,
            slots=rows,
            heads=c.heads,
            head_dim=c.model_dim // c.heads,
            capacity=PREFIX + steps + 2,
            shares=native is not None,
        )
        settings = SearchSettings(
            beams=self.beams,
            greedy=False,
            temperature=s["temperature"],
            top_k=s["top_k"],
            top_p=s["top_p"],
            repetition_penalty=s["repetition_penalty"],
            length_penalty=s["length_penalty"],
            limit=steps + 9,
            stop=c.stop_mel_token,
            start=c.start_mel_token,
        )
        self.searches = [make_search(settings, PREFIX) for _ in range(utterances)]
        self.generators = [torch.Generator().manual_seed(row) for row in range(utterances)]
        self.gpt.native = self.native
        prefix = Noise().tensor((PREFIX, c.model_dim)) * 20
        self.logits = []
        for row in range(utterances):
            slots = list(range(row * self.beams, (row + 1) * self.beams))
            first = gpt.prefill(prefix, self.cache.rows(slots[:1], PREFIX + 1))
            self.cache.reorder(slots, slots[:1] * self.beams)
            self.logits.append(first.expand(self.beams, -1))

    def step(self, clock):
        """One code for each row; seconds of choosing, sorting and the network, and the codes."""
        began = clock()
        turns = [
            search.advance(logits, generator)
            for search, logits, generator in zip(self.searches, self.logits, self.generators, strict=True)
        ]
        chosen = clock()
        for row, turn in enumerate(turns):
            first = row * self.beams
            slots = list(range(first, first + self.beams))
            self.cache.reorder(slots, [first + source for source in turn.sources], start=PREFIX + 1)
        sorted_at = clock()
        self.codes += 1
        codes = [code for turn in turns for code in turn.codes]
        self.gpt.native = self.native
        rows = self.cache.rows(list(range(len(codes))), 1)
        logits = self.gpt.step(torch.tensor(codes), [self.codes] * len(codes), rows)
        self.logits = list(logits.split(self.beams))
        return codes, (chosen - began, sorted_at - chosen, clock() - sorted_at)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--precision", choices=list(PRECISIONS), default="int8")
    parser.add_argument("--layers", type=int, help="fewer than there are, to try it out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of 20 steps each way, the first to warm up")
    parser.add_argument("--wall", action="store_true", help="the clock, instead of processor time")
    parser.add_argument("--profile", action="store_true", help="torch's profile of the last steps")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.wall else time.process_time
    gpt = network(arguments.precision, arguments.layers)
    joined = gpt.native
    unit = "ms" if arguments.wall else "ms of processor time"
    print(f"{arguments.precision}, {arguments.threads} threads, {unit} a step: median (least to most)")
    for utterances in arguments.utterances:
        with torch.inference_mode():
            measure(gpt, joined, utterances, arguments, clock)


def measure(gpt, joined, utterances, arguments, clock):
    ways = {
        name: Way(gpt, utterances, 20 * (arguments.rounds + 2), native=native)
        for name, native in (("layers", None), ("joined", joined))
    }
    spent = {name: [] for name in ways}
    equal = total = 0
    for number in range(arguments.rounds + 1):
        made = {}
        for name, way in ways.items():
            steps = [way.step(clock) for _ in range(20)]
            made[name] = [code for codes, _ in steps for code in codes]
            if number:
                spent[name] += [parts for _, parts in steps]
        equal += sum(a == b for a, b in zip(*made.values(), strict=True))
        total += len(made["layers"])
    middle = {}
    for name, parts in spent.items():
        whole = [1000 * sum(one) for one in parts]
        middle[name] = median(whole)
        choose, order, pass_ = (1000 * median(column) for column in zip(*parts, strict=True))
        print(
            f"{3 * utterances:3} rows  {name}: {middle[name]:6.1f} ({min(whole):.1f} to {max(whole):.1f}): "
            f"choosing {choose:.1f}, cache {order:.1f}, network {pass_:.1f}"
        )
    ratio = middle["layers"] / middle["joined"]
    print(f"          layers / joined {ratio:.2f}; {equal} of {total} codes equal")
    if arguments.profile:
        for name, way in ways.items():
            with torch.profiler.profile() as profile:
                for _ in range(5):
                    way.step(clock)
            print(name, profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


if __name__ == "__main__":
    main()
